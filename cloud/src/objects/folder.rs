//! A local folder as object store: every object written beside its place, synced and renamed.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// Why a local folder cannot hold the objects.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {folder} for the objects")]
pub struct LocalFolderError {
    folder: String,
    #[source]
    source: std::io::Error,
}

/// For looking, beside the process that writes to it: nothing is swept.
pub fn look(folder: &Path) -> Result<Arc<dyn ObjectStore>, LocalFolderError> {
    let error =
        |source| LocalFolderError { folder: folder.display().to_string(), source: std::io::Error::other(source) };
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(error)?))
}

/// For writing beside the process that works with it: every write synced, nothing swept.
pub fn beside(folder: &Path) -> Result<Arc<dyn ObjectStore>, LocalFolderError> {
    let error =
        |source| LocalFolderError { folder: folder.display().to_string(), source: std::io::Error::other(source) };
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(error)?.with_fsync(true)))
}

/// Every write synced. What a killed process left half written is swept: nobody else writes here.
pub fn open(folder: &Path) -> Result<Arc<dyn ObjectStore>, LocalFolderError> {
    let error = |source| LocalFolderError { folder: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(error)?;
    sweep_staged(folder).map_err(error)?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|source| error(std::io::Error::other(source)))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// `object_store` writes `name#N` and renames it; a kill in between leaves it, and nothing lists or removes it.
fn sweep_staged(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep_staged(&entry.path())?;
            continue;
        }
        let name = entry.file_name();
        let staged = name
            .to_str()
            .and_then(|name| name.rsplit_once('#'))
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
        if staged {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
