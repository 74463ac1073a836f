//! One line of the table that `tests/bench` prints.

use std::fmt;
use std::io::Write as _;

use super::Samples;

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    AtLeast(f64),
    AtMost(f64),
    /// Printed for comparison; nothing was promised.
    None,
}

impl Reach {
    fn verdict(self, figure: f64) -> String {
        match self {
            Self::AtLeast(wanted) if figure >= wanted => "yes".to_owned(),
            Self::AtLeast(wanted) => format!("NO, {:.0} % short", (1.0 - figure / wanted) * 100.0),
            Self::AtMost(wanted) if figure <= wanted => "yes".to_owned(),
            Self::AtMost(wanted) => format!("NO, {:.0} % over", (figure / wanted - 1.0) * 100.0),
            Self::None => String::new(),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(wanted) => write!(f, "≥ {}", Figure(*wanted)),
            Self::AtMost(wanted) => write!(f, "≤ {}", Figure(*wanted)),
            Self::None => Ok(()),
        }
    }
}

/// Three significant digits, thousands apart.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = self.0;
        if figure.abs() < 10.0 {
            return write!(f, "{figure:.2}");
        }
        if figure.abs() < 100.0 {
            return write!(f, "{figure:.1}");
        }
        let digits = format!("{:.0}", figure.abs());
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
            .collect();
        write!(f, "{}{}", if figure < 0.0 { "-" } else { "" }, groups.join(","))
    }
}

/// One line: what was done, the figure (the median of its rounds), the peer or limit beside it, what it is to reach.
#[derive(Debug)]
pub struct Row<'a> {
    pub work: &'a str,
    pub figures: &'a Samples,
    pub unit: &'a str,
    pub reach: Reach,
    /// The peer's figure in the same run, or what else belongs beside.
    pub beside: String,
}

impl Row<'_> {
    pub fn print(&self) -> std::io::Result<()> {
        let Self { work, figures, unit, reach, beside } = self;
        let median = figures.median();
        let spread = format!("{} to {}", Figure(figures.least()), Figure(figures.greatest()));
        let figure = Figure(median);
        let verdict = reach.verdict(median);
        writeln!(std::io::stdout(), "| {work} | {figure} {unit} | {spread} | {reach} | {verdict} | {beside} |")
    }
}

/// A line below the table: how a figure was made.
pub fn note(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_below_its_reach_is_told() {
        assert_eq!(Reach::AtLeast(2.0).verdict(1.5), "NO, 25 % short");
        assert_eq!(Reach::AtMost(2.0).verdict(3.0), "NO, 50 % over");
        assert_eq!(Reach::AtMost(2.0).verdict(2.0), "yes");
        let shown: Vec<String> = [0.512, 12.34, 65_000.4, 5e6, 999.9].map(|figure| Figure(figure).to_string()).into();
        assert_eq!(shown, ["0.51", "12.3", "65,000", "5,000,000", "1,000"]);
    }
}
