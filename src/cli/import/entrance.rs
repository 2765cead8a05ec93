//! Who may enter through which listener, and what he may do. What cannot be carried closes; it never opens.

use super::access_files::{names, passwords, rules};
use super::client_ids::{self, OfClientIds};
use super::dynamic_security::DynamicSecurity;
use super::files::{self, Folder};
use super::grammar::{Line, MosquittoConf, Section};
use super::listeners::{self, Listener, is_local_only};
use super::outcome::{Outcome, Table, quoted};
use super::plugins::{self, Plugin};
use super::roles;

/// A file beside the configuration, with the line that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    name: String,
    from: String,
}

/// What is true of one listener.
#[derive(Debug)]
struct Door {
    passwords: Option<Made>,
    rules: Option<Made>,
    lets_everyone_in: bool,
    /// Why; a line, or a reason.
    from: String,
    /// A line says so.
    is_said: bool,
    /// The line that names a file of dynamic security.
    dynamic: Option<Line>,
    /// A program that is asked.
    program: Option<Table>,
}

/// Sets what the listeners differ in on them, and returns what they have in common.
pub(super) fn carry(
    conf: &MosquittoConf,
    listeners: &mut [Listener<'_>],
    folder: &Folder,
    out: &mut Outcome,
) -> Common {
    plugins::remarks(conf, out);
    let of_client_ids = client_ids::carry(conf, folder, out);
    let mut doors: Vec<_> = listeners
        .iter()
        .map(|listener| door(conf, listener, &of_client_ids, folder, out))
        .collect();
    let (rules, wide) = dynamic_security(listeners, &mut doors, folder, out);
    // For all listeners: those that a plug-in has for one of them are not carried.
    let programs = program(listeners, &doors);
    let of_ids = of_client_ids.rules;
    let is_governed_by_id = !of_ids.is_empty();
    let rules = programs.into_iter().chain(rules).chain(of_ids).collect();
    let mut auth = Table::new("[auth]", "");
    let is_certified = listeners.iter().any(|listener| listener.is_certified);
    let files = [("password_file", is_certified), ("acl_file", false)];
    for (key, is_for_each) in files {
        let made = |door: &Door| {
            if key == "acl_file" {
                door.rules.clone()
            } else {
                door.passwords.clone()
            }
        };
        let first = doors.first().and_then(made);
        if let (Some(first), false) = (&first, is_for_each)
            && doors
                .iter()
                .all(|door| made(door).map(|made| made.name) == Some(first.name.clone()))
        {
            auth.text(key, &first.name, &first.from);
            continue;
        }
        for (listener, door) in listeners.iter_mut().zip(&doors) {
            if let Some(made) = made(door) {
                listener.tables[0].text(key, &made.name, &made.from);
            }
        }
    }
    anonymous(listeners, &doors, &mut auth);
    let of_file = of_client_ids.acl_file.map(|line| line.place.to_string());
    let of_file = of_file.or_else(|| doors.iter().find_map(|door| Some(door.rules.as_ref()?.from.clone())));
    if let Some(from) = of_file {
        let from = format!("{from}: mosquitto grants every subscription, and looks when it delivers");
        auth.text("wide_subscriptions", "grant", from);
    } else if let Some((wide, from)) = wide {
        auth.text("wide_subscriptions", wide, from);
    }
    if let Some(line) = conf.broker.get("check_retain_source")
        && line.is_true() == Some(false)
    {
        auth.set("check_retained_source", false, &line.place);
    }
    let has_rules = |door: &Door| door.rules.is_some() || door.dynamic.is_some() || asks_rights(door);
    let is_governed = doors.iter().any(has_rules) || is_governed_by_id;
    Common {
        auth,
        rules,
        is_sys_public: !is_governed && listeners.iter().any(|listener| !listener.is_local),
        mqtt: of_clients(conf, listeners, out),
    }
}

/// The program that is asked. Where not every listener has it, it is for those that do: one that is closed is not opened by it.
fn program(listeners: &mut [Listener<'_>], doors: &[Door]) -> Option<Table> {
    let mut program = doors.iter().find_map(|door| door.program.clone())?;
    if doors.iter().any(|door| door.program.is_none()) {
        let mut names = Vec::new();
        for (listener, door) in listeners.iter_mut().zip(doors) {
            let name = format!("listener-{}", listener.number);
            if !listener.tables[0].has("name") {
                listener.tables[0].text("name", &name, "for the rules below");
            }
            if door.program.is_some() {
                names.push(name);
            }
        }
        program.set("listeners", super::outcome::all(&names), "those that are not closed");
    }
    Some(program)
}

/// Whether a program is asked what clients may do.
fn asks_rights(door: &Door) -> bool {
    door.program.as_ref().is_some_and(|program| program.has("acl_url"))
}

/// What all listeners have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// `[auth]`.
    pub(super) auth: Table,
    /// `[auth.groups]` and `[[auth.rules]]`.
    pub(super) rules: Vec<Table>,
    /// Everybody reads `$SYS`, from afar, too.
    pub(super) is_sys_public: bool,
    /// Options of `[mqtt]`: key, value, where from.
    pub(super) mqtt: Vec<(&'static str, String, String)>,
}

/// Where the settings stand that a listener may have of its own.
fn scope<'a>(conf: &'a MosquittoConf, listener: &Listener<'a>) -> &'a Section {
    if conf.per_listener.is_some() {
        listener.section
    } else {
        &conf.broker
    }
}

fn door(
    conf: &MosquittoConf,
    listener: &Listener<'_>,
    of_client_ids: &OfClientIds,
    folder: &Folder,
    out: &mut Outcome,
) -> Door {
    let scope = scope(conf, listener);
    let plugins = plugins::of_listener(conf, listener.number);
    let find = |wanted: fn(&Plugin) -> Option<&Line>| plugins.iter().find_map(wanted);
    let other = find(|plugin| match plugin {
        Plugin::Other(line) => Some(line),
        _ => None,
    });
    let dynamic = find(|plugin| match plugin {
        Plugin::DynamicSecurity(line) => Some(line),
        _ => None,
    });
    let of_plugin = find(|plugin| match plugin {
        Plugin::Passwords(line) => Some(line),
        _ => None,
    });
    let program = plugins.iter().find_map(|plugin| match plugin {
        Plugin::Http(line, table) => Some((line, table.clone())),
        _ => None,
    });
    let password_line = scope.get("password_file").or(of_plugin);
    let (passwords, users) = match password_line.filter(|_| !listener.is_certified) {
        Some(line) => {
            let (made, text) = password_file(line, folder, out);
            (Some(made), text)
        }
        None => (None, String::new()),
    };
    let of_plugin = find(|plugin| match plugin {
        Plugin::Rules(line) => Some(line),
        _ => None,
    });
    let acl_line = scope.get("acl_file").or(of_plugin);
    let acl_line = acl_line.filter(|line| of_client_ids.acl_file.as_ref() != Some(line));
    // What is built in says yes or no to everybody, and the plug-in is never asked.
    let dynamic = unshadowed(dynamic, &[acl_line, password_line], out);
    let closing = closing(conf, listener, of_client_ids);
    let (dynamic, program) = unless_closed(closing, acl_line, (dynamic, program), out);
    let rules = match (closing.or(other.filter(|_| acl_line.is_none())), acl_line) {
        (Some(line), _) => Some(nothing(line, out)),
        (None, Some(line)) => Some(acl_file(conf, line, &names(&users), folder, out)),
        (None, None) => None,
    };
    let said = listener
        .section
        .get("listener_allow_anonymous")
        .or_else(|| scope.get("allow_anonymous"));
    let asks_program = program.is_some() && passwords.is_none();
    let (lets_everyone_in, from) = lets_everyone_in(conf, listener, said, other, asks_program);
    Door {
        passwords,
        rules,
        lets_everyone_in,
        from,
        is_said: said.is_some(),
        dynamic,
        program,
    }
}

/// Whether clients without a user name enter, and why.
fn lets_everyone_in(
    conf: &MosquittoConf,
    listener: &Listener<'_>,
    said: Option<&Line>,
    other: Option<&Line>,
    asks_program: bool,
) -> (bool, String) {
    match (said.and_then(|line| Some((line.is_true()?, line))), other) {
        _ if listener.is_certified => (false, "clients are who their certificates say".to_owned()),
        (_, Some(line)) => (false, format!("{}: not carried", line.place)),
        _ if is_named_after_its_user(listener.section) => (false, "client ids were user names".to_owned()),
        _ if asks_program => (false, "a program is asked".to_owned()),
        _ if is_local_only(conf) => (true, "no listener: this machine only".to_owned()),
        (Some((value, line)), None) => (value, line.place.to_string()),
        (None, None) => (false, "mosquitto's default where there are listeners".to_owned()),
    }
}

/// Dynamic security and a program, where the listener is not closed; else what is dropped with it is named.
fn unless_closed(
    closing: Option<&Line>,
    acl_line: Option<&Line>,
    (dynamic, program): (Option<Line>, Option<(&Line, Table)>),
    out: &mut Outcome,
) -> (Option<Line>, Option<Table>) {
    let Some(closing) = closing else {
        return (dynamic, program.map(|(_, table)| table));
    };
    let asked = program.map(|(line, _)| line);
    let dropped = [acl_line, dynamic.as_ref(), asked].into_iter().flatten();
    dropped.for_each(|line| dropped_for(line, closing, out));
    (None, None)
}

/// Dynamic security, where mosquitto asks it.
fn unshadowed(dynamic: Option<&Line>, files: &[Option<&Line>], out: &mut Outcome) -> Option<Line> {
    let dynamic = dynamic?;
    let Some(file) = files.iter().copied().flatten().next() else {
        return Some(dynamic.clone());
    };
    let what = format!(
        "{} decides before it, and mosquitto asks the first; users and roles of the other are not carried",
        file.place
    );
    let is_said = |remark: &super::outcome::Remark| remark.place.as_ref() == Some(&dynamic.place);
    if !out.remarks.iter().any(is_said) {
        out.not_carried(dynamic, what);
    }
    None
}

/// Groups and roles of two files may have the same names: those of the first are carried, and the listeners of another one are closed.
fn one_file(doors: &mut [Door], out: &mut Outcome) {
    let Some(first) = doors.iter().find_map(|door| door.dynamic.clone()) else {
        return;
    };
    for door in doors {
        let Some(line) = door.dynamic.take_if(|line| *line != first) else {
            continue;
        };
        if line.value == first.value {
            door.dynamic = Some(first.clone());
            continue;
        }
        let why = format!(
            "nothing is allowed here: beside {} at {} it cannot be carried",
            first.value, first.place
        );
        out.not_carried(&line, why);
        door.rules = Some(nothing(&line, out));
    }
}

/// Users and rules of dynamic security: those for some of the listeners name them.
fn dynamic_security(
    listeners: &mut [Listener<'_>],
    doors: &mut [Door],
    folder: &Folder,
    out: &mut Outcome,
) -> (Vec<Table>, Option<(&'static str, String)>) {
    one_file(doors, out);
    let (mut tables, mut wide) = (Vec::new(), None);
    let mut lines: Vec<Line> = doors.iter().filter_map(|door| door.dynamic.clone()).collect();
    lines.dedup();
    let is_for_all = lines.len() == 1 && doors.iter().all(|door| door.dynamic.is_some());
    if !lines.is_empty() && !is_for_all {
        for listener in listeners.iter_mut() {
            let name = format!("listener-{}", listener.number);
            listener.tables[0].text("name", &name, "for the rules below");
        }
    }
    let is_certified = listeners.iter().any(|listener| listener.is_certified);
    for line in lines {
        let text = folder
            .file(&line, out)
            .map(|path| files::read(&path).map(|text| (path, text)));
        let empty = r#"{"clients": []}"#.to_owned();
        let (path, text) = match text {
            Some(Ok(read)) => read,
            Some(Err(error)) => {
                out.not_carried(&line, error);
                (line.value.clone().into(), empty)
            }
            None => (line.value.clone().into(), empty),
        };
        let read = DynamicSecurity::parse(&path.display().to_string(), &text, out).or_else(|error| {
            out.not_carried(&line, error);
            DynamicSecurity::parse("", r#"{"clients": []}"#, out)
        });
        let Ok(read) = read else { continue };
        let is_here = |door: &Door| door.dynamic.as_ref() == Some(&line);
        let users = read.passwords();
        let users = if users.is_empty() { NOBODY.to_owned() } else { users };
        let users = out.add_file("users", users, None, true);
        let mut names = Vec::new();
        for (listener, door) in listeners.iter().zip(doors.iter_mut()).filter(|(_, door)| is_here(door)) {
            names.push(format!("listener-{}", listener.number));
            door.passwords = (!listener.is_certified).then(|| Made {
                name: users.clone(),
                from: line.place.to_string(),
            });
        }
        let rules = roles::carry(&read, if is_for_all { &[] } else { &names }, is_certified, out);
        tables.extend(rules.tables);
        wide = wide.or(rules.wide);
    }
    let is_open = |door: &Door| door.dynamic.is_none() && door.rules.is_none();
    let open = listeners.iter().zip(doors.iter()).filter(|(_, door)| is_open(door));
    let open: Vec<_> = open
        .map(|(listener, _)| format!("listener-{}", listener.number))
        .collect();
    if !tables.is_empty() && !open.is_empty() {
        let mut rule = Table::new("[[auth.rules]]", "");
        rule.text("effect", "allow", "there are no rules on these listeners");
        rule.set("topics", "[\"#\", \"$SYS/#\"]", "");
        rule.set("listeners", super::outcome::all(&open), "");
        tables.push(rule);
    }
    (tables, wide)
}

/// A line that cannot be carried and without which clients could do more: nothing is allowed on the listener.
fn closing<'a>(conf: &MosquittoConf, listener: &Listener<'a>, of_client_ids: &'a OfClientIds) -> Option<&'a Line> {
    let mount_point = listener.section.get("mount_point");
    let mount_point = mount_point.filter(|line| listeners::mount_point(conf, line).is_err());
    mount_point.or(of_client_ids.closing.as_ref())
}

/// What is not carried either where a listener is closed; said once.
fn dropped_for(line: &Line, closing: &Line, out: &mut Outcome) {
    let why = format!(
        "nothing is allowed here, since {} at {} cannot be carried with it",
        closing.name, closing.place
    );
    let is_said =
        |remark: &super::outcome::Remark| remark.place.as_ref() == Some(&line.place) && remark.text.ends_with(&why);
    if !out.remarks.iter().any(is_said) {
        out.not_carried(line, why.clone());
    }
}

fn is_named_after_its_user(section: &Section) -> bool {
    section.is_set("use_username_as_clientid").is_some()
}

fn anonymous(listeners: &mut [Listener<'_>], doors: &[Door], auth: &mut Table) {
    let by_default = |listener: &Listener<'_>, door: &Door| listener.is_local && door.passwords.is_none();
    let is_needed =
        |listener: &Listener<'_>, door: &Door| door.is_said || by_default(listener, door) != door.lets_everyone_in;
    let Some(first) = doors.first() else { return };
    if doors.iter().all(|door| door.lets_everyone_in == first.lets_everyone_in) {
        let needed = listeners
            .iter()
            .zip(doors)
            .find(|(listener, door)| is_needed(listener, door));
        if let Some((_, door)) = needed {
            auth.set("allow_anonymous", door.lets_everyone_in, &door.from);
        }
        return;
    }
    for (listener, door) in listeners.iter_mut().zip(doors) {
        if is_needed(listener, door) {
            listener.tables[0].set("allow_anonymous", door.lets_everyone_in, &door.from);
        }
    }
}

/// A password file for the directory, and what is in it.
fn password_file(line: &Line, folder: &Folder, out: &mut Outcome) -> (Made, String) {
    let made = |name| Made {
        name,
        from: line.place.to_string(),
    };
    let path = std::path::PathBuf::from(&line.value);
    if let Some(known) = out
        .files
        .iter()
        .find(|file| file.made_for.as_ref() == Some(&line.place))
    {
        return (made(known.name.clone()), known.text.clone());
    }
    let read = folder
        .file(line, out)
        .map(|path| files::read(&path).map(|text| (path, text)));
    let (from, text) = match read {
        Some(Ok((path, text))) => {
            let kept = passwords(&path.display().to_string(), &text, out);
            (Some(path), kept)
        }
        Some(Err(error)) => {
            out.not_carried(line, error);
            (None, NOBODY.to_owned())
        }
        None => (None, NOBODY.to_owned()),
    };
    let wanted = path
        .file_name()
        .map_or_else(|| "users".into(), |name| name.to_string_lossy());
    let name = out.add_file(&wanted, text.clone(), from.as_deref(), true);
    out.set_made_for(&name, &line.place);
    (made(name), text)
}

const NOBODY: &str = "# nobody enters until there are users: sundew user add NAME --file FILE\n";
const NOTHING: &str = "# nothing is allowed until there are rules, such as: pattern readwrite %u/#\n";

fn acl_file(conf: &MosquittoConf, line: &Line, users: &[&str], folder: &Folder, out: &mut Outcome) -> Made {
    let made = |name| Made {
        name,
        from: line.place.to_string(),
    };
    if let Some(known) = out
        .files
        .iter()
        .find(|file| file.made_for.as_ref() == Some(&line.place))
    {
        return made(known.name.clone());
    }
    let read = folder
        .file(line, out)
        .map(|path| files::read(&path).map(|text| (path, text)));
    let (from, text) = match read {
        Some(Ok((path, text))) => {
            // Client ids are what clients say; those that were user names have to be that in rules.
            let is_named = conf.listeners.iter().any(is_named_after_its_user);
            let text = if is_named { text.replace("%c", "%u") } else { text };
            let kept = rules(&path.display().to_string(), &text, users, out);
            (Some(path), kept)
        }
        Some(Err(error)) => {
            out.not_carried(line, error);
            (None, NOTHING.to_owned())
        }
        None => (None, NOTHING.to_owned()),
    };
    let path = std::path::Path::new(&line.value);
    let wanted = path
        .file_name()
        .map_or_else(|| "acl".into(), |name| name.to_string_lossy());
    let name = out.add_file(&wanted, text, from.as_deref(), false);
    out.set_made_for(&name, &line.place);
    made(name)
}

/// Where a plug-in decided.
fn nothing(line: &Line, out: &mut Outcome) -> Made {
    let known = out
        .files
        .iter()
        .find(|file| file.made_for.as_ref() == Some(&line.place));
    let name = known.map(|file| file.name.clone());
    let name = name.unwrap_or_else(|| {
        let name = out.add_file("acl", NOTHING.to_owned(), None, false);
        out.set_made_for(&name, &line.place);
        name
    });
    Made {
        name,
        from: format!("{}: not carried", line.place),
    }
}

/// What mosquitto has for each listener and Sundew for all.
fn of_clients(
    conf: &MosquittoConf,
    listeners: &[Listener<'_>],
    out: &mut Outcome,
) -> Vec<(&'static str, String, String)> {
    let mut options = Vec::new();
    let zero: Vec<_> = listeners
        .iter()
        .map(|listener| scope(conf, listener).get("allow_zero_length_clientid"))
        .collect();
    let is_off = |line: &Option<&Line>| line.is_some_and(|line| line.is_true() == Some(false));
    if let Some(line) = zero.iter().copied().find(is_off).flatten() {
        if zero.iter().all(is_off) {
            options.push(("allow_empty_client_id", "false".to_owned(), line.place.to_string()));
        } else {
            out.not_carried(line, "it is for all listeners or none here: mqtt.allow_empty_client_id");
        }
    }
    let prefixes = listeners.iter().map(|listener| {
        let own = listener.section.get("listener_auto_id_prefix");
        own.or_else(|| scope(conf, listener).get("auto_id_prefix"))
    });
    agreed(
        "assigned_client_id_prefix",
        prefixes.collect(),
        |line| {
            Some(&line.value)
                .filter(|value| !value.is_empty())
                .map(|value| quoted(value))
        },
        &mut options,
        out,
    );
    let aliases = listeners.iter().map(|listener| listener.section.get("max_topic_alias"));
    let number = |line: &Line| Some(line.word().parse::<u16>().ok()?.to_string());
    agreed("topic_alias_max", aliases.collect(), number, &mut options, out);
    options
}

/// An option that is for all listeners: that of the first, and where another one says something else, that is not carried.
fn agreed(
    key: &'static str,
    lines: Vec<Option<&Line>>,
    value: impl Fn(&Line) -> Option<String>,
    options: &mut Vec<(&'static str, String, String)>,
    out: &mut Outcome,
) {
    let Some(first) = lines.iter().copied().flatten().next() else {
        return;
    };
    match value(first) {
        Some(value) => options.push((key, value, first.place.to_string())),
        None => out.not_carried(first, "its value is not one that mosquitto takes"),
    }
    if let Some(line) = lines.iter().copied().flatten().find(|line| line.value != first.value) {
        out.not_carried(line, format!("it is the same for all listeners here: mqtt.{key}"));
    } else if lines.iter().any(Option::is_none) {
        out.note(first, format!("it is the same for all listeners here: mqtt.{key}"));
    }
}
