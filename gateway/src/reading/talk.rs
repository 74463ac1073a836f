//! One conversation with one meter: drives a DLMS client session over a byte link, with a deadline on everything.

use std::time::Duration;

use protocols::dlms::acse::Diagnostic;
use protocols::dlms::apdu::{CosemAttribute, CosemMethod};
use protocols::dlms::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientOutput, ClientSession, Ignored, Invoked,
    PreEstablished, Quirks, ReadError, RequestError, RequestId, Selected, Value,
};
use protocols::dlms::security::{Challenge, Ciphered, ProtectionError};
use protocols::hdlc::{HdlcClient, HdlcConfig};
use protocols::iec62056_21::SessionError as CallError;
use protocols::link::{Link, LinkInput};
use protocols::mbus::{MasterError, ReadoutError, SecurityError, TelegramError};
use protocols::wrapper::{WrapperClient, WrapperConfig};
use tokio::time::Instant;
use tracing::{debug, trace, warn};

use super::counters::reserve;
use crate::config::metering::{Addressing, AssociationName, MeterSettings};
use crate::config::security::Proof;
use crate::link::{ByteLink, LinkLost};
use crate::outbox::{CounterId, OutboxError, OutboxHandle};

/// Over UDP: how often a request is sent, how long its answer is waited for, and how long it may be without being cut into fragments, of
/// which each may get lost.
const DATAGRAM_ATTEMPTS: u8 = 4;
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(10);
const DATAGRAM_APDU_OCTETS: u16 = 1_400;

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TalkError {
    #[error(transparent)]
    Session(#[from] ClientError),
    /// The same of a conversation with system titles and mostly keys.
    #[error(transparent)]
    Secured(ClientError),
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
    /// Nothing is said under a key without an invocation counter that is written down as used.
    #[error("no invocation counters can be reserved")]
    Counters(#[source] OutboxError),
}

impl TalkError {
    /// The link may hold anything now: it has to be opened anew.
    pub fn spoils_link(&self) -> bool {
        matches!(self, Self::Link(_))
    }

    /// The link ended in the midst, or nothing came over it any more. Whoever parametrises a meter anew, or restarts it, ends its links.
    /// That its time was up says nothing: a slow line would go through the same again and again.
    pub(super) fn broke_link(&self) -> bool {
        let is_of_link = |error: &ClientError| {
            matches!(error, ClientError::Link { .. } | ClientError::Closed { .. } | ClientError::Silent { .. })
        };
        self.spoils_link() || self.client_error().is_some_and(is_of_link)
    }

    pub(super) const fn client_error(&self) -> Option<&ClientError> {
        match self {
            Self::Session(error) | Self::Secured(error) => Some(error),
            _ => None,
        }
    }

    /// The meter does not take the password or the keys, or wants some.
    pub fn is_wrong_password(&self) -> bool {
        let is_rejected = matches!(
            self.client_error(),
            Some(
                ClientError::Rejected {
                    diagnostic: Diagnostic::AUTHENTICATION_FAILURE | Diagnostic::AUTHENTICATION_REQUIRED,
                    ..
                } | ClientError::ProofRefused(_)
                    | ClientError::Undeciphered
            )
        );
        is_rejected || matches!(self, Self::Call(CallError::PasswordRefused))
    }

    /// The meter answered, and will answer the same next time.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Session(error) | Self::Secured(error) => error.is_refusal(),
            Self::Call(error) => matches!(error, CallError::PasswordRefused | CallError::NotOffered { .. }),
            Self::Telegram(_) | Self::Records(_) => true,
            Self::Bus(_) | Self::Link(_) | Self::OutOfTime | Self::Counters(_) => false,
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
            text.push_str(match self {
                Self::Secured(_) => ": are keys and password_file of its section right, and does it know client_title?",
                _ => ": is password_file of its section right?",
            });
        }
        text.push_str(self.hint());
        text
    }
}

/// The octets of one read from the medium.
const RECEIVE_OCTETS: usize = 2048;
/// For a farewell that nobody waits for.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that ciphers or not, over a link of any kind.
type Session = ClientSession<Box<dyn Link + Send>, Option<Box<Ciphered>>>;

/// Where a conversation has more invocation counters from.
pub(super) struct Reserves {
    pub(super) outbox: OutboxHandle,
    pub(super) ids: Vec<CounterId>,
}

pub struct Talk<'l> {
    link: &'l mut dyn ByteLink,
    octet_time_us: u32,
    session: Session,
    reserves: Option<Reserves>,
    origin: Instant,
    deadline: Instant,
    failure: Option<ClientError>,
    buffer: Box<[u8; RECEIVE_OCTETS]>,
    /// Why the last answer that was passed over was not accepted, and how many were.
    pub(super) not_accepted: Option<ProtectionError>,
    pub(super) protection_errors: u64,
}

impl<'l> Talk<'l> {
    /// A conversation without ciphering that ends by `deadline` at the latest. What has arrived before is thrown away.
    pub fn new(
        link: &'l mut dyn ByteLink,
        meter: &MeterSettings,
        octet_time_us: u32,
        deadline: Instant,
    ) -> Result<Self, TalkError> {
        link.clear_input().map_err(TalkError::Link)?;
        Ok(Self {
            link,
            octet_time_us,
            session: session(&meter.addressing, octet_time_us, client_config(meter), None),
            reserves: None,
            origin: Instant::now(),
            deadline,
            failure: None,
            buffer: Box::new([0; RECEIVE_OCTETS]),
            not_accepted: None,
            protection_errors: 0,
        })
    }

    /// The next association over the same link, with system titles and mostly keys.
    pub(super) fn start_over(&mut self, meter: &MeterSettings, ciphered: Box<Ciphered>, reserves: Option<Reserves>) {
        self.session = session(&meter.addressing, self.octet_time_us, client_config(meter), Some(ciphered));
        (self.reserves, self.failure) = (reserves, None);
    }

    /// The next association over the same link, of a client without any security.
    pub(super) fn start_public(&mut self, meter: &MeterSettings, addressing: &Addressing) {
        let (authentication, pre_established) = (Authentication::None, None);
        let config = ClientConfig { authentication, pre_established, ..client_config(meter) };
        self.session = session(addressing, self.octet_time_us, config, None);
        (self.reserves, self.failure) = (None, None);
    }

    /// Keys and counters of the association, where it has some.
    pub(super) fn ciphered(&mut self) -> Option<&mut Ciphered> {
        self.session.protection_mut().as_deref_mut()
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

    /// Gives one attribute an encoded value. It is sent once: when the conversation breaks, nobody knows whether the meter took it.
    pub async fn set(
        &mut self,
        attribute: CosemAttribute,
        value: Vec<u8>,
    ) -> Result<Result<(), RequestError>, TalkError> {
        let wanted = self.session.set(self.now(), attribute, value);
        let wanted = self.request(wanted).await?;
        loop {
            match self.next_event().await? {
                ClientEvent::Written { request, mut results } if request == wanted => {
                    return Ok(results.pop().expect("there is a result for what was written"));
                }
                _ => {}
            }
        }
    }

    /// Invokes one method, once as well.
    pub async fn invoke(&mut self, method: CosemMethod, parameters: Vec<u8>) -> Result<Invoked, TalkError> {
        let wanted = self.session.invoke(self.now(), method, Some(parameters));
        let wanted = self.request(wanted).await?;
        loop {
            match self.next_event().await? {
                ClientEvent::Invoked { request, mut results } if request == wanted => {
                    return Ok(results.pop().expect("there is a result for what was invoked"));
                }
                _ => {}
            }
        }
    }

    /// Ends in order. Whatever goes wrong now changes nothing about what was read.
    pub async fn release(&mut self) -> Result<(), TalkError> {
        let started = self.session.release(self.now());
        self.note(started);
        loop {
            if let ClientEvent::Released = self.next_event().await? {
                return Ok(());
            }
        }
    }

    /// Ends at once: says farewell, so that the meter lets go of the link, and waits for nothing.
    pub async fn hang_up(&mut self) {
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

    /// Long before the session runs out of invocation counters: one answer in small blocks takes hundreds.
    async fn reserve_more(&mut self) -> Result<(), TalkError> {
        let (Some(ciphered), Some(reserves)) = (self.session.protection_mut(), &self.reserves) else { return Ok(()) };
        let counter = ciphered.counter_mut();
        if counter.is_low() {
            let reserved =
                tokio::time::timeout_at(self.deadline, reserve(&reserves.outbox, reserves.ids.clone(), 0)).await;
            let range = reserved.map_err(|_| TalkError::OutOfTime)?.map_err(TalkError::Counters)?;
            // Others under the same key may have reserved in between.
            counter.skip_to(range.start);
            counter.extend(range.end);
        }
        Ok(())
    }

    async fn next_event(&mut self) -> Result<ClientEvent, TalkError> {
        loop {
            // Checked in each round: a peer that never stops talking must not win over the deadline.
            if Instant::now() >= self.deadline {
                return Err(TalkError::OutOfTime);
            }
            self.reserve_more().await?;
            match self.session.poll() {
                ClientOutput::Send(octets) => {
                    trace!(octets = octets.len(), "sent");
                    let sending = tokio::time::timeout_at(self.deadline, self.link.send(&octets)).await;
                    sending.map_err(|_| TalkError::OutOfTime)?.map_err(TalkError::Link)?;
                }
                ClientOutput::Event(ClientEvent::Ignored(Ignored::Protection(error))) => {
                    // Whoever sent it: the meter may still answer.
                    debug!(%error, "an answer was not accepted");
                    self.protection_errors += 1;
                    self.not_accepted = Some(error);
                }
                ClientOutput::Event(ClientEvent::ShortNames(Err(error))) => {
                    let hint = "may its client see the object_list of 0xFA00?";
                    warn!(%error, hint, "the meter does not tell its short names: nothing of it can be asked for");
                }
                ClientOutput::Event(event) => {
                    self.not_accepted = None;
                    return Ok(event);
                }
                ClientOutput::WaitUntil(at) => {
                    if let Some(failure) = self.failure.take() {
                        let is_secured = self.session.protection().is_some();
                        return Err(if is_secured { TalkError::Secured(failure) } else { failure.into() });
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

fn session(
    addressing: &Addressing,
    octet_time_us: u32,
    config: ClientConfig,
    ciphered: Option<Box<Ciphered>>,
) -> Session {
    ClientSession::with_protection(link_layer(addressing, octet_time_us, &config), config, ciphered)
}

fn link_layer(addressing: &Addressing, octet_time_us: u32, session: &ClientConfig) -> Box<dyn Link + Send> {
    match *addressing {
        Addressing::Wrapper { client, server } => {
            let mut config = WrapperConfig::new(client, server);
            if session.attempts > 1 {
                // It repeats.
                config.response_timeout_ms = 0;
            }
            Box::new(WrapperClient::new(config))
        }
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
    let authentication = match &meter.security.proof {
        Proof::None => Authentication::None,
        Proof::Low(password) => Authentication::Low(password.clone()),
        Proof::High { how, challenge_octets } => {
            let mut octets = vec![0; *challenge_octets];
            getrandom::fill(&mut octets).expect("the system has a source of randomness");
            let challenge = Challenge::new(octets).expect("the settings allow no other lengths");
            Authentication::High { how: how.clone(), challenge }
        }
    };
    let pre_established = (meter.association == AssociationName::PreEstablished).then(PreEstablished::default);
    let referencing = meter.referencing;
    let proposed = if meter.sends_commands { ClientConfig::PROPOSED_WITH_COMMANDS } else { ClientConfig::PROPOSED };
    let mut config =
        ClientConfig { authentication, quirks, proposed, pre_established, referencing, ..ClientConfig::default() };
    if meter.over_datagrams {
        (config.attempts, config.response_timeout) = (DATAGRAM_ATTEMPTS, DATAGRAM_PATIENCE);
        config.max_receive_pdu_size = DATAGRAM_APDU_OCTETS;
    }
    config
}
