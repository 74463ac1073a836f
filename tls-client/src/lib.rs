//! What gateway and cloud share of TLS as clients: certificate files, and what an error of a broker's connection means.

mod files;
mod trouble;

pub use files::{IdentityFiles, TlsFileError, TlsFiles};
pub use trouble::{Trouble, trouble};
