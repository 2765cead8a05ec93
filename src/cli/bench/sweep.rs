//! One scenario at several sizes: how its figures grow, as a table and as a plot.

use std::fmt::Write;

use super::compare::{FIGURES, Figure, median};
use super::report::{Report, count};
use super::settings::Settings;

/// `KEY=VALUE,VALUE,…`: what is changed from run to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sweep {
    /// A setting, by its name in a file.
    pub(super) key: String,
    pub(super) values: Vec<f64>,
}

impl Sweep {
    /// Reads what the command line says.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("--sweep {text}: write it like subscribers=1,10,100,1000");
        let (key, values) = text.split_once('=').ok_or_else(wrong)?;
        let values: Vec<f64> = values
            .split(',')
            .map(|value| value.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        let sweep = Self {
            key: key.replace('-', "_"),
            values,
        };
        for value in &sweep.values {
            sweep.settings(*value)?;
        }
        Ok(sweep)
    }

    /// What is said at one value.
    pub(super) fn settings(&self, value: f64) -> Result<Settings, String> {
        Settings::one(&self.key, &value.to_string())
    }
}

/// The points of one line of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    /// In the order of the values.
    pub(super) points: Vec<(f64, f64)>,
}

/// A Markdown table: a line for each value.
pub(super) fn table(sweep: &Sweep, runs: &[(f64, Report)]) -> String {
    let is_there = |figure: &&Figure| runs.iter().any(|(_, report)| (figure.value)(report).is_some());
    let figures: Vec<_> = FIGURES.iter().filter(is_there).collect();
    let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
    let mut text = format!(
        "| {} | {} |\n|---|{}\n",
        sweep.key,
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (value, report) in runs {
        let cell = |figure: &&Figure| (figure.value)(report).map_or_else(|| "-".to_owned(), figure.print);
        let cells: Vec<_> = figures.iter().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", count(*value), cells.join(" | ")); // writing into a string does not fail
    }
    text
}

/// What a sweep is about: the CPU time of a message, or without a process to look at the rate.
pub(super) fn figure(runs: &[(f64, Report)]) -> Option<&'static Figure> {
    let has = |name| {
        FIGURES
            .iter()
            .find(|figure| figure.name == name && runs.iter().all(|(_, report)| (figure.value)(report).is_some()))
    };
    has("CPU s/million").or(has("delivered/s")).or(has("connections/s"))
}

/// The points of a figure: of each value the median of its runs.
pub(super) fn line(name: String, runs: &[(f64, Report)], figure: &Figure) -> Line {
    let point = |same: &[(f64, Report)]| {
        let values: Vec<_> = same.iter().filter_map(|(_, report)| (figure.value)(report)).collect();
        Some((same.first()?.0, median(&values)?))
    };
    Line {
        name,
        points: runs.chunk_by(|one, other| one.0 == other.0).filter_map(point).collect(),
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Left and below, where the numbers stand.
const MARGIN: f64 = 70.0;
const COLOURS: [&str; 6] = ["#c0392b", "#2471a3", "#1e8449", "#9a7d0a", "#6c3483", "#616a6b"];

/// A plot as SVG: powers of ten apart where the values are, and the figure from 0 on.
pub(super) fn plot(title: &str, key: &str, figure: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let top = points().map(|(_, y)| y).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let is_wide = low > 0.0 && high / low >= 20.0;
    let place = |x: f64| if is_wide { x.log10() } else { x };
    let across = (place(high) - place(low)).max(f64::MIN_POSITIVE);
    let x_at = |x: f64| MARGIN + (place(x) - place(low)) / across * (WIDTH - 1.5 * MARGIN);
    let y_at = |y: f64| HEIGHT - MARGIN - y / top * (HEIGHT - 1.7 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"22\" font-size=\"15\">{}: {figure} by {key}</text>\n",
        escape(title)
    );
    let mut put = |piece: String| svg.push_str(&piece);
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let y = y_at(value);
        let text = if top < 100.0 {
            format!("{value:.3}")
        } else {
            count(value)
        };
        put(format!(
            "<line x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
            WIDTH - MARGIN / 2.0,
            MARGIN - 8.0,
            y + 4.0
        ));
    }
    for (x, _) in lines.first().map_or(&[][..], |line| &line.points) {
        let (at, text) = (x_at(*x), count(*x));
        put(format!(
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>\n",
            HEIGHT - MARGIN + 20.0
        ));
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<_> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y)))
            .collect();
        put(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            path.join(" ")
        ));
        put(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
            MARGIN + 110.0 * index as f64,
            HEIGHT - 14.0,
            escape(&line.name)
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_names_a_setting_and_its_values() {
        let sweep = Sweep::parse("in-flight=1,10").unwrap();
        assert_eq!(
            (sweep.key.as_str(), sweep.values.as_slice()),
            ("in_flight", &[1.0, 10.0][..])
        );
        for (wrong, said) in [
            ("subscribers", "write it like"),
            ("subscribers=a", "write it like"),
            ("colour=1", "unknown field"),
        ] {
            let error = Sweep::parse(wrong).unwrap_err();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }

    #[test]
    fn values_far_apart_are_powers_of_ten_apart() {
        let line = |points: &[(f64, f64)]| Line {
            name: "a<b".to_owned(),
            points: points.to_vec(),
        };
        let svg = plot(
            "fan-out",
            "subscribers",
            "CPU",
            &[line(&[(1.0, 2.0), (10.0, 2.0), (100.0, 4.0)])],
        );
        assert!(svg.contains("points=\"70.0,") && svg.contains("a&lt;b"), "{svg}");
        let path = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let places: Vec<f64> = path
            .split(' ')
            .map(|point| point.split(',').next().unwrap().parse().unwrap())
            .collect();
        assert!((places[1] - (places[0] + places[2]) / 2.0).abs() < 0.2, "{path}");
        // One point alone is a plot, too.
        assert!(!plot("t", "k", "f", &[line(&[(5.0, 0.0)])]).contains("NaN"));
    }
}
