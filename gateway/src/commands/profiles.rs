//! `profiles`: what is known of families of meters, as sections may name it.

use std::io::Write;
use std::path::Path;

use crate::config::Config;
use crate::config::profiles::{Catalog, Profile};

/// Lists them, or prints one. `config` is whose `profiles_dir` counts.
pub fn profiles(config: Option<&Path>, name: Option<&str>, out: &mut impl Write) -> anyhow::Result<()> {
    let config = config.map(Config::read).transpose()?;
    let catalog = Catalog::new(config.as_ref().and_then(|config| config.gateway.profiles_dir.as_deref()))?;
    if let Some(name) = name {
        return Ok(write!(out, "{}", catalog.find("profiles", name)?.text)?);
    }
    writeln!(out, "{:<20} {:<13} {:<10} {:<6} what", "name", "protocol", "section", "is")?;
    for name in catalog.names() {
        let profile = catalog.find("profiles", name)?;
        let section = format!("[[{}]]", profile.kind());
        let (protocol, certainty) = (profile.protocol(), profile.about.certainty.name());
        writeln!(out, "{name:<20} {protocol:<13} {section:<10} {certainty:<6} {}", what(&profile))?;
    }
    Ok(())
}

fn what(profile: &Profile) -> String {
    let about = &profile.about;
    let models = if about.models.is_empty() { String::new() } else { format!(": {}", about.models.join(", ")) };
    let refused = about.refuse.as_ref().map_or_else(String::new, |reason| format!("; not usable: {reason}"));
    format!("{} ({}{models}){refused}", about.title, about.makers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(config: Option<&Path>, name: Option<&str>) -> String {
        let mut out = Vec::new();
        profiles(config, name, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn profiles_are_listed_and_printed_as_they_are_written() {
        let listed = printed(None, None);
        assert!(
            listed.contains("iskraemeco-am550     dlms-hdlc     [[meter]]  likely AM550, by DLMS (Iskraemeco: AM550, MT382, ME382)\n"),
            "{listed}"
        );
        assert_eq!(printed(None, Some("dsmr-5")), include_str!("../../profiles/dsmr-5.toml"));
        let error = profiles(None, Some("dsmr5"), &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "profiles: there is no profile \"dsmr5\"\nhint: did you mean \"dsmr-5\"?");
    }

    #[test]
    fn those_of_the_folder_in_the_settings_are_listed_too() {
        let folder = tempfile::tempdir().unwrap();
        let about = "[profile]\ntitle = \"Ours\"\nmakers = [\"We\"]\ncertainty = \"sure\"\n";
        let port = "[port]\nprotocol = \"d0\"\n";
        std::fs::write(folder.path().join("ours.toml"), format!("{about}{port}")).unwrap();
        std::fs::write(folder.path().join("not.toml"), format!("{about}refuse = \"it sings\"\n{port}")).unwrap();
        let config = folder.path().join("gateway.conf");
        std::fs::write(&config, format!("[gateway]\nid = \"gw\"\nprofiles_dir = {:?}\n", folder.path())).unwrap();
        let listed = printed(Some(&config), None);
        assert!(listed.contains("ours                 d0            [[port]]   sure   Ours (We)\n"), "{listed}");
        assert!(listed.contains("; not usable: it sings"), "{listed}");
    }
}
