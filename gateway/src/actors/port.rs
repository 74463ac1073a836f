//! A port at which a meter pushes telegrams: P1, SML, D0, DLMS; or a receiver of wireless M-Bus, which hears several.
//!
//! Owns: the medium and the [`PushPort`]. Fed by: the meter. Feeds: the outbox. Bound: one portion of bytes and what it says; while
//! the outbox does not take that, the port is not read, and the meter will say most of it again. On failure of the medium:
//! closed first, opened again after 1 s doubling to 1 min. At once it is opened anew where it is a connection on which nothing comes for too
//! long, and where the outbox took so long that what waits there is old.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use protocols::dlms::security::SystemTitle;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::line::MediumFactory;
use super::supervisor::DeathNotice;
use crate::backoff::Backoff;
use crate::config::metering::{MediumSettings, PortSettings, PushProtocol};
use crate::link::{ByteLink, LinkLost};
use crate::outbox::{Level, OutboxError, StoreRequest};
use crate::push::{Confirmation, Heard, PushPort, Refusal, Room, Trouble};
use crate::reading::counters::reserve_for_pushes;
use crate::reading::session::{HELD_STOPPED, SessionError, SessionParts};
use crate::recurring::Recurring;
use crate::telemetry::Metric;
use crate::trust::Untrusted;

#[derive(Clone)]
pub struct PortParts {
    pub session: Arc<SessionParts>,
    pub medium: MediumFactory,
    pub seed: u64,
}

pub struct Port {
    running: Option<(PortParts, Arc<PortSettings>, watch::Receiver<()>)>,
    _notice: DeathNotice,
}

impl Port {
    pub fn new(
        parts: PortParts,
        settings: Arc<PortSettings>,
        running: watch::Receiver<()>,
        notice: DeathNotice,
    ) -> Self {
        Self { running: Some((parts, settings, running)), _notice: notice }
    }
}

impl Actor for Port {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
        let (parts, settings, running) = self.running.take().expect("an actor starts once");
        ctx.spawn(run(parts, settings, running).into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_MAX: Duration = Duration::from_secs(60);
const STORE_PAUSE: Duration = Duration::from_secs(1);
const RECEIVE_OCTETS: usize = 4096;
/// What comes while a port is not read waits in buffers, and is stamped when it is read. Most meters speak every 1 to 10 s, and commits of a
/// slow SD card take a second or two: a stamp that is so late is still that of its telegram.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// Listens until the port is withdrawn.
pub async fn run(parts: PortParts, settings: Arc<PortSettings>, mut running: watch::Receiver<()>) {
    let listening = listen(&parts, &settings);
    tokio::select! {
        biased;
        () = listening => {}
        // Nothing is ever sent: this is the sender's end.
        _ = running.changed() => {}
    }
}

async fn listen(parts: &PortParts, settings: &Arc<PortSettings>) {
    let session = &parts.session;
    let mut port = PushPort::new(settings.clone(), session.inventory.clone());
    if let Some(keys) = &settings.keys {
        port.resume(&kept(session, keys.encryption.fingerprint()).await);
    }
    for key in port.keys() {
        port.resume_of(key, &kept(session, key).await);
    }
    let medium = (parts.medium)(&settings.medium);
    let mut ear = Ear {
        parts,
        settings,
        is_connection: !medium.stays_open(),
        backoff: Backoff::new(OPEN_FIRST, OPEN_MAX, parts.seed),
        troubles: Troubles::default(),
        voice: Voice::default(),
    };
    loop {
        let cause = match medium.open().await {
            Ok(mut link) => {
                let ended = match start(&mut port, &mut *link).await {
                    Ok(()) => ear.hear(&mut port, &mut *link).await,
                    Err(lost) => Ended::Lost(lost),
                };
                // At once: a meter may be about to speak. In its state and in the log it is already.
                let Ended::Lost(lost) = ended else { continue };
                session.metrics.add(Metric::LinesLost, 1);
                lost.to_string()
            }
            Err(error) => {
                session.metrics.add(Metric::LineOpenErrors, 1);
                error.to_string()
            }
        };
        port.closed(&cause);
        let pause = ear.backoff.pause();
        warn!(port = %settings.name, error = %cause, ?pause, "the port is closed and will be opened again");
        tokio::time::sleep(pause).await;
    }
}

/// Asked until the outbox answers: without it, what was recorded before could be played back.
async fn kept(session: &SessionParts, key: [u8; 16]) -> Vec<(SystemTitle, u32)> {
    loop {
        match session.outbox.run(0, move |outbox| outbox.counters(key)).await {
            Ok(kept) => return kept,
            Err(error) => warn!(%error, "how far the meter has counted its pushes cannot be read; it is tried again"),
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
}

/// Says what has to be said first.
async fn start(port: &mut PushPort, link: &mut dyn ByteLink) -> Result<(), LinkLost> {
    let first = port.reopened();
    if first.is_empty() { Ok(()) } else { link.send(&first).await }
}

/// Why a medium that was open is opened anew.
enum Ended {
    Lost(LinkLost),
    /// Nothing at all has come for so long as a port may be silent. The other end of a connection may have lost its power, and nobody says so.
    Silent,
    /// The port was not read for so long that what waits there cannot be dated any more. With the link go the buffers, of both its ends.
    Stale,
}

/// Listens at a port, over all openings of its medium.
struct Ear<'a> {
    parts: &'a PortParts,
    settings: &'a PortSettings,
    /// That it is dead shows only when something is sent, which at a port is seldom: it is made anew when nothing comes. A serial port
    /// stays open, as its modem lines may feed an optical head; to an address of ours meters connect by themselves.
    is_connection: bool,
    backoff: Backoff,
    troubles: Troubles,
    voice: Voice,
}

impl Ear<'_> {
    /// Listens while the link lives.
    async fn hear(&mut self, port: &mut PushPort, link: &mut dyn ByteLink) -> Ended {
        let Self { parts, settings, .. } = *self;
        let session = &parts.session;
        let mut octets = vec![0; RECEIVE_OCTETS];
        let mut heard_at = tokio::time::Instant::now();
        let mut octets_at = heard_at;
        let mut from = (link.end(), link.piece());
        loop {
            let look_at = tokio::time::Instant::now() + port.look_every();
            let wake_at = look_at.min(heard_at + settings.silent_after);
            let count = match tokio::time::timeout_at(wake_at, link.receive(&mut octets)).await {
                Ok(Ok(count)) => count,
                Ok(Err(lost)) => return Ended::Lost(lost),
                Err(_) => 0,
            };
            if count > 0 {
                octets_at = tokio::time::Instant::now();
            }
            if (link.end(), link.piece()) != from {
                from = (link.end(), link.piece());
                port.turn_to(from.0);
            }
            // Of one moment: until all of it is stored the clock may be set, and the cloud may tell the time.
            let (received_at, untrusted) = (session.clock.wall(), session.trust.untrusted());
            port.set_room(Room {
                for_optional: session.outbox.level() == Level::Free,
                for_strangers: !session.outbox.held_stopped(),
            });
            port.set_clock_correction(session.trust.correction_ms());
            let mut heard = port.receive(&mut octets[..count], received_at);
            port.look_for_silence(session.clock.monotonic());
            let is_alive = heard.is_alive;
            if heard.telegrams > 0 {
                link.vouch();
            }
            session.metrics.add(Metric::ConnectionsDropped, link.hung_up());
            tell(session, settings, &heard, &mut self.troubles.of_port);
            tell_of_meters(session, settings, &heard, &mut self.troubles.of_meters);
            // From `receive` on it counts as stored: before it is, nothing is sent that may fail, and nobody is told anything.
            let began_at = tokio::time::Instant::now();
            let is_stored = self.keep(port, std::mem::take(&mut heard.requests), untrusted).await;
            for answer in self.voice.answers(parts, settings, port, heard, is_stored).await {
                if let Err(lost) = link.send(&answer).await {
                    return Ended::Lost(lost);
                }
            }
            if is_alive {
                self.backoff.reset();
                heard_at = tokio::time::Instant::now();
            } else if heard_at.elapsed() >= settings.silent_after {
                self.tell_silence(port);
                if self.is_connection && octets_at.elapsed() >= settings.silent_after {
                    debug!(port = %settings.name, "nothing has come: it is connected to anew");
                    return Ended::Silent;
                }
                heard_at = tokio::time::Instant::now();
            }
            if self.is_stale(began_at.elapsed()) {
                return Ended::Stale;
            }
        }
    }

    /// Stores what was heard. False where it is not kept: then none of it counts as stored.
    ///
    /// What the gateway has stamped is good where the clock was trusted when it came. Where it was not, it is kept by the uptime at which it
    /// came, whatever the clock shows when it is stored: with what the same clock showed at the start of this boot. So nothing is left
    /// to bring to another clock.
    async fn keep(&self, port: &mut PushPort, requests: Vec<StoreRequest>, untrusted: Option<Untrusted>) -> bool {
        let mut is_stored = true;
        for request in requests {
            is_stored &= store(self.parts, self.settings, StoreRequest { untrusted, ..request }).await;
        }
        if !is_stored {
            port.forget();
        }
        is_stored
    }

    /// Whether what came while the port was not read is to be thrown away unread: nobody knows when it came, where telegrams do not say it
    /// themselves, as those of P1 and most of DLMS do. At an address of ours it is read
    /// late, and stamped late where its meter has no clock: closing that would hang up on all meters, which push seldom, and most of them
    /// by their own clocks.
    fn is_stale(&self, unread_for: Duration) -> bool {
        let is_dated_here = matches!(
            self.settings.protocol,
            PushProtocol::Sml { .. } | PushProtocol::D0 { .. } | PushProtocol::Wmbus { .. }
        );
        let is_listener = matches!(self.settings.medium, MediumSettings::Listen { .. });
        let is_stale = unread_for >= STALE_AFTER && is_dated_here && !is_listener;
        if is_stale {
            warn!(
                port = %self.settings.name, ?unread_for,
                "the outbox kept the port waiting: what came meanwhile cannot be dated and is not read, and the port is opened anew"
            );
        }
        is_stale
    }

    /// There was no good telegram for so long as there may be none.
    fn tell_silence(&mut self, port: &mut PushPort) {
        let (trouble, cause) = port.silent();
        let now = self.parts.session.clock.monotonic();
        // Of the others each telegram was told.
        if matches!(trouble, Trouble::Silence | Trouble::Frame)
            && let Some(times) = self.troubles.of_port.count(Trouble::Silence, now)
        {
            let (port, hint) = (&self.settings.name, trouble.hint());
            warn!(%port, error = %cause, hint, times, "the port says nothing");
        }
    }
}

/// What was said of troubles, and is not said again at once: of the port, and of meters that have a section.
#[derive(Default)]
struct Troubles {
    of_port: Recurring<Trouble>,
    of_meters: Recurring<(Arc<str>, Trouble)>,
}

/// Tells meters that their pushes are stored.
#[derive(Default)]
struct Voice {
    /// Since the start of this port counters were reserved: the outbox knows where they go on.
    has_counters: bool,
    troubles: Recurring<()>,
}

impl Voice {
    /// What is said at the port after this was heard, in this order. All of it is made before any is sent: that a push is stored is known when
    /// it comes again, also where the link is lost meanwhile.
    async fn answers(
        &mut self,
        parts: &PortParts,
        settings: &PortSettings,
        port: &mut PushPort,
        heard: Heard,
        is_stored: bool,
    ) -> Vec<Vec<u8>> {
        let Heard { mut answers, closings, confirmations, unconfirmed, .. } = heard;
        if !is_stored {
            return answers;
        }
        answers.extend(closings.into_iter().filter_map(|closing| port.close_blocks(closing)));
        for _ in 0..unconfirmed {
            let cause = "nobody can verify what it says (accept_unauthenticated)";
            self.keep_quiet(&parts.session, settings, cause);
        }
        for confirmation in confirmations {
            answers.extend(self.confirm(parts, settings, port, confirmation).await);
        }
        answers
    }

    /// The octets to send; a meter that is not told sends again.
    async fn confirm(
        &mut self,
        parts: &PortParts,
        settings: &PortSettings,
        port: &mut PushPort,
        confirmation: Confirmation,
    ) -> Option<Vec<u8>> {
        let session = &parts.session;
        let mut unreserved = None;
        if confirmation.is_sealed()
            && let Some(id) = port.wants_counters()
        {
            match reserve_for_pushes(session.counters(), id, !self.has_counters).await {
                Ok(counter) => {
                    self.has_counters = true;
                    port.give_counters(counter);
                }
                Err(error) => unreserved = Some(why_unreserved(&error)),
            }
        }
        // Without counters, too: so it is known when it comes again.
        match port.confirm(confirmation) {
            Ok(octets) => {
                session.metrics.add(Metric::PushesConfirmed, 1);
                Some(octets)
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let told = unreserved.unwrap_or_else(|| format!("{error}{}", cause.unwrap_or_default()));
                self.keep_quiet(session, settings, &told)
            }
        }
    }

    fn keep_quiet(&mut self, session: &SessionParts, settings: &PortSettings, cause: &str) -> Option<Vec<u8>> {
        session.metrics.add(Metric::PushesUnconfirmed, 1);
        if let Some(times) = self.troubles.count((), session.clock.monotonic()) {
            let hint = "it will push again: does it use the key in encryption_key_file, and is the cloud reached?";
            warn!(port = %settings.name, error = %cause, hint, times, "a meter cannot be told that its push is stored");
        }
        None
    }
}

fn why_unreserved(error: &SessionError) -> String {
    match error {
        SessionError::CounterUnknown => {
            "the cloud has not told the time, by which our invocation counter begins".to_owned()
        }
        other => other.text(),
    }
}

/// Counts what was heard, and says what of it could not be used.
fn tell(session: &SessionParts, settings: &PortSettings, heard: &Heard, recurring: &mut Recurring<Trouble>) {
    let Heard { telegrams, refused, problems, optional_skipped, noise, repeated, .. } = heard;
    session.metrics.add(Metric::PushesRepeated, *repeated);
    session.metrics.add(Metric::OptionalSkipped, *optional_skipped);
    session.metrics.add(Metric::TelegramsRead, *telegrams);
    session.metrics.add(Metric::PortNoise, *noise);
    session.metrics.add(Metric::FieldProblems, problems.len() as u64);
    session.metrics.add(Metric::TelegramsRefused, refused.len() as u64);
    let of = |trouble| refused.iter().filter(|refusal| refusal.trouble == trouble).count() as u64;
    session.metrics.add(Metric::TelegramsCrcInvalid, of(Trouble::Crc));
    session.metrics.add(Metric::TelegramsUnverified, of(Trouble::Protection));
    session.metrics.add(Metric::TelegramsReplayed, of(Trouble::Replayed));
    let now = session.clock.monotonic();
    for Refusal { trouble, text } in refused {
        if let Some(times) = recurring.count(*trouble, now) {
            warn!(port = %settings.name, error = %text, hint = trouble.hint(), times, "a telegram could not be used");
        }
    }
    for problem in problems {
        let trouble = Trouble::Line;
        if let Some(times) = recurring.count(trouble, now) {
            warn!(port = %settings.name, error = %problem, hint = trouble.hint(), times, "a line or value could not be used");
        }
    }
}

/// The same of meters that have sections, and of those that have none.
fn tell_of_meters(
    session: &SessionParts,
    settings: &PortSettings,
    heard: &Heard,
    of_meters: &mut Recurring<(Arc<str>, Trouble)>,
) {
    let Heard { refused_of, repeated_of, ignored, strangers, .. } = heard;
    session.metrics.add(Metric::TelegramsRefused, refused_of.len() as u64);
    session.metrics.add(Metric::TelegramsRepeated, *repeated_of);
    session.metrics.add(Metric::TelegramsIgnored, *ignored);
    let of = |troubles: &[Trouble]| {
        refused_of.iter().filter(|(_, refusal)| troubles.contains(&refusal.trouble)).count() as u64
    };
    session.metrics.add(Metric::TelegramsUnverified, of(&[Trouble::WrongKey, Trouble::InClear]));
    session.metrics.add(Metric::TelegramsReplayed, of(&[Trouble::Replayed]));
    let now = session.clock.monotonic();
    for (meter, Refusal { trouble, text }) in refused_of {
        if let Some(times) = of_meters.count((meter.clone(), *trouble), now) {
            let hint = trouble.hint();
            warn!(port = %settings.name, %meter, error = %text, hint, times, "a telegram could not be used");
        }
    }
    for stranger in strangers {
        let (address, rssi_dbm) = (stranger.address, stranger.rssi_dbm);
        info!(
            port = %settings.name, meter = %address, rssi_dbm,
            "a meter is heard that no section names\nhint: to store what it says, add\n{}",
            stranger.section(&settings.name)
        );
    }
}

/// Tries until the outbox takes it; what a closed outbox does not take, nobody will. False of what is not kept.
async fn store(parts: &PortParts, settings: &PortSettings, mut request: StoreRequest) -> bool {
    let session = &parts.session;
    request.cursors_as_of = session.outbox.cursors_epoch();
    let mut told = Recurring::default();
    loop {
        match session.outbox.store(request.clone()).await {
            Ok(outcome) => {
                session.metrics.add(Metric::ReadingsStored, outcome.stored as u64);
                session.metrics.add(Metric::ReadingsRepeated, outcome.repeated as u64);
                debug!(port = %settings.name, stored = outcome.stored, "telegram stored");
                return true;
            }
            // Said once: from now on the port takes nothing of a stranger.
            Err(error @ OutboxError::HeldFull { .. }) if request.hold_identity => {
                session.metrics.add(Metric::HeldReadsStopped, 1);
                error!(port = %settings.name, %error, "{HELD_STOPPED}");
                return false;
            }
            Err(error) => {
                session.metrics.add(Metric::StoreErrors, 1);
                if let Some(times) = told.count((), session.clock.monotonic()) {
                    let hint =
                        "registers go on counting, momentary values are missed: is the disk full, or the uplink gone?";
                    error!(port = %settings.name, %error, hint, times, "the outbox did not take a telegram; it is tried again");
                }
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
