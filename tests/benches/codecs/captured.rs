//! Octets of real meters, where the folder of the data sets has them. They are no part of the project.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tests::household;

fn folder(name: &str) -> Option<PathBuf> {
    household::data_folder().map(|data| data.join("captures").join(name)).filter(|folder| folder.is_dir())
}

/// One file; `None` where there is no folder of captures.
pub(crate) fn file(name: &str, file: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = folder(name).map(|folder| folder.join(file)) else { return Ok(None) };
    std::fs::read(&path).map(Some).with_context(|| format!("{} cannot be read", path.display()))
}

/// All files with this extension, by their names; none where there is no folder of captures.
pub(crate) fn files(name: &str, extension: &str) -> Result<Vec<Vec<u8>>> {
    let Some(folder) = folder(name) else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| Ok(std::fs::read(path)?)).collect()
}

/// The octets that a log writes as hexadecimal digits, whatever stands between them.
pub(crate) fn logged(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text.iter().filter_map(|&octet| char::from(octet).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
