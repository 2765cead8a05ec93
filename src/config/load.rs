//! Layers: file < drop-ins < environment < flags. All mistakes of all of them are found in one go.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ::config::{ConfigError, Map, Source, Value};

use crate::backends::access::Fingerprint;

use super::{
    Config, Problem, Severity, check,
    option::{Reading, Setting},
    problem::Problems,
    toml_source::TomlSource,
    waiting::{Written, written},
};

/// Environment variables that begin so are options: `SUNDEW__LIMITS__PACKET_BYTES_MAX`, `SUNDEW__LISTENERS__0__ADDRESS`.
pub const ENVIRONMENT_PREFIX: &str = "SUNDEW__";

pub(super) const ENVIRONMENT_PLACE: &str = "environment variable ";

/// Where options come from, the later ones over the earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file, and beside it the drop-ins `conf.d/*.toml` in the order of their names.
    pub(super) file: Option<PathBuf>,
    /// Environment variables; those without [`ENVIRONMENT_PREFIX`] are skipped.
    pub(super) environment: Vec<(String, String)>,
    /// Flags of the command line, made with [`Layers::set`].
    pub(super) flags: Vec<(String, Value)>,
    /// See [`Layers::with_certificates`].
    pub(super) looks_into_certificates: bool,
}

impl Layers {
    /// A file, if there is one, under an environment; flags are added.
    #[must_use]
    pub fn new(file: Option<PathBuf>, environment: Vec<(String, String)>) -> Self {
        Self {
            file,
            environment,
            flags: Vec::new(),
            looks_into_certificates: false,
        }
    }

    /// Looks at what is in certificates and keys, too. A broker that runs has read them; one that is written right now is no mistake there.
    #[must_use]
    pub const fn with_certificates(mut self) -> Self {
        self.looks_into_certificates = true;
        self
    }

    /// Sets the option at `path`, such as `log.format`, for the flag named `flag`.
    pub fn set(&mut self, flag: &str, path: &str, value: &str) {
        self.flags.push((path.to_owned(), text_of_flag(flag, value)));
    }

    /// Replaces the listeners of the layers below, unless `listen` is empty.
    pub fn listen(&mut self, listen: &[Listen]) {
        if listen.is_empty() {
            return;
        }
        let listeners: Vec<_> = listen
            .iter()
            .map(|listen| {
                let mut table = Map::new();
                table.insert("address".to_owned(), text_of_flag(&listen.flag, &listen.address));
                table.insert("protocol".to_owned(), text_of_flag(&listen.flag, listen.protocol));
                Value::from(table)
            })
            .collect();
        self.flags.push(("listeners".to_owned(), Value::from(listeners)));
    }
}

/// A listener that a flag asks for.
#[derive(Clone, Debug)]
pub struct Listen {
    flag: String,
    address: String,
    protocol: &'static str,
}

impl Listen {
    /// MQTT on `address`, as in the configuration, or several with commas between them.
    pub fn mqtt(flag: &str, address: impl Into<String>) -> Self {
        Self {
            flag: flag.to_owned(),
            address: address.into(),
            protocol: "mqtt",
        }
    }

    /// MQTT over WebSocket there.
    pub fn websocket(flag: &str, address: impl Into<String>) -> Self {
        Self {
            flag: flag.to_owned(),
            address: address.into(),
            protocol: "websocket",
        }
    }
}

fn text_of_flag(flag: &str, text: &str) -> Value {
    Value::new(Some(&format!("flag {flag}")), text)
}

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// What the operator wants.
    pub config: Config,
    /// What he should know nevertheless.
    pub warnings: Vec<Problem>,
    /// The files it was read from.
    pub files: Vec<PathBuf>,
    /// How these, and the folder of drop-ins, looked before they were read: see [`looks`].
    pub looked: Vec<Fingerprint>,
    /// What they, the environment and flags say, for [`super::waiting`].
    pub written: Written,
}

/// Reads all layers.
///
/// # Errors
/// Every problem found, warnings too, in the order of their places; at least one is a [`Severity::Error`].
pub fn load(layers: &Layers) -> Result<Loaded, Vec<Problem>> {
    let loaded = read_layers(layers);
    if loaded
        .warnings
        .iter()
        .any(|problem| problem.severity == Severity::Error)
    {
        return Err(loaded.warnings);
    }
    Ok(loaded)
}

/// Reads all layers for a command that makes files which the broker needs: what is wrong is among the warnings.
pub fn read_layers(layers: &Layers) -> Loaded {
    let mut problems = Problems::default();
    let mut builder = ::config::Config::builder();
    let (mut files, mut looked) = (Vec::new(), Vec::new());
    let mut set_by: BTreeMap<String, String> = BTreeMap::new();
    let folder = layers.file.as_deref().map(|file| Fingerprint::of(&drop_ins(file)));
    for (file, look, text) in read_files(layers.file.as_deref(), &mut problems) {
        let source = TomlSource::parse(&file.display().to_string(), &text, &mut problems);
        for (path, place) in source.leaves() {
            if let Some(earlier) = set_by.insert(path.clone(), place.clone()) {
                problems.warning_at(place, format!("{path} was set at {earlier} too; this one counts"));
            }
        }
        builder = builder.add_source(source);
        files.push(file);
        looked.push(look);
    }
    looked.extend(folder);
    builder = builder.add_source(Variables {
        variables: layers.environment.clone(),
    });
    for (path, value) in &layers.flags {
        builder = match builder.clone().set_override(path, value.clone()) {
            Ok(builder) => builder,
            Err(error) => {
                problems.error_at("", error.to_string());
                builder
            }
        };
    }
    let (config, written) = match builder.build() {
        Ok(built) => {
            let written = written(&built.cache);
            let config = read(built.cache, &mut problems);
            if layers.looks_into_certificates {
                check::check_certificates(&config, &mut problems);
            }
            (config, written)
        }
        Err(error) => {
            problems.error_at("", error.to_string());
            (Config::default(), Written::new())
        }
    };
    Loaded {
        config,
        warnings: problems.into_sorted(),
        files,
        looked,
        written,
    }
}

fn read(tree: Value, problems: &mut Problems) -> Config {
    let mut reading = Reading(std::mem::take(problems));
    let mut config = Config::read(tree, "", &mut reading).unwrap_or_default();
    *problems = reading.0;
    check::check(&mut config, problems);
    config
}

/// What the files of a configuration, and the folder of its drop-ins, look like.
pub fn looks(files: &[PathBuf]) -> Vec<Fingerprint> {
    let folder = files.first().map(|file| drop_ins(file));
    files.iter().chain(&folder).map(|path| Fingerprint::of(path)).collect()
}

/// Where they are.
fn drop_ins(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join("conf.d")
}

/// The file and its drop-ins with their text, a BOM and CRLF included, and how they looked before: what changes while it is read, or since, looks
/// different.
fn read_files(file: Option<&Path>, problems: &mut Problems) -> Vec<(PathBuf, Fingerprint, String)> {
    let Some(file) = file else { return Vec::new() };
    let mut paths = vec![file.to_owned()];
    if let Ok(entries) = fs::read_dir(drop_ins(file)) {
        let mut drop_ins: Vec<_> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        drop_ins.sort();
        paths.append(&mut drop_ins);
    }
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let look = Fingerprint::of(&path);
        match fs::read_to_string(&path) {
            Ok(text) => files.push((path, look, text)),
            Err(error) => {
                let hint = match error.kind() {
                    std::io::ErrorKind::NotFound => "check the path, or leave it out to start with the defaults",
                    std::io::ErrorKind::PermissionDenied => "let the user that runs sundew read it",
                    _ => "it must be a text file in UTF-8",
                };
                problems.error_at(
                    path.display().to_string(),
                    format!("cannot read the configuration: {error}; {hint}"),
                );
            }
        }
    }
    files
}

/// The environment as a layer. Every value is a text here; each option parses its own.
#[derive(Clone, Debug)]
struct Variables {
    variables: Vec<(String, String)>,
}

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self
            .variables
            .iter()
            .filter_map(|(name, value)| {
                let path = option_path(name.strip_prefix(ENVIRONMENT_PREFIX)?);
                let place = format!("{ENVIRONMENT_PLACE}{name}");
                Some((path, Value::new(Some(&place), value.as_str())))
            })
            .collect())
    }
}

/// `LISTENERS__0__ADDRESS` → `listeners[0].address`.
fn option_path(name: &str) -> String {
    let mut path = String::new();
    for part in name.split("__") {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part.to_ascii_lowercase());
        }
    }
    path
}
