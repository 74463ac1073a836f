//! Bringing an image into a meter: which request comes next, and what its answer means. Without IO.
//!
//! The steps are those of the Blue Book: enable, block size, initiate, blocks, completeness, verify, check, activate. An upload that
//! was interrupted, wherever that was, is begun anew by its owner: the meter says which blocks it has, and only the others are sent.
//!
//! Which image a transfer that is under way is for, class 18 says only once it is verified, and then by names of the meter's own: an
//! image may be announced in several parts, each with an identification and a size. The owner therefore remembers what was initiated,
//! and passes it as [`UploadOptions::initiated`]; a transfer of anything else is left alone.
//!
//! | what the meter says before anything is sent | it is this image where |
//! | --- | --- |
//! | initiated | it is remembered: what is listed may still be what was verified before |
//! | verification or activation begun, or verified | it is listed; or it is remembered, and nothing is listed or all its blocks are there and no others |
//! | activated | the same, except that an empty list says nothing |

use std::time::Duration;

use super::{
    Block, IMAGE_ACTIVATE, IMAGE_BLOCK_SIZE, IMAGE_BLOCK_TRANSFER, IMAGE_FIRST_NOT_TRANSFERRED_BLOCK_NUMBER,
    IMAGE_TO_ACTIVATE_INFO, IMAGE_TRANSFER_ENABLED, IMAGE_TRANSFER_INITIATE, IMAGE_TRANSFER_STATUS,
    IMAGE_TRANSFERRED_BLOCKS_STATUS, IMAGE_VERIFY, ImageId, ImageToActivate, TransferStatus, decode_blocks,
};
use crate::cosem::{AttributeError, boolean, integer};
use crate::dlms::apdu::{ActionResult, DataAccessResult};
use crate::dlms::client::RequestError;
use crate::dlms::data::Data;
use crate::dlms::value::DataValue;

/// Between two questions to a meter that is busy.
const WAIT: Duration = Duration::from_secs(5);
/// Ten minutes: meters that check a signature and copy a flash memory take some.
const WAITS_MAX: u32 = 120;
/// How often missing blocks are sent after the first time. A meter that has said of each that it took it loses few of them.
const ROUNDS_MAX: u32 = 3;
/// Larger blocks fit no request that a meter takes.
const BLOCK_SIZE_MAX: u32 = 0xffff;

/// What to ask of the image transfer object, or what else to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Get(i8),
    Set(i8, DataValue),
    Invoke(i8, DataValue),
    /// Then [`Upload::waited`].
    Wait(Duration),
    Done(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of the image is there, and the meter has verified it.
    Verified,
    /// The meter says that the image is active.
    Activated,
}

#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// What was initiated in this meter before, and not yet activated, as far as the owner knows.
    pub initiated: Option<ImageId>,
    /// Gives up what is under way in the meter, whatever it is.
    pub restart: bool,
    pub activate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    #[error("the image has no octets")]
    Empty,
    #[error("the image is longer than a meter could be told")]
    TooLong,
    /// Of another image, as far as the meter or its owner can tell; `None` where nobody can.
    #[error("another transfer is under way{}", of(.found.as_ref()))]
    OtherTransfer { found: Option<ImageId> },
    /// Another image than this one, which was taken for what the meter verifies only by what it had listed before.
    #[error("the meter has verified {found}, which is another image")]
    OtherVerified { found: ImageId },
    #[error("the meter takes blocks of {size} octets")]
    BlockSize { size: u32 },
    #[error("{what}")]
    Refused {
        what: &'static str,
        #[source]
        source: RequestError,
    },
    #[error("the answer is not as its class says")]
    Unreadable(#[source] AttributeError),
    #[error("the answer is no value")]
    NoValue,
    /// It took it, more than once.
    #[error("block {first} is missing again and again")]
    KeepsMissing { first: usize },
    #[error("the meter is still busy after {}s: {what}", WAIT.as_secs() * u64::from(WAITS_MAX))]
    Busy { what: &'static str },
    #[error("the meter says: {}", .status.name())]
    Failed { status: TransferStatus },
}

fn of(found: Option<&ImageId>) -> String {
    found.map_or_else(String::new, |found| format!(", of {found}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ReadEnabled,
    Enable,
    ReadBlockSize,
    /// Before anything is sent.
    ReadStatus,
    /// Which image the meter has verified; in the end whether it is the right one, at the beginning whether to go on with it.
    ReadInfo(TransferStatus),
    /// Whether the blocks that the meter has are those of this image, which it does not list.
    Recognise(TransferStatus),
    /// The same of a meter that does not say which blocks it has.
    RecogniseByFirst(TransferStatus),
    Initiate,
    ReadBlocks,
    /// Of a meter that does not say which blocks it has.
    ReadFirst,
    /// Sends the next block that is missing.
    Send,
    CheckFirst,
    Verify,
    ReadVerified,
    CheckInfo,
    Activate,
    ReadActivated,
    Done(Outcome),
}

/// One image on its way into one meter.
#[derive(Debug)]
pub struct Upload<'i> {
    image: &'i [u8],
    id: ImageId,
    options: UploadOptions,
    state: State,
    is_waiting: bool,
    waits: u32,
    rounds: u32,
    block_size: usize,
    /// Which blocks the meter has.
    blocks: Vec<bool>,
    /// The first image of those that the meter listed before anything was sent.
    listed: Option<ImageId>,
    is_initiated: bool,
}

impl<'i> Upload<'i> {
    pub fn new(image: &'i [u8], identifier: Vec<u8>, options: UploadOptions) -> Result<Self, UploadError> {
        if image.is_empty() {
            return Err(UploadError::Empty);
        }
        let size = u32::try_from(image.len()).map_err(|_| UploadError::TooLong)?;
        Ok(Self {
            image,
            id: ImageId { identifier, size },
            options,
            state: State::ReadEnabled,
            is_waiting: false,
            waits: 0,
            rounds: 0,
            block_size: 0,
            blocks: Vec::new(),
            listed: None,
            is_initiated: false,
        })
    }

    pub const fn id(&self) -> &ImageId {
        &self.id
    }

    /// The transfer in the meter is the owner's own, of this image. To be remembered before the next step, until it is active.
    pub const fn is_initiated(&self) -> bool {
        self.is_initiated
    }

    /// How many blocks the meter has, and how many there are; 0 before that is known.
    pub fn progress(&self) -> (usize, usize) {
        (self.blocks.iter().filter(|&&is_there| is_there).count(), self.blocks.len())
    }

    /// The same until [`Self::answered`].
    pub fn step(&self) -> Step {
        if self.is_waiting {
            return Step::Wait(WAIT);
        }
        let zero = DataValue::Integer(0);
        match self.state {
            State::ReadEnabled => Step::Get(IMAGE_TRANSFER_ENABLED),
            State::Enable => Step::Set(IMAGE_TRANSFER_ENABLED, DataValue::Boolean(true)),
            State::ReadBlockSize => Step::Get(IMAGE_BLOCK_SIZE),
            State::ReadStatus | State::ReadVerified | State::ReadActivated => Step::Get(IMAGE_TRANSFER_STATUS),
            State::ReadInfo(_) | State::CheckInfo => Step::Get(IMAGE_TO_ACTIVATE_INFO),
            State::Initiate => Step::Invoke(IMAGE_TRANSFER_INITIATE, self.id.encode()),
            State::ReadBlocks | State::Recognise(_) => Step::Get(IMAGE_TRANSFERRED_BLOCKS_STATUS),
            State::ReadFirst | State::CheckFirst | State::RecogniseByFirst(_) => {
                Step::Get(IMAGE_FIRST_NOT_TRANSFERRED_BLOCK_NUMBER)
            }
            State::Send => Step::Invoke(IMAGE_BLOCK_TRANSFER, self.next_block().encode()),
            State::Verify => Step::Invoke(IMAGE_VERIFY, zero),
            State::Activate => Step::Invoke(IMAGE_ACTIVATE, zero),
            State::Done(outcome) => Step::Done(outcome),
        }
    }

    /// The time of [`Step::Wait`] is over.
    pub fn waited(&mut self) {
        self.is_waiting = false;
    }

    /// What came of the step: the encoded value of an attribute, nothing for what was written or carried out.
    pub fn answered(&mut self, answer: Result<&[u8], RequestError>) -> Result<(), UploadError> {
        let answer = match answer {
            Err(error) if is_temporary(&error) => return self.busy(),
            answer => answer,
        };
        self.state = match (self.state, answer) {
            (state, answer) if is_optional(state) => self.optional(state, answer.ok())?,
            (state, Err(source)) => return Err(UploadError::Refused { what: what(state), source }),
            (state, Ok(octets)) => self.advance(state, octets)?,
        };
        Ok(())
    }

    /// Attributes without which one can go on.
    fn optional(&mut self, state: State, answer: Option<&[u8]>) -> Result<State, UploadError> {
        let data = answer.map(decode).transpose()?;
        Ok(match (state, data) {
            (State::ReadEnabled, Some(data)) => {
                if boolean("image_transfer_enabled", &data).map_err(UploadError::Unreadable)? {
                    State::ReadBlockSize
                } else {
                    State::Enable
                }
            }
            (State::ReadEnabled, None) => State::ReadBlockSize,
            (State::ReadInfo(status), data) => {
                let listed = data.map(|data| ImageToActivate::decode_list(&data)).transpose();
                self.go_on_from(status, listed.map_err(UploadError::Unreadable)?.unwrap_or_default())?
            }
            (State::ReadBlocks, Some(data)) => {
                let there = decode_blocks(&data).map_err(UploadError::Unreadable)?;
                let said = there.into_iter().chain(std::iter::repeat(false));
                self.blocks = said.take(self.blocks.len()).collect();
                self.after_blocks()
            }
            (State::ReadBlocks, None) => State::ReadFirst,
            (State::Recognise(status), Some(data)) => {
                let there = decode_blocks(&data).map_err(UploadError::Unreadable)?;
                // Some meters fill the last octet.
                let parts = there.split_at_checked(self.blocks.len());
                let is_this = parts.is_some_and(|(own, beyond)| !own.contains(&false) && !beyond.contains(&true));
                self.recognised(status, is_this)?
            }
            (State::Recognise(status), None) => State::RecogniseByFirst(status),
            (_, data) => {
                let listed = data.map(|data| ImageToActivate::decode_list(&data)).transpose();
                self.check(listed.map_err(UploadError::Unreadable)?.unwrap_or_default())?
            }
        })
    }

    fn advance(&mut self, state: State, octets: &[u8]) -> Result<State, UploadError> {
        Ok(match state {
            State::Enable => State::ReadBlockSize,
            State::ReadBlockSize => {
                let size: u32 = integer("image_block_size", &decode(octets)?).map_err(UploadError::Unreadable)?;
                if !(1..=BLOCK_SIZE_MAX).contains(&size) {
                    return Err(UploadError::BlockSize { size });
                }
                self.block_size = size as usize;
                self.blocks = vec![false; self.image.len().div_ceil(self.block_size)];
                State::ReadStatus
            }
            State::ReadStatus => self.begin(status(octets)?),
            State::Initiate => {
                self.is_initiated = true;
                State::Send
            }
            State::RecogniseByFirst(status) => {
                let is_this = first(octets)? >= self.blocks.len();
                self.recognised(status, is_this)?
            }
            State::ReadFirst => {
                let first = first(octets)?.min(self.blocks.len());
                if let Some(there) = self.blocks.get_mut(..first) {
                    there.fill(true);
                }
                self.after_blocks()
            }
            State::Send => {
                if let Some(sent) = self.blocks.iter_mut().find(|is_there| !**is_there) {
                    *sent = true;
                }
                self.waits = 0;
                self.after_blocks()
            }
            State::CheckFirst if first(octets)? >= self.blocks.len() => State::Verify,
            State::CheckFirst => {
                if self.rounds == ROUNDS_MAX {
                    return Err(UploadError::KeepsMissing { first: first(octets)? });
                }
                self.rounds += 1;
                self.blocks.fill(false);
                State::ReadBlocks
            }
            State::Verify => State::ReadVerified,
            State::ReadVerified => match status(octets)? {
                TransferStatus::VerificationSuccessful => State::CheckInfo,
                TransferStatus::VerificationInitiated => return self.busy().map(|()| State::ReadVerified),
                // It was too busy to begin.
                TransferStatus::Initiated => return self.busy().map(|()| State::Verify),
                status => return Err(UploadError::Failed { status }),
            },
            State::Activate => State::ReadActivated,
            State::ReadActivated => match status(octets)? {
                TransferStatus::ActivationSuccessful => State::Done(Outcome::Activated),
                TransferStatus::ActivationInitiated | TransferStatus::VerificationSuccessful => {
                    return self.busy().map(|()| State::ReadActivated);
                }
                status => return Err(UploadError::Failed { status }),
            },
            other => other,
        })
    }

    /// By what the meter says before anything is sent.
    fn begin(&self, status: TransferStatus) -> State {
        match status {
            _ if self.options.restart => State::Initiate,
            TransferStatus::NotInitiated | TransferStatus::VerificationFailed | TransferStatus::ActivationFailed => {
                State::Initiate
            }
            status => State::ReadInfo(status),
        }
    }

    /// A transfer is under way, or was. `listed` are the images that wait to be activated.
    fn go_on_from(&mut self, status: TransferStatus, listed: Vec<ImageToActivate>) -> Result<State, UploadError> {
        // What was verified before, a meter may list until it verifies again.
        let listed = if status == TransferStatus::Initiated { Vec::new() } else { listed };
        let is_listed = listed.iter().any(|image| image.id == self.id);
        let is_remembered = self.options.initiated.as_ref() == Some(&self.id);
        self.listed = listed.into_iter().next().map(|image| image.id);
        if status == TransferStatus::ActivationSuccessful {
            // It is over: the next one may begin, unless this is the one.
            return Ok(match (self.options.activate, is_listed, is_remembered) {
                (true, true, _) => State::Done(Outcome::Activated),
                (true, false, true) => State::Recognise(status),
                _ => State::Initiate,
            });
        }
        if is_remembered && !is_listed && self.listed.is_some() {
            return Ok(State::Recognise(status));
        }
        if !is_remembered && !is_listed {
            return Err(self.other_transfer());
        }
        // By what is listed alone, nobody knows yet who has sent it.
        self.is_initiated = is_remembered;
        Ok(self.go_on(status))
    }

    /// The meter lists another image than the one that is remembered. By the blocks that it has, that is another name of this one, or
    /// somebody else has begun another transfer since.
    fn recognised(&mut self, status: TransferStatus, is_this: bool) -> Result<State, UploadError> {
        match (status, is_this) {
            (TransferStatus::ActivationSuccessful, true) => Ok(State::Done(Outcome::Activated)),
            (TransferStatus::ActivationSuccessful, false) => Ok(State::Initiate),
            (_, true) => {
                self.is_initiated = true;
                Ok(self.go_on(status))
            }
            (_, false) => Err(self.other_transfer()),
        }
    }

    /// Where the transfer in the meter is of this image.
    fn go_on(&mut self, status: TransferStatus) -> State {
        match status {
            TransferStatus::VerificationInitiated => State::ReadVerified,
            TransferStatus::VerificationSuccessful => {
                self.blocks.fill(true);
                State::CheckInfo
            }
            TransferStatus::ActivationInitiated => State::ReadActivated,
            _ => State::ReadBlocks,
        }
    }

    fn other_transfer(&self) -> UploadError {
        UploadError::OtherTransfer { found: self.listed.clone().or_else(|| self.options.initiated.clone()) }
    }

    /// What the meter has verified: `listed`, under whatever names, where it was the owner who sent it.
    fn check(&mut self, listed: Vec<ImageToActivate>) -> Result<State, UploadError> {
        let is_listed = listed.iter().any(|image| image.id == self.id);
        match listed.into_iter().next() {
            _ if self.is_initiated || is_listed => {}
            Some(ImageToActivate { id: found, .. }) => return Err(UploadError::OtherVerified { found }),
            None => return Err(UploadError::OtherTransfer { found: None }),
        }
        if !self.options.activate {
            return Ok(State::Done(Outcome::Verified));
        }
        self.waits = 0;
        Ok(State::Activate)
    }

    fn after_blocks(&self) -> State {
        if self.blocks.contains(&false) { State::Send } else { State::CheckFirst }
    }

    /// The first that is missing.
    fn next_block(&self) -> Block {
        let number = self.blocks.iter().position(|is_there| !is_there).unwrap_or_default();
        let octets = self.image.chunks(self.block_size.max(1)).nth(number).unwrap_or_default();
        Block { number: u32::try_from(number).unwrap_or(u32::MAX), octets: octets.to_vec() }
    }

    /// The same again, later; of methods that were begun, their status.
    fn busy(&mut self) -> Result<(), UploadError> {
        if self.waits == WAITS_MAX {
            return Err(UploadError::Busy { what: what(self.state) });
        }
        self.waits += 1;
        self.is_waiting = true;
        match self.state {
            State::Verify => self.state = State::ReadVerified,
            State::Activate => self.state = State::ReadActivated,
            _ => {}
        }
        Ok(())
    }
}

/// What is asked for, one can go on without.
const fn is_optional(state: State) -> bool {
    matches!(
        state,
        State::ReadEnabled | State::ReadInfo(_) | State::Recognise(_) | State::ReadBlocks | State::CheckInfo
    )
}

fn decode(octets: &[u8]) -> Result<Data<'_>, UploadError> {
    Data::from_bytes(octets).map_err(|_| UploadError::NoValue)
}

fn status(octets: &[u8]) -> Result<TransferStatus, UploadError> {
    TransferStatus::decode(&decode(octets)?).map_err(UploadError::Unreadable)
}

fn first(octets: &[u8]) -> Result<usize, UploadError> {
    let first: u32 =
        integer("image_first_not_transferred_block_number", &decode(octets)?).map_err(UploadError::Unreadable)?;
    Ok(first as usize)
}

fn is_temporary(error: &RequestError) -> bool {
    match error {
        RequestError::MethodRefused(result) => *result == ActionResult::TEMPORARY_FAILURE,
        RequestError::Refused(result) => *result == DataAccessResult::TemporaryFailure,
        _ => false,
    }
}

/// What was asked for, for errors.
const fn what(state: State) -> &'static str {
    match state {
        State::ReadEnabled => "reading whether image transfer is enabled",
        State::Enable => "enabling image transfer",
        State::ReadBlockSize => "reading the block size",
        State::ReadStatus => "reading the status",
        State::ReadInfo(_) | State::CheckInfo => "reading which image waits",
        State::Initiate => "initiating the transfer",
        State::ReadBlocks | State::ReadFirst | State::CheckFirst | State::Recognise(_) | State::RecogniseByFirst(_) => {
            "reading which blocks are there"
        }
        State::Send => "sending a block",
        State::Verify | State::ReadVerified => "verifying the image",
        State::Activate | State::ReadActivated => "activating the image",
        State::Done(_) => "nothing",
    }
}

#[cfg(test)]
mod tests;
