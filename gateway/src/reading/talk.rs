//! One conversation with one meter: drives a DLMS client session over a byte link, with a deadline on everything.

use std::time::Duration;

use protocols::dlms::acse::Diagnostic;
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, Quirks, ReadError, RequestId,
    Selected, Value,
};
use protocols::hdlc::{HdlcClient, HdlcConfig};
use protocols::iec62056_21::SessionError as CallError;
use protocols::link::{Link, LinkInput};
use protocols::mbus::{MasterError, ReadoutError, SecurityError, TelegramError};
use protocols::wrapper::{WrapperClient, WrapperConfig};
use tokio::time::Instant;
use tracing::{debug, trace};

use crate::config::metering::{Addressing, MeterSettings};
use crate::link::{ByteLink, LinkLost};

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TalkError {
    #[error(transparent)]
    Session(#[from] ClientError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Bus(#[from] MasterError),
    /// The meter on M-Bus answers, and what it says is closed or cannot be read.
    #[error(transparent)]
    Telegram(#[from] TelegramError),
    #[error(transparent)]
    Records(#[from] ReadoutError),
    /// The medium is gone; whose fault that is, the meter's or the line's, is not known.
    #[error("the line failed")]
    Link(#[source] LinkLost),
    /// The meter had the line for as long as it may.
    #[error("the meter did not get done within its time")]
    OutOfTime,
}

impl TalkError {
    /// The link may hold anything now: it has to be opened anew.
    pub fn spoils_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// The meter does not take the password, or wants one.
    pub fn is_wrong_password(&self) -> bool {
        matches!(
            self,
            Self::Session(ClientError::Rejected {
                diagnostic: Diagnostic::AUTHENTICATION_FAILURE | Diagnostic::AUTHENTICATION_REQUIRED,
                ..
            }) | Self::Call(CallError::PasswordRefused)
        )
    }

    /// The meter answered, and will answer the same next time.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Session(error) => error.is_refusal(),
            Self::Call(error) => matches!(error, CallError::PasswordRefused | CallError::NotOffered { .. }),
            Self::Telegram(_) | Self::Records(_) => true,
            Self::Bus(_) | Self::Link(_) | Self::OutOfTime => false,
        }
    }

    /// Somebody answers in place of the meter.
    pub fn is_wrong_identity(&self) -> bool {
        matches!(self, Self::Bus(MasterError::OtherMeter { .. }))
    }

    const fn hint(&self) -> &'static str {
        match self {
            Self::Telegram(TelegramError::Security(SecurityError::NoKey { .. })) => {
                ": set encryption_key_file in its section"
            }
            Self::Telegram(TelegramError::Security(_)) => ": is encryption_key_file of its section right?",
            Self::Bus(MasterError::Silent { .. }) => ": are its address, and the rate of its line, right?",
            _ => "",
        }
    }

    /// With all its causes, and what to do where that is known, for people. On one line: it is the cause in a meter's state, too.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        if self.is_wrong_password() {
            text.push_str(": is password_file of its section right?");
        }
        text.push_str(self.hint());
        text
    }
}

/// The octets of one read from the medium.
const RECEIVE_OCTETS: usize = 2048;
/// For a farewell that nobody waits for.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);

pub struct Talk<'l> {
    link: &'l mut dyn ByteLink,
    session: ClientSession<Box<dyn Link + Send>>,
    origin: Instant,
    deadline: Instant,
    failure: Option<ClientError>,
    buffer: Box<[u8; RECEIVE_OCTETS]>,
}

impl<'l> Talk<'l> {
    /// A conversation that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub fn new(
        link: &'l mut dyn ByteLink,
        meter: &MeterSettings,
        octet_time_us: u32,
        deadline: Instant,
    ) -> Result<Self, TalkError> {
        link.clear_input().map_err(TalkError::Link)?;
        let session = ClientSession::new(link_layer(&meter.addressing, octet_time_us), client_config(meter));
        let buffer = Box::new([0; RECEIVE_OCTETS]);
        Ok(Self { link, session, origin: Instant::now(), deadline, failure: None, buffer })
    }

    pub async fn associate(&mut self) -> Result<(), TalkError> {
        let started = self.session.associate(self.now());
        self.note(started);
        loop {
            if let ClientEvent::Associated(negotiated) = self.next_event().await? {
                debug!(conformance = %negotiated.conformance, "associated");
                return Ok(());
            }
        }
    }

    /// One attribute, or a part of it. The inner error is the meter's word on this attribute; the conversation goes on.
    pub async fn get(
        &mut self,
        attribute: CosemAttribute,
        selection: Option<Vec<u8>>,
    ) -> Result<Result<Value, ReadError>, TalkError> {
        let wanted = self.session.get(self.now(), attribute, selection);
        let wanted = self.request(wanted).await?;
        loop {
            match self.next_event().await? {
                ClientEvent::Value { request, value } if request == wanted => return Ok(Ok(value)),
                ClientEvent::Failed { request, error } if request == wanted => return Ok(Err(error)),
                _ => {}
            }
        }
    }

    /// Several attributes in as few requests as the meter allows; as many results, in the same order.
    pub async fn get_list(&mut self, wanted: &[CosemAttribute]) -> Result<Vec<Result<Value, ReadError>>, TalkError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let list = wanted.iter().map(|attribute| Selected::whole(*attribute)).collect();
        let request = self.session.get_list(self.now(), list);
        let awaited = self.request(request).await?;
        loop {
            match self.next_event().await? {
                ClientEvent::Values { request, results } if request == awaited => return Ok(results),
                _ => {}
            }
        }
    }

    /// Ends in order. Whatever goes wrong now changes nothing about what was read.
    pub async fn release(mut self) -> Result<(), TalkError> {
        let started = self.session.release(self.now());
        self.note(started);
        loop {
            if let ClientEvent::Released = self.next_event().await? {
                return Ok(());
            }
        }
    }

    /// Ends at once: says farewell, so that the meter lets go of the link, and waits for nothing.
    pub async fn hang_up(mut self) {
        let aborted = self.session.abort(self.now());
        self.note(aborted);
        let farewell = async {
            while let ClientOutput::Send(octets) = self.session.poll() {
                if self.link.send(&octets).await.is_err() {
                    return;
                }
            }
        };
        drop(tokio::time::timeout(HANG_UP_TIMEOUT, farewell).await);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The outputs of a session are drained also after an error, so the error waits.
    fn note(&mut self, result: Result<(), ClientError>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    async fn request(&mut self, request: Result<RequestId, ClientError>) -> Result<RequestId, TalkError> {
        match request {
            Ok(request) => Ok(request),
            Err(error) => {
                self.note(Err(error));
                loop {
                    self.next_event().await?;
                }
            }
        }
    }

    async fn next_event(&mut self) -> Result<ClientEvent, TalkError> {
        loop {
            // Checked in each round: a peer that never stops talking must not win over the deadline.
            if Instant::now() >= self.deadline {
                return Err(TalkError::OutOfTime);
            }
            match self.session.poll() {
                ClientOutput::Send(octets) => {
                    trace!(octets = octets.len(), "sent");
                    let sending = tokio::time::timeout_at(self.deadline, self.link.send(&octets)).await;
                    sending.map_err(|_| TalkError::OutOfTime)?.map_err(TalkError::Link)?;
                }
                ClientOutput::Event(event) => return Ok(event),
                ClientOutput::WaitUntil(at) => {
                    if let Some(failure) = self.failure.take() {
                        return Err(failure.into());
                    }
                    let wake = at.map_or(self.deadline, |at| (self.origin + at).min(self.deadline));
                    let received = tokio::time::timeout_at(wake, self.link.receive(&mut self.buffer[..])).await;
                    let input = match &received {
                        Ok(Ok(count)) => LinkInput::Received(&self.buffer[..*count]),
                        Ok(Err(_)) | Err(_) => LinkInput::Tick,
                    };
                    let handled = self.session.handle(self.origin.elapsed(), input);
                    self.note(handled);
                    if let Ok(Err(lost)) = received {
                        return Err(TalkError::Link(lost));
                    }
                }
            }
        }
    }
}

fn link_layer(addressing: &Addressing, octet_time_us: u32) -> Box<dyn Link + Send> {
    match *addressing {
        Addressing::Wrapper { client, server } => Box::new(WrapperClient::new(WrapperConfig::new(client, server))),
        Addressing::Hdlc { client, server } => {
            Box::new(HdlcClient::new(HdlcConfig { octet_time_us, ..HdlcConfig::new(client, server) }))
        }
        Addressing::Iec62056_21(_) | Addressing::Mbus(_) => unreachable!("whoever is called is not associated with"),
    }
}

fn client_config(meter: &MeterSettings) -> ClientConfig {
    let quirks = Quirks {
        no_release: meter.quirks.no_release,
        disconnect_first: meter.quirks.disconnect_first,
        blocks_from_zero: meter.quirks.blocks_from_zero,
        short_conformance_tag: meter.quirks.short_conformance_tag,
    };
    let authentication = match &meter.secret {
        Some(secret) => Authentication::Low(secret.password.clone()),
        None => Authentication::None,
    };
    ClientConfig { authentication, quirks, ..ClientConfig::default() }
}
