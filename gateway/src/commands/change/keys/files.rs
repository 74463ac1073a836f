//! The files of a meter's keys: what of a change outlives the process.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use protocols::cosem::security_setup::GlobalKey;
use protocols::dlms::security::{CipheredConfig, HighLevel, Key, KeyTransport, SecuritySuite, StoredKeys, Wrapping};
use zeroize::Zeroizing;

use crate::config::Checked;
use crate::config::keys::read_key;
use crate::config::metering::{AssociationName, MeterSection, MeterSettings};
use crate::config::security::{Proof, key_files, next_of};

/// A key, the option that names its file, and the file.
pub(super) type Named<'a> = (GlobalKey, &'static str, Option<&'a PathBuf>);

pub(super) struct KeyFiles {
    suite: SecuritySuite,
    paths: Vec<(GlobalKey, PathBuf)>,
    stored: StoredKeys,
    /// New keys as they are written.
    digits: Vec<(GlobalKey, Zeroizing<String>)>,
    untried: Vec<GlobalKey>,
}

/// Keys under which this client says nothing in an association: any key would do.
fn untried(writer: &MeterSettings, config: &CipheredConfig) -> Vec<GlobalKey> {
    let is_gmac = matches!(&writer.security.proof, Proof::High { how: HighLevel::Gmac, .. });
    let is_transported = matches!(
        config.wrapping,
        Wrapping::Ciphering(KeyTransport::Wrapped | KeyTransport::OnePass | KeyTransport::StaticUnified)
    );
    let has_initiate = writer.association == AssociationName::Negotiated;
    let untried = [
        (GlobalKey::Authentication, !config.level.authenticated && !is_gmac),
        (GlobalKey::UnicastEncryption, is_transported && !has_initiate),
    ];
    untried.into_iter().filter_map(|(which, is_so)| is_so.then_some(which)).collect()
}

fn ensure_tried(which: GlobalKey, untried: &[GlobalKey]) -> anyhow::Result<()> {
    let hint =
        "hint: security_policy = \"authenticated-encrypted\", and a negotiated association, show which key a meter has";
    let name = which.name();
    anyhow::ensure!(
        !untried.contains(&which),
        "nothing is said under the {name} key: nobody could tell whether it arrived\n{hint}"
    );
    Ok(())
}

impl KeyFiles {
    /// Those that the section of `meter` names; `writer` is the client that changes them.
    pub(super) fn of(checked: &Checked, meter: &MeterSettings, writer: &MeterSettings) -> anyhow::Result<Self> {
        let name = &meter.name;
        let (Some(cipher), Some(of_reader)) = (&writer.security.cipher, &meter.security.cipher) else {
            anyhow::bail!(
                "{name} has no keys\nhint: set encryption_key_file and authentication_key_file in its section"
            );
        };
        let hint = "hint: set key_encrypting_key_file in its section to a file with its master key";
        let in_force = cipher.global_keys();
        let in_force =
            in_force.with_context(|| format!("{name}: new keys are sent under the key-encrypting key\n{hint}"))?;
        let hint = "hint: keys that both clients share can be changed: name them in [[meter]] only";
        anyhow::ensure!(
            of_reader.global_keys().as_ref() == Some(&in_force),
            "{name}: [meter.clock_set] has keys of its own\n{hint}"
        );
        let section = checked.config.meter.iter().find(|section| *section.name == **name);
        let section = section.with_context(|| format!("there is no section of {name}"))?;
        let set = section.clock_set.as_ref();
        let is_apart =
            set.is_some_and(|set| set.encryption_key_file.is_some() || set.authentication_key_file.is_some());
        anyhow::ensure!(!is_apart, "{name}: [meter.clock_set] names key files of its own\n{hint}");
        let named = key_files(section).into_iter();
        let paths = named.filter_map(|(which, _, path)| Some((which, path?.clone()))).collect::<Vec<_>>();
        for (_, path) in &paths {
            check_file(checked, section, path)?;
        }
        let pending = cipher.next.as_ref().map(|next| (next.which, next.key.clone()));
        let untried = untried(writer, &cipher.config);
        if let Some((which, _)) = &pending {
            ensure_tried(*which, &untried)?;
        }
        let stored = StoredKeys { in_force, pending };
        Ok(Self { suite: cipher.config.suite, paths, stored, digits: Vec::new(), untried })
    }

    pub(super) const fn stored(&self) -> &StoredKeys {
        &self.stored
    }

    /// The keys in these files, as far as they are other than those in force.
    pub(super) fn wanted(&mut self, named: &[Named<'_>]) -> anyhow::Result<Vec<(GlobalKey, Key)>> {
        let mut wanted: Vec<(GlobalKey, Key)> = Vec::new();
        let mut in_force = Vec::new();
        for &(which, option, path) in named {
            let Some(path) = path else { continue };
            let hint = "hint: its section has to name a file, which the new key is put into";
            anyhow::ensure!(self.path(which).is_some(), "{option}: the old {} key is not known\n{hint}", which.name());
            ensure_tried(which, &self.untried)?;
            let (key, digits) = self.read(option, path)?;
            if self.stored.in_force.key(which) == Some(&key) {
                in_force.push(which.name());
                continue;
            }
            let others = GlobalKey::ALL.into_iter().filter(|other| *other != which);
            let known = others.filter_map(|other| Some((other, self.stored.in_force.key(other)?)));
            let new = wanted.iter().map(|(other, key)| (*other, key));
            if let Some((other, _)) = known.chain(new).find(|(_, other)| **other == key) {
                let hint = "hint: each key is drawn anew, as by `openssl rand -hex 16`";
                anyhow::bail!("{option}: the new {} key is the {} key\n{hint}", which.name(), other.name());
            }
            self.digits.push((which, digits));
            wanted.push((which, key));
        }
        if wanted.is_empty() && self.stored.pending.is_none() {
            let options = "--encryption-key, --authentication-key and --key-encrypting-key name files with new keys";
            anyhow::ensure!(!in_force.is_empty(), "nothing is to be changed\nhint: {options}");
            anyhow::bail!("in force already: {}\nhint: {options}", in_force.join(", "));
        }
        Ok(wanted)
    }

    fn read(&self, option: &str, path: &Path) -> anyhow::Result<(Key, Zeroizing<String>)> {
        let (key, digits) = if self.suite == SecuritySuite::Suite2 {
            let octets = read_key::<32>("keys", option, path)?;
            (Key::from_octets(&octets[..])?, digits(&octets[..]))
        } else {
            let octets = read_key::<16>("keys", option, path)?;
            (Key::from_octets(&octets[..])?, digits(&octets[..]))
        };
        Ok((key, digits))
    }

    fn path(&self, which: GlobalKey) -> Option<&Path> {
        self.paths.iter().find(|(of, _)| *of == which).map(|(_, path)| path.as_path())
    }

    /// Where both keys are kept, for people.
    pub(super) fn places(&self, which: GlobalKey) -> String {
        let path = self.path(which).unwrap_or(Path::new("?"));
        format!("{} and {}", path.display(), next_of(path).display())
    }

    /// Returns once it is on the disk. Whoever is killed in here finds what was there before, or this.
    pub(super) fn store(&mut self, stored: &StoredKeys) -> anyhow::Result<()> {
        match (&self.stored.pending, &stored.pending) {
            (None, Some((which, _))) => self.write_next(*which)?,
            (Some((which, key)), None) => {
                let path = self.path(*which).context("there is no file of this key")?;
                let next = next_of(path);
                let told = || format!("cannot put {} into its place", next.display());
                if stored.in_force.key(*which) == Some(key) {
                    fs::rename(&next, path).with_context(told)?;
                } else {
                    fs::remove_file(&next).with_context(told)?;
                }
                sync_folder(path).with_context(told)?;
            }
            (None, None) | (Some(_), Some(_)) => anyhow::bail!("keys change one by one"),
        }
        self.stored = stored.clone();
        Ok(())
    }

    fn write_next(&self, which: GlobalKey) -> anyhow::Result<()> {
        let path = self.path(which).context("there is no file of this key")?;
        let next = next_of(path);
        let told = || format!("cannot write {}", next.display());
        let digits = self.digits.iter().find(|(of, _)| *of == which).map(|(_, digits)| digits).with_context(told)?;
        let mut part = next.clone().into_os_string();
        part.push(".part");
        match fs::remove_file(&part) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(told),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).with_context(told)?;
        file.write_all(digits.as_bytes()).with_context(told)?;
        let (old, new) = (fs::metadata(path).with_context(told)?, file.metadata().with_context(told)?);
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Who reads the old key has to read this one.
            fchown(&file, Some(old.uid()), Some(old.gid())).with_context(told)?;
        }
        file.sync_all().with_context(told)?;
        fs::rename(&part, &next).with_context(told)?;
        sync_folder(path).with_context(told)
    }
}

/// The entry of a file is on the disk once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn digits(octets: &[u8]) -> Zeroizing<String> {
    // Its capacity is known: a text that grows would leave pieces of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(octets.len() * 2 + 1));
    for octet in octets {
        text.extend([octet >> 4, octet & 0xf].into_iter().filter_map(|half| char::from_digit(half.into(), 16)));
    }
    text.push('\n');
    text
}

/// Of the key of one meter, which nothing else goes by: a file that is a link, or that another section names, is not changed.
fn check_file(checked: &Checked, section: &MeterSection, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let told = || format!("cannot read {shown}");
    let hint = "hint: name the file itself in its section";
    let is_link = fs::symlink_metadata(path).with_context(told)?.file_type().is_symlink();
    anyhow::ensure!(!is_link, "{shown} is a symbolic link, and its file is about to be another\n{hint}");
    let file = fs::canonicalize(path).with_context(told)?;
    let is_it = |named: &&PathBuf| fs::canonicalize(named).is_ok_and(|named| named == file);
    let own = key_files(section).into_iter().filter_map(|(_, _, path)| path);
    anyhow::ensure!(
        own.filter(is_it).count() == 1,
        "{shown} holds two keys of {}\nhint: give each key a file of its own",
        section.name
    );
    for other in checked.config.meter.iter().filter(|other| other.name != section.name) {
        let set = other.clock_set.iter().flat_map(|set| [&set.encryption_key_file, &set.authentication_key_file]);
        let mut named = key_files(other).into_iter().filter_map(|(_, _, path)| path).chain(set.flatten());
        anyhow::ensure!(
            !named.any(|named| is_it(&named)),
            "{shown} holds a key of {}, too\nhint: give each meter files of its own, with the same keys",
            other.name
        );
    }
    for port in &checked.config.port {
        let mut named = [&port.encryption_key_file, &port.authentication_key_file].into_iter().flatten();
        anyhow::ensure!(
            !named.any(|named| is_it(&named)),
            "{shown} holds a key of port {}, too\nhint: give each section files of its own, with the same keys",
            port.name
        );
    }
    Ok(())
}
