//! What was found, as text that the gateway takes as it stands.

use std::fmt;

use super::{Rate, Target};
use crate::config::metering::Parity;

/// A line with its meter, or a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    comments: Vec<String>,
    /// Heading and lines of each table.
    tables: Vec<(&'static str, Vec<String>)>,
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn medium(target: &Target, rate: Rate, serial_key: &str) -> Vec<String> {
    match target {
        Target::Tcp(address) => vec![format!("tcp = {}", quoted(address))],
        Target::Serial(path) => {
            let parity = if rate.parity == Parity::Even { "even" } else { "none" };
            vec![
                format!("{serial_key} = {}", quoted(&path.to_string_lossy())),
                format!("baud = {}", rate.baud),
                format!("data_bits = {}", rate.data_bits),
                format!("parity = {}", quoted(parity)),
            ]
        }
    }
}

impl Section {
    pub(super) fn port(target: &Target, rate: Rate, protocol: &str) -> Self {
        let mut lines = vec!["name = \"port-1\"".to_owned(), format!("protocol = {}", quoted(protocol))];
        lines.extend(medium(target, rate, "serial_port"));
        Self { comments: Vec::new(), tables: vec![("[[port]]", lines)] }
    }

    pub(super) fn meter(target: &Target, rate: Rate, protocol: &str) -> Self {
        let mut line = vec!["name = \"line-1\"".to_owned()];
        line.extend(medium(target, rate, "serial"));
        let meter = [
            "name = \"meter-1\"".to_owned(),
            "line = \"line-1\"".to_owned(),
            format!("protocol = {}", quoted(protocol)),
        ];
        Self { comments: Vec::new(), tables: vec![("[[line]]", line), ("[[meter]]", meter.to_vec())] }
    }

    /// Another meter on the same line.
    pub(super) fn and_meter(mut self, number: u32, protocol: &str) -> Self {
        let lines = [
            format!("name = \"meter-{number}\""),
            "line = \"line-1\"".to_owned(),
            format!("protocol = {}", quoted(protocol)),
        ];
        self.tables.push(("[[meter]]", lines.to_vec()));
        self
    }

    fn with_in(mut self, place: usize, key: &str, value: impl Into<toml::Value>) -> Self {
        self.tables[place].1.push(format!("{key} = {}", value.into()));
        self
    }

    /// Another setting of the port or the meter.
    pub(super) fn with(self, key: &str, value: impl Into<toml::Value>) -> Self {
        let last = self.tables.len() - 1;
        self.with_in(last, key, value)
    }

    /// Another setting of the line.
    pub(super) fn with_line(self, key: &str, value: impl Into<toml::Value>) -> Self {
        self.with_in(0, key, value)
    }

    /// Something to know of it, on one line.
    pub(super) fn saying(mut self, comment: &str) -> Self {
        self.comments.push(comment.chars().filter(|c| !c.is_control()).collect());
        self
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for comment in &self.comments {
            writeln!(f, "# {comment}")?;
        }
        for (place, (heading, lines)) in self.tables.iter().enumerate() {
            let before = if place == 0 { "" } else { "\n" };
            writeln!(f, "{before}{heading}\n{}", lines.join("\n"))?;
        }
        Ok(())
    }
}
