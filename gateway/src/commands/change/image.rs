//! `image`: new firmware for a DLMS meter, by hand. What the meter has of it is not sent again, however often this was cut short.
//!
//! Which transfer is whose, class 18 says only once an image is verified: what was initiated is kept in `images.json` beside the outbox.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use protocols::cosem::InterfaceClass as _;
use protocols::cosem::image_transfer::upload::{Outcome, Step, Upload, UploadError, UploadOptions};
use protocols::cosem::image_transfer::{IMAGE_TRANSFER_STATUS, ImageId, ImageTransfer, TransferStatus};
use protocols::dlms::apdu::{CosemAttribute, CosemMethod};
use protocols::dlms::data::Data;
use protocols::metering::MeterId;

use super::{Site, confirm, value};
use crate::config::Checked;
use crate::reading::session::SessionError;
use crate::reading::talk::Talk;
use crate::run;

/// More than the memory of any meter.
const IMAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A large image over a slow line takes hours.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);
const HINT_AGAIN: &str = "hint: give the same command again: blocks that the meter has are not sent again";

#[derive(Debug, Clone, clap::Args)]
pub struct ImageOptions {
    /// The image, as its maker gives it out.
    pub file: PathBuf,
    /// What the meter is to call it: a text, or hex: and hexadecimal digits [default: the name of the file without its extension].
    #[arg(long)]
    pub identifier: Option<String>,
    /// Activates it once it is verified; the meter may start anew then.
    #[arg(long)]
    pub activate: bool,
    /// Gives up another transfer that is under way in the meter.
    #[arg(long)]
    pub restart: bool,
    /// Does not ask.
    #[arg(long)]
    pub yes: bool,
}

pub async fn image(checked: &Checked, name: &str, options: &ImageOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let image = read(&options.file)?;
    let identifier = identifier(options)?;
    let mut site = Site::of(checked, name)?;
    site.budget = site.budget.max(PATIENCE);
    drop(site.ask_the_time(checked).await);
    let writer = site.writer();
    let (meter, before) = site.converse(writer.clone(), async |talk, _| look(talk).await).await?;
    let mut book = Book::open(checked)?;
    let crc = crc32fast::hash(&image);
    let initiated = book.initiated(&meter, crc);
    let upload = UploadOptions { initiated, restart: options.restart, activate: options.activate };
    let mut upload = Upload::new(&image, identifier, upload)?;
    let what = format!("bring image {}{}", upload.id(), if options.activate { " and activate it" } else { "" });
    for (key, value) in [("meter", name), ("identity", meter.as_str()), ("before", before.as_str())] {
        writeln!(out, "{key:<22} {value}")?;
    }
    writeln!(out, "{:<22} {}, CRC-32 {crc:08x}", "image", upload.id())?;
    out.flush()?;
    if !options.yes {
        confirm(name, &what)?;
    }
    let raw = upload.id().identifier.clone();
    site.record(&meter, 0, raw.clone(), &format!("about to {what} by hand; before: {before}")).await?;
    let known = meter.clone();
    let done = site
        .converse(writer, async |talk, who| {
            if *who != known {
                return Ok(Err(anyhow::anyhow!("{who} answers now")));
            }
            bring(talk, &mut upload, |id| book.note(&known, id, crc)).await
        })
        .await;
    let (code, text) = match &done {
        Ok((_, Ok(outcome))) => (1, format!("done; the image is {}", shown(*outcome))),
        Ok((_, Err(error))) => (2, error.to_string()),
        Err(error) => (3, format!("cut short: {error}")),
    };
    let event = text.lines().next().unwrap_or_default();
    site.record(&meter, code, raw, &format!("{what} by hand: {event}")).await?;
    match done {
        Ok((_, Ok(outcome))) => {
            // A meter may list what it has verified under other names: until it is active only the book says what it is.
            if outcome == Outcome::Activated {
                book.forget(&meter)?;
            }
            Ok(writeln!(out, "{:<22} {}", "after", shown(outcome))?)
        }
        Ok((_, Err(error))) => anyhow::bail!("{name}: {error}"),
        Err(error) => anyhow::bail!("{error}\n{HINT_AGAIN}"),
    }
}

const fn shown(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Verified => "verified, and not activated",
        Outcome::Activated => "active",
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    anyhow::ensure!(size > 0, "{shown} has no octets\nhint: is this the file that its maker means?");
    anyhow::ensure!(size <= IMAGE_BYTES_MAX, "{shown} has {size} octets, and {IMAGE_BYTES_MAX} is the limit");
    std::fs::read(file).with_context(|| format!("cannot read {shown}"))
}

fn identifier(options: &ImageOptions) -> anyhow::Result<Vec<u8>> {
    let stem = options.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let text = options.identifier.clone().or(stem).unwrap_or_default();
    let octets = match text.strip_prefix("hex:") {
        Some(digits) => value::hex(digits).with_context(|| format!("{digits:?} are no hexadecimal digits"))?,
        None => text.into_bytes(),
    };
    anyhow::ensure!(!octets.is_empty(), "the image has no identifier\nhint: --identifier names it");
    Ok(octets)
}

const fn attribute(index: i8) -> CosemAttribute {
    CosemAttribute::new(ImageTransfer::CLASS_ID, ImageTransfer::LOGICAL_NAME, index)
}

/// The status of its image transfer.
async fn look(talk: &mut Talk<'_>) -> Result<String, SessionError> {
    Ok(match talk.get(attribute(IMAGE_TRANSFER_STATUS), None).await? {
        Ok(value) => {
            let status = Data::from_bytes(&value.data).ok().and_then(|data| TransferStatus::decode(&data).ok());
            status.map_or("not readable", TransferStatus::name).to_owned()
        }
        Err(error) => error.to_string(),
    })
}

/// One conversation's part of it. `note` is called once it is sure that the transfer in the meter is of this image.
async fn bring(
    talk: &mut Talk<'_>,
    upload: &mut Upload<'_>,
    mut note: impl FnMut(&ImageId) -> anyhow::Result<()>,
) -> Result<anyhow::Result<Outcome>, SessionError> {
    let (mut is_noted, mut tenths) = (false, 0);
    loop {
        let answer = match upload.step() {
            Step::Done(outcome) => return Ok(Ok(outcome)),
            Step::Wait(wait) => {
                tokio::time::sleep(wait).await;
                upload.waited();
                continue;
            }
            Step::Get(index) => talk.get(attribute(index), None).await?.map(|value| value.data),
            Step::Set(index, value) => talk.set(attribute(index), value.to_vec()).await?.map(|()| Vec::new()),
            Step::Invoke(index, parameter) => {
                let method = CosemMethod::new(ImageTransfer::CLASS_ID, ImageTransfer::LOGICAL_NAME, index);
                talk.invoke(method, parameter.to_vec()).await?.map(|_| Vec::new())
            }
        };
        let answered = match answer {
            Ok(octets) => upload.answered(Ok(&octets)),
            Err(error) => upload.answered(Err(error)),
        };
        if let Err(error) = answered {
            return Ok(Err(told(&error)));
        }
        if upload.is_initiated() && !is_noted {
            is_noted = true;
            if let Err(error) = note(upload.id()) {
                return Ok(Err(error));
            }
        }
        let (there, all) = upload.progress();
        if all > 0 && there * 10 / all > tenths {
            tenths = there * 10 / all;
            // Nobody has to see it.
            drop(writeln!(std::io::stderr(), "{there} of {all} blocks are in the meter"));
        }
    }
}

fn told(error: &UploadError) -> anyhow::Error {
    let hint = match error {
        UploadError::OtherTransfer { .. } | UploadError::OtherVerified { .. } => {
            "\nhint: --restart gives that up; who has begun it?"
        }
        UploadError::Refused { .. } => {
            "\nhint: may this client transfer images? [meter.clock_set] can name one that manages the meter"
        }
        UploadError::Failed { .. } => "\nhint: is it an image for this meter?",
        UploadError::Busy { .. } | UploadError::KeepsMissing { .. } => "\nhint: give the same command again later",
        _ => "",
    };
    match std::error::Error::source(error) {
        Some(source) => anyhow::anyhow!("{error}: {source}{hint}"),
        None => anyhow::anyhow!("{error}{hint}"),
    }
}

/// What was initiated in which meter, and not yet activated.
struct Book {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    identifier: Vec<u8>,
    size: u32,
    /// Of the image: another one may have the same name and length.
    crc32: u32,
}

impl Book {
    fn open(checked: &Checked) -> anyhow::Result<Self> {
        let path = run::outbox_path(checked).with_file_name("images.json");
        let entries = match std::fs::read(&path) {
            Ok(text) => {
                let hint = "hint: without it, what was begun has to be given up with --restart";
                serde_json::from_slice(&text).with_context(|| format!("{} is not readable\n{hint}", path.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, entries })
    }

    /// The image in the meter, if it is this very one.
    fn initiated(&self, meter: &MeterId, crc32: u32) -> Option<ImageId> {
        let entry = self.entries.get(meter.as_str()).filter(|entry| entry.crc32 == crc32)?;
        Some(ImageId { identifier: entry.identifier.clone(), size: entry.size })
    }

    fn note(&mut self, meter: &MeterId, id: &ImageId, crc32: u32) -> anyhow::Result<()> {
        let entry = Entry { identifier: id.identifier.clone(), size: id.size, crc32 };
        self.entries.insert(meter.as_str().to_owned(), entry);
        self.store()
    }

    fn forget(&mut self, meter: &MeterId) -> anyhow::Result<()> {
        self.entries.remove(meter.as_str());
        self.store()
    }

    /// Whole, or not at all.
    fn store(&self) -> anyhow::Result<()> {
        let next = self.path.with_extension("json.next");
        let told = || format!("cannot write {}", self.path.display());
        let text = serde_json::to_vec(&self.entries)?;
        let mut file = std::fs::File::create(&next).with_context(told)?;
        file.write_all(&text).and_then(|()| file.sync_all()).with_context(told)?;
        std::fs::rename(&next, &self.path).with_context(told)
    }
}

#[cfg(test)]
mod tests;
