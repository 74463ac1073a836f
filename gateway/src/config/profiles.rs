//! Profiles: what is known of a family of meters, as defaults of a section.
//!
//! A profile is a TOML file: `[profile]` says what it is for, and one of `[meter]`, `[port]` and `[feed]` holds defaults for the
//! sections that name it. They are merged under the section as it is written: what the section says wins, tables (quirks, status
//! bits) are merged key by key, lists (what is read) are replaced. `[protocol.NAME]` counts only for a meter of this protocol, and
//! `[line]` is advice for a serial line, which is not merged: meters of several families may share one.
//!
//! Those of `gateway/profiles` are in the binary. A file of the folder that `gateway.profiles_dir` names comes before one of the
//! same name there.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::metering::{LineSection, MeterProtocol, MeterSection, PortProtocol, PortSection, value};
use super::{Config, ConfigError, FeedSection, from_toml, nearest, nearest_key};

macro_rules! shipped {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../../profiles/", $name, ".toml")))),*] };
}

/// Name and text of the profiles in the binary, by name.
const SHIPPED: &[(&str, &str)] = shipped! {
    "aidon-6000" "austria-mbus" "dsmr-2" "dsmr-4" "dsmr-5" "idis-package-2" "idis-package-3" "iskraemeco-am550"
    "iskraemeco-am550-si" "kaifa-ma304" "kamstrup-omnipower" "landisgyr-e450" "landisgyr-e650" "norway-aidon" "norway-kaifa"
    "norway-kamstrup" "sagemcom-t210d" "sagemcom-xt211" "smets2"
};

/// A profile takes a screen; more is no profile.
const FILE_OCTETS_MAX: u64 = 64 * 1024;

/// How far what a profile says is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// Octets of real meters, two sources that do not depend on each other, or the maker's text.
    Sure,
    /// One program that reads such meters, or one credible report.
    Likely,
    /// By analogy.
    Guess,
}

impl Certainty {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sure => "sure",
            Self::Likely => "likely",
            Self::Guess => "guess",
        }
    }
}

/// What a profile is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub title: String,
    pub makers: Vec<String>,
    #[serde(default)]
    pub models: Vec<String>,
    pub certainty: Certainty,
    /// Why no section may name it.
    pub refuse: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: About,
    meter: Option<Table>,
    port: Option<Table>,
    feed: Option<Table>,
    #[serde(default)]
    protocol: BTreeMap<String, Table>,
    line: Option<LineSection>,
}

/// The profiles that there are, by name: each a text, or a file to read.
pub struct Catalog {
    texts: BTreeMap<String, Origin>,
}

#[derive(Debug, Clone)]
enum Origin {
    Shipped(&'static str),
    File(PathBuf),
}

/// A profile that can be read.
#[derive(Debug, Clone)]
pub struct Profile {
    pub name: String,
    pub about: About,
    /// As it is written.
    pub text: Cow<'static, str>,
    file: File,
}

impl Catalog {
    /// Those in the binary, and those of a folder.
    pub fn new(folder: Option<&Path>) -> Result<Self, ConfigError> {
        let mut texts: BTreeMap<String, Origin> =
            SHIPPED.iter().map(|(name, text)| ((*name).to_owned(), Origin::Shipped(text))).collect();
        let Some(folder) = folder else { return Ok(Self { texts }) };
        let failed = |error: std::io::Error| ConfigError::Read { path: folder.to_owned(), cause: error.to_string() };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "toml")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                texts.insert(name.to_owned(), Origin::File(path));
            }
        }
        Ok(Self { texts })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// `at` is the section that names it.
    pub fn find(&self, at: &str, name: &str) -> Result<Profile, ConfigError> {
        let Some(origin) = self.texts.get(name) else {
            let nearest = nearest(name, self.names()).map(|name| format!("did you mean {name:?}?"));
            let hint = nearest.unwrap_or_else(|| "`meterpost-gateway profiles` lists them".to_owned());
            return Err(value(at, format!("there is no profile {name:?}"), &hint));
        };
        let (text, path) = match origin {
            Origin::Shipped(text) => (Cow::Borrowed(*text), PathBuf::from(format!("profile {name}"))),
            Origin::File(path) => (Cow::Owned(read_file(path)?), path.clone()),
        };
        let file: File = from_toml(&text, &path)?;
        if [&file.meter, &file.port, &file.feed].into_iter().flatten().count() != 1 {
            let message = "a profile has one of the tables [meter], [port] and [feed]".to_owned();
            return Err(ConfigError::Syntax { path, message, hint: None });
        }
        let kind = if file.meter.is_some() { spoken::<MeterProtocol> } else { spoken::<PortProtocol> };
        if let Some(unknown) = file.protocol.keys().find(|name| !kind(name)) {
            let message = format!("[protocol.{unknown}]: there is no protocol {unknown:?}");
            return Err(ConfigError::Syntax { path, message, hint: None });
        }
        Ok(Profile { name: name.to_owned(), about: file.profile.clone(), text, file })
    }
}

/// Whether there is such a protocol.
fn spoken<P: DeserializeOwned>(name: &str) -> bool {
    Value::from(name).try_into::<P>().is_ok()
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let failed = |cause: String| ConfigError::Read { path: path.to_owned(), cause };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(failed(format!("a profile of more than {FILE_OCTETS_MAX} octets")));
    }
    Ok(text)
}

impl Profile {
    /// The kind of section that it is for, and the defaults.
    fn defaults(&self) -> (&'static str, &Table) {
        let File { meter, port, feed, .. } = &self.file;
        let tables = [("meter", meter), ("port", port), ("feed", feed)];
        let found = tables.into_iter().find_map(|(kind, table)| Some((kind, table.as_ref()?)));
        found.expect("a profile was found with one of them")
    }

    pub fn kind(&self) -> &'static str {
        self.defaults().0
    }

    /// What is spoken, as far as it says so.
    pub fn protocol(&self) -> &str {
        let (_, table) = self.defaults();
        table.get("protocol").or(table.get("dialect")).and_then(Value::as_str).unwrap_or("")
    }

    /// What it advises for a serial line.
    pub fn line(&self) -> Option<&LineSection> {
        self.file.line.as_ref()
    }

    /// The section as it is written, with this under it.
    fn under(&self, at: &str, kind: &str, written: &Table) -> Result<Table, ConfigError> {
        if let Some(reason) = &self.about.refuse {
            return Err(value(at, reason.as_str(), "leave profile out, and see `meterpost-gateway profiles`"));
        }
        let (own, defaults) = self.defaults();
        if own != kind {
            let message = format!("this profile is for a [[{own}]] section: {}", self.about.title);
            return Err(value(at, message, &format!("write a [[{own}]] section, or name another profile")));
        }
        let mut merged = written.clone();
        let spoken = written.get("protocol").or(defaults.get("protocol")).and_then(Value::as_str);
        if let Some(table) = spoken.and_then(|protocol| self.file.protocol.get(protocol)) {
            merge_under(&mut merged, table);
        }
        merge_under(&mut merged, defaults);
        Ok(merged)
    }
}

/// What `over` does not say, `under` says.
fn merge_under(over: &mut Table, under: &Table) {
    for (key, value) in under {
        match (over.get_mut(key), value) {
            (None, _) => drop(over.insert(key.clone(), value.clone())),
            (Some(Value::Table(over)), Value::Table(under)) => merge_under(over, under),
            (Some(_), _) => {}
        }
    }
}

/// The place of a section in errors.
pub(super) fn place(kind: &str, name: &str, profile: Option<&str>) -> String {
    match profile {
        None => format!("{kind} {name:?}"),
        Some(profile) => format!("{kind} {name:?} with profile {profile:?}"),
    }
}

/// A section that may name a profile: its kind, its name, the profile.
trait Profiled: DeserializeOwned {
    const KIND: &'static str;
    fn names(&self) -> (&str, Option<&str>);
}

impl Profiled for MeterSection {
    const KIND: &'static str = "meter";
    fn names(&self) -> (&str, Option<&str>) {
        (&self.name, self.profile.as_deref())
    }
}

impl Profiled for PortSection {
    const KIND: &'static str = "port";
    fn names(&self) -> (&str, Option<&str>) {
        (&self.name, self.profile.as_deref())
    }
}

impl Profiled for FeedSection {
    const KIND: &'static str = "feed";
    fn names(&self) -> (&str, Option<&str>) {
        (&self.name, self.profile.as_deref())
    }
}

/// Puts under each section the profile that it names. `written` is the file once more, as it stands.
pub(super) fn apply(
    config: &mut Config,
    written: impl FnOnce() -> Result<Table, ConfigError>,
) -> Result<(), ConfigError> {
    let Config { gateway, meter, port, feed, .. } = config;
    if !(names_one(meter) || names_one(port) || names_one(feed)) {
        return Ok(());
    }
    let (written, catalog) = (written()?, Catalog::new(gateway.profiles_dir.as_deref())?);
    fill_in(meter, &written, &catalog)?;
    fill_in(port, &written, &catalog)?;
    fill_in(feed, &written, &catalog)
}

fn names_one(sections: &[impl Profiled]) -> bool {
    sections.iter().any(|section| section.names().1.is_some())
}

fn fill_in<S: Profiled>(sections: &mut [S], written: &Table, catalog: &Catalog) -> Result<(), ConfigError> {
    let tables = written.get(S::KIND).and_then(Value::as_array);
    for (section, written) in sections.iter_mut().zip(tables.into_iter().flatten()) {
        let ((name, Some(profile)), Some(written)) = (section.names(), written.as_table()) else { continue };
        let at = place(S::KIND, name, Some(profile));
        let merged = catalog.find(&at, profile)?.under(&at, S::KIND, written)?;
        // As it is written the section was read already: what is wrong now comes from the profile.
        let wrong = |error: toml::de::Error| {
            let message = error.to_string();
            let hint = nearest_key(&message).unwrap_or_default();
            value(&at, format!("the profile is wrong: {}", message.trim_end()), &hint)
        };
        *section = merged.try_into().map_err(wrong)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
