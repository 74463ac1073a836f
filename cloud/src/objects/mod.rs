//! Where objects are: a local folder, or a bucket of any S3 service. Landing area, quarantine and archive lie there side by side.
//!
//! What the rest of this program asks of it, and nothing more ([`conformance`]): an object is written whole or not at all; writing
//! the same key again replaces it; what was written is read and listed at once. Nothing rests on a conditional write, and an
//! object is verified by its hash or its footer when it is read.

pub mod conformance;
pub mod folder;
pub mod s3;
pub mod settings;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;

pub use self::folder::LocalFolderError;
pub use self::s3::{S3Error, S3Settings};
pub use self::settings::ObjectsSection;

/// Where the objects of this head-end are.
#[derive(Debug, Clone)]
pub enum Place {
    Folder(PathBuf),
    S3(Box<S3Settings>),
}

/// Why objects cannot be reached, and waiting does not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectsError {
    #[error(transparent)]
    Folder(#[from] LocalFolderError),
    #[error(transparent)]
    S3(#[from] S3Error),
}

impl ObjectsError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Folder(_) => None,
            Self::S3(error) => error.hint(),
        }
    }
}

impl Place {
    /// For writing. Waits, and says so, for a service that does not answer; may be dropped while it waits.
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
        self.open_telling(&|| ()).await
    }

    /// The same; `away` is called whenever the service was found not to answer.
    pub async fn open_telling(&self, away: &(dyn Fn() + Sync)) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
        match self {
            Self::Folder(folder) => Ok(folder::open(folder)?),
            Self::S3(settings) => Ok(settings.open(away).await?),
        }
    }

    /// For writing beside the processes that work with it.
    pub async fn beside(&self) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
        match self {
            Self::Folder(folder) => Ok(folder::beside(folder)?),
            Self::S3(_) => self.open().await,
        }
    }

    /// For looking, beside the processes that write: nothing is swept, tried or waited for.
    pub async fn look(&self) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
        match self {
            Self::Folder(folder) => Ok(folder::look(folder)?),
            Self::S3(settings) => {
                let objects = settings.client()?;
                settings.list_one(&*objects).await?;
                Ok(objects)
            }
        }
    }
}

/// Whether it says that there is no such object. S3 answers 404 also for a bucket that is gone, and some servers do for a key
/// that they do not know: then every payload would seem to have vanished.
pub fn is_absent(error: &object_store::Error) -> bool {
    let object_store::Error::NotFound { source, .. } = error else { return false };
    let told = source.to_string();
    !told.contains(s3::NO_BUCKET) && !s3::UNKNOWN_KEY.iter().any(|code| told.contains(code))
}
