//! Secured conversations: how they begin, and the invocation counters that they use up.
//!
//! Ours come out of ranges that the outbox has written down as used ([`crate::outbox::CounterId`]). The first range after each start of the
//! gateway, and after each conversation that failed, begins at the greatest of three: where the outbox says that the last one ended; behind
//! the counter that the meter has accepted last, read by a client without security; the seconds since 2020 by the time of the cloud.
//! The last two are for an outbox that was lost, or restored from a copy: what it has forgotten lies behind one of them. Where neither is
//! known nothing is said under the key.
//!
//! Nobody vouches for what a client without security is told. Too low a counter changes nothing as long as the outbox or the time knows
//! better; a high one is believed up to [`BELIEVED_MAX`], so that nobody can use up a key by lying.
//!
//! Confirmations of ciphered pushes use such counters, too: [`reserve_for_pushes`].
//!
//! What is left open, all of it only where the outbox was lost or restored: counters that the meter has not heard since it accepted one, as
//! far as the time has not passed them; with `counter_from_meter` off, or in confirmations of pushes, more counters than seconds since the first start; without the
//! time, a liar in the meter's place.
//!
//! Keys that general-ciphering brings have counters of their own as meters count, and share ours: one that is drawn or agreed on anew for each
//! association sees none twice. Under static key pairs a key follows from the counter, so a range is also reserved under the pair: it may
//! outlive the global keys. What a meter says of its counter need not be the greatest under all keys; then its first refusal says so.
//!
//! Those of meters rise, too: what they have used is in memory at once and in the outbox at the end of each conversation. A gateway
//! that is killed forgets those of the conversation under way: what was recorded of it could be sent again, until the meter's first
//! answer in the next. A restored copy forgets as much as it is old.

use protocols::cosem::InterfaceClass;
use protocols::cosem::data_object::{DataObject, VALUE};
use protocols::dlms::apdu::CosemAttribute;
use protocols::dlms::client::ClientError;
use protocols::dlms::data::Data;
use protocols::dlms::security::{
    AgreementKey, Ciphered, CipheredConfig, Counter, Key, KeySet, KeyTransport, ReceivedCounters, SecuritySuite,
    Wrapping,
};
use protocols::metering::UtcMillis;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::error::OfKeys;
use super::memory::MeterMemory;
use super::session::{SessionError, within_store_timeout};
use super::talk::{Reserves, Talk, TalkError};
use crate::config::metering::{AssociationName, MeterSettings};
use crate::config::security::{CipherSettings, CounterObject};
use crate::outbox::{CounterId, OutboxError, OutboxHandle};
use crate::telemetry::{Metric, Metrics};
use crate::trust::ClockTrust;

/// One commit for so many APDUs. A start, or a failed conversation, loses as many at most: of 4 billion.
pub(super) const RANGE: u32 = 1_024;
/// Three quarters of all counters.
const BELIEVED_MAX: u32 = 0xc000_0000;
/// 2020-01-01, in seconds.
const EPOCH_S: i64 = 1_577_836_800;

/// What is known of counters between the sessions of a meter.
#[derive(Debug, Default)]
pub struct CounterMemory {
    /// Reserved, not used. `None` after a start, and after a conversation that failed.
    own: Option<Counter>,
    /// The greatest that meters have used. `None`: the outbox was not asked yet.
    received: Option<ReceivedCounters>,
    /// As far as the outbox has them.
    on_disk: ReceivedCounters,
    /// What the meter has asked for in a conversation that ended so.
    expected: Option<u32>,
    /// Under the key of a change that was cut short. All of this is of one key.
    with_next: bool,
    /// The meter has answered under that one.
    is_settled: bool,
}

/// Who keeps counters, and the time that they may begin at.
#[derive(Clone, Copy)]
pub struct Counters<'p> {
    pub outbox: &'p OutboxHandle,
    pub trust: &'p ClockTrust,
}

/// Associates as the meter's section says. Where a change of its keys was cut short, the meter has one of two: both are tried, over a
/// link that outlives the first.
pub async fn associate(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    counters: Counters<'_>,
    memory: &mut MeterMemory,
) -> Result<(), SessionError> {
    let Some(cipher) = &meter.security.cipher else { return Ok(talk.associate().await?) };
    if let Some(certificate) = cipher.certificate {
        certificate.check(counters.trust.best_known())?;
    }
    let memory = memory.counters.get_or_insert_default();
    let outcome = associate_under(talk, meter, counters, cipher, memory).await;
    let may_be_other = cipher.next.is_some() && !memory.is_settled;
    let outcome = match outcome {
        Err(error) if may_be_other && error.of_keys() != OfKeys::Nothing && !error.spoils_link() => {
            debug!(meter = %meter.name, error = %error.text(), "the meter is asked under the other of its two keys");
            memory.turn();
            associate_under(talk, meter, counters, cipher, memory).await
        }
        outcome => outcome,
    };
    // Initiate goes under the global key; what goes wrong behind it is not of the key.
    memory.is_settled |= outcome.is_ok() && meter.association == AssociationName::Negotiated;
    if outcome.is_ok() && memory.with_next && may_be_other {
        let hint = format!("meterpost-gateway keys {}", meter.name);
        warn!(meter = %meter.name, %hint, "the meter has the new key of a change that was cut short");
    }
    outcome
}

/// The same under one of the two.
async fn associate_under(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    counters: Counters<'_>,
    cipher: &CipherSettings,
    memory: &mut CounterMemory,
) -> Result<(), SessionError> {
    let mut expected = memory.expected.take().map(Some);
    loop {
        let ciphered = counters.prepare(talk, meter, cipher, memory, expected).await?;
        let ids = own_ids(cipher.config(memory.with_next));
        let reserves = (!ids.is_empty()).then(|| Reserves { outbox: counters.outbox.clone(), ids });
        talk.start_over(meter, Box::new(ciphered), reserves);
        match talk.associate().await {
            // Once in a conversation: what it asks for now, it was given.
            Err(TalkError::Secured(ClientError::CounterRefused { expected: asked })) if expected.is_none() => {
                info!(meter = %meter.name, "the meter asks for a greater invocation counter");
                memory.take_back(talk);
                memory.own = None;
                expected = Some(asked);
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// After a conversation: keeps what is left of our counters and what the meter has used of its own. What its objects are like is doubted
/// when the link broke.
pub async fn conclude<T>(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    counters: Counters<'_>,
    metrics: &Metrics,
    memory: &mut MeterMemory,
    outcome: Result<T, SessionError>,
) -> Result<T, SessionError> {
    let outcome = outcome.map_err(|error| match (error, talk.not_accepted.take()) {
        // What else is known says more.
        (SessionError::Talk(then), Some(why))
            if !then.is_wrong_password() && !matches!(then, TalkError::Counters(_)) =>
        {
            SessionError::NotAccepted { why, then }
        }
        (error, _) => error,
    });
    let is_of_protection = outcome.as_ref().is_err_and(|error| error.protection_error().is_some());
    metrics.add(Metric::ProtectionErrors, talk.protection_errors.max(u64::from(is_of_protection)));
    if outcome.as_ref().is_err_and(SessionError::broke_link) {
        memory.doubt_objects();
    }
    let (Some(cipher), Some(memory)) = (&meter.security.cipher, &mut memory.counters) else { return outcome };
    memory.take_back(talk);
    if let Err(error) = &outcome {
        memory.own = None;
        // Where nobody associates, it comes in answer to the first request.
        if let SessionError::Talk(TalkError::Secured(ClientError::CounterRefused { expected })) = error {
            memory.expected = *expected;
        }
    }
    let received = memory.received.clone().unwrap_or_default();
    let news = received.iter().filter_map(|(keys, title, counter)| {
        let is_new = memory.on_disk.greatest(keys, title) != Some(counter);
        let key = fingerprint(cipher.config(memory.with_next), keys).filter(|_| is_new)?;
        Some((CounterId { key, title }, counter.saturating_add(1)))
    });
    let news: Vec<(CounterId, u32)> = news.collect();
    if !news.is_empty() {
        let noted =
            counters.outbox.run(1, move |outbox| news.iter().try_for_each(|(id, next)| outbox.note_counter(id, *next)));
        match within_store_timeout(noted).await {
            Ok(()) => memory.on_disk = received,
            Err(error) => {
                warn!(meter = %meter.name, error = %error.text(), "its invocation counter is not on the disk; it is tried again");
            }
        }
    }
    match &outcome {
        Ok(_) => memory.is_settled = true,
        // Whoever hangs up has said no to this key, and the link for the other is gone.
        Err(error) if cipher.next.is_some() && !memory.is_settled && error.of_keys() != OfKeys::Nothing => {
            memory.turn();
        }
        Err(_) => {}
    }
    outcome
}

impl CounterMemory {
    /// Whether the meter has answered under the key that it is talked to by.
    pub(crate) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// To the other of two keys, of which nothing is known yet.
    fn turn(&mut self) {
        *self = Self { with_next: !self.with_next, ..Self::default() };
    }

    /// Takes from a conversation what outlives it.
    fn take_back(&mut self, talk: &mut Talk<'_>) {
        if let Some(ciphered) = talk.ciphered() {
            self.received = Some(ciphered.received().clone());
            self.own = Some(std::mem::replace(ciphered.counter_mut(), Counter::reserved(0, 0)));
        }
    }
}

impl Counters<'_> {
    /// `expected` is what the meter has asked for: a counter, or just a greater one.
    #[expect(clippy::option_option, reason = "nothing asked for, something greater, and this counter are three things")]
    async fn prepare(
        self,
        talk: &mut Talk<'_>,
        meter: &MeterSettings,
        cipher: &CipherSettings,
        memory: &mut CounterMemory,
        expected: Option<Option<u32>>,
    ) -> Result<Ciphered, SessionError> {
        if memory.received.is_none() {
            memory.on_disk = self.received(cipher.config(memory.with_next)).await?;
            memory.received = Some(memory.on_disk.clone());
        }
        let mut config = cipher.config(memory.with_next).clone();
        let own = match (own_ids(&config), memory.own.take()) {
            (ids, _) if ids.is_empty() => Counter::reserved(0, 0),
            (_, Some(own)) if !own.is_low() => own,
            (ids, own) => {
                let floor = if own.is_some() { 0 } else { self.floor(talk, meter, cipher, expected).await? };
                let range = within_store_timeout(reserve(self.outbox, ids, floor)).await?;
                Counter::reserved(range.start, range.end)
            }
        };
        if cipher.has_dedicated_key {
            config.dedicated = Some(drawn_key(config.suite));
        }
        match config.wrapping {
            Wrapping::Ciphering(KeyTransport::Wrapped) => config.transport.wrapped = Some(drawn_key(config.suite)),
            Wrapping::Ciphering(KeyTransport::OnePass) => {
                config.transport.ephemeral = Some(drawn_agreement_key(config.suite));
            }
            _ => {}
        }
        Ciphered::client(config, own, memory.received.clone().unwrap_or_default())
            .map_err(|error| TalkError::Secured(ClientError::Protection(error)).into())
    }

    /// What the outbox knows of those whom a meter's key is known to.
    async fn received(self, config: &CipheredConfig) -> Result<ReceivedCounters, SessionError> {
        let (ours, peer) = (config.title, config.peer);
        let mut received = Vec::new();
        for keys in [KeySet::GlobalUnicast, KeySet::Wrapped, KeySet::Agreed] {
            let Some(key) = fingerprint(config, keys) else { continue };
            let known = within_store_timeout(self.outbox.run(0, move |outbox| outbox.counters(key))).await?;
            let of_meters = known.into_iter().filter(|(title, next)| *title != ours && *next > 0);
            let of_peer = of_meters.filter(|(title, _)| peer.is_none_or(|peer| peer == *title));
            received.extend(of_peer.map(|(title, next)| (keys, title, next - 1)));
        }
        Ok(ReceivedCounters::known(received))
    }

    /// Where a range begins at the earliest, whatever the outbox says.
    #[expect(clippy::option_option, reason = "as for `prepare`")]
    async fn floor(
        self,
        talk: &mut Talk<'_>,
        meter: &MeterSettings,
        cipher: &CipherSettings,
        expected: Option<Option<u32>>,
    ) -> Result<u32, SessionError> {
        let by_meter = match (expected.flatten(), &cipher.counter) {
            (Some(expected), _) => Some(expected),
            (None, Some(object)) => read_counter(talk, meter, object).await?.map(|accepted| accepted.saturating_add(1)),
            (None, None) => None,
        };
        floor(by_meter, self.trust.now().and_then(seconds))
    }
}

/// Where counters may begin by what the meter says, as far as that is believed, and by the time.
fn floor(by_meter: Option<u32>, by_time: Option<u32>) -> Result<u32, SessionError> {
    match by_meter.filter(|told| *told > BELIEVED_MAX) {
        Some(told) => Err(SessionError::CounterBeyondBelief { told }),
        None => by_meter.into_iter().chain(by_time).max().ok_or(SessionError::CounterUnknown),
    }
}

/// A range for what is said to meters that come to us. None of them tells what it has accepted: the first range of a process begins behind
/// what the outbox and the time know, and there is none without the time.
pub(crate) async fn reserve_for_pushes(
    counters: Counters<'_>,
    id: CounterId,
    is_first: bool,
) -> Result<Counter, SessionError> {
    let floor = if is_first { floor(None, counters.trust.now().and_then(seconds))? } else { 0 };
    let range = within_store_timeout(reserve(counters.outbox, vec![id], floor)).await?;
    Ok(Counter::reserved(range.start, range.end))
}

/// Whether two clients of a meter count what they say together: then they have to share what is known of it.
pub(super) fn count_together(one: &MeterSettings, other: &MeterSettings) -> bool {
    let ids = |meter: &MeterSettings| {
        meter.security.cipher.as_ref().map(|cipher| own_ids(&cipher.config)).unwrap_or_default()
    };
    ids(one) == ids(other)
}

/// Of us, under the key of the meter, where there is one, and under static key pairs where a key follows from them and the counter.
fn own_ids(config: &CipheredConfig) -> Vec<CounterId> {
    let CipheredConfig { title, wrapping, .. } = *config;
    let is_static = wrapping == Wrapping::Ciphering(KeyTransport::StaticUnified);
    let keys = [Some(KeySet::GlobalUnicast), is_static.then_some(KeySet::Agreed)];
    let keys = keys.into_iter().flatten().filter_map(|keys| fingerprint(config, keys));
    keys.map(|key| CounterId { key, title }).collect()
}

/// What counters under these keys are kept by.
fn fingerprint(config: &CipheredConfig, keys: KeySet) -> Option<[u8; 16]> {
    match keys {
        KeySet::GlobalUnicast => config.keys.unicast.as_ref().map(Key::fingerprint),
        KeySet::Wrapped => config.transport.key_encrypting.as_ref().map(Key::fingerprint),
        KeySet::Agreed => config.transport.agreement_fingerprint(),
        KeySet::GlobalBroadcast | KeySet::Dedicated => None,
    }
}

fn drawn_key(suite: SecuritySuite) -> Key {
    let mut octets = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut octets[..]).expect("the system has a source of randomness");
    let octets = octets.get(..suite.key_bits() / 8).expect("a key has 16 or 32 octets");
    Key::from_octets(octets).expect("16 and 32 octets are a key")
}

/// Of the suite's curve.
fn drawn_agreement_key(suite: SecuritySuite) -> AgreementKey {
    let mut octets = Zeroizing::new([0_u8; 48]);
    let len = if suite == SecuritySuite::Suite2 { 48 } else { 32 };
    loop {
        getrandom::fill(&mut octets[..]).expect("the system has a source of randomness");
        // Hardly ever, what was drawn is above the order of the curve.
        if let Some(key) = octets.get(..len).and_then(|octets| AgreementKey::from_octets(octets).ok()) {
            return key;
        }
    }
}

/// The same range under all of `ids`: it begins behind the last one of each.
pub(super) async fn reserve(
    outbox: &OutboxHandle,
    ids: Vec<CounterId>,
    floor: u32,
) -> Result<std::ops::Range<u32>, OutboxError> {
    let reserved = outbox.run(0, move |outbox| {
        let mut range = floor..floor;
        for id in &ids {
            range = outbox.reserve_counters(*id, range.start, RANGE)?;
        }
        ids.iter().try_for_each(|id| outbox.note_counter(id, range.end))?;
        Ok(range)
    });
    reserved.await
}

fn seconds(now: UtcMillis) -> Option<u32> {
    u32::try_from(now.0 / 1000 - EPOCH_S).ok()
}

/// The counter that the meter has accepted last; `None` where it refuses to say.
async fn read_counter(
    talk: &mut Talk<'_>,
    meter: &MeterSettings,
    object: &CounterObject,
) -> Result<Option<u32>, SessionError> {
    talk.start_public(meter, &object.addressing);
    let read = async {
        talk.associate().await?;
        let attribute = CosemAttribute::new(DataObject::CLASS_ID, object.obis, VALUE);
        let value = talk.get(attribute, None).await?.ok();
        talk.release().await?;
        Ok(value.and_then(|value| u32::try_from(Data::from_bytes(&value.data).ok()?.integer()?).ok()))
    };
    match read.await {
        Err(TalkError::Session(error)) if error.is_refusal() => Ok(None),
        Err(source) => Err(SessionError::CounterUnread { obis: object.obis, source }),
        Ok(counter) => Ok(counter),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use protocols::dlms::security::SystemTitle;
    use protocols::uplink::GatewayId;

    use super::*;
    use crate::outbox::{Outbox, OutboxSettings};

    const ID: CounterId = CounterId { key: [7; 16], title: SystemTitle(*b"XMP\x01\x02\x03\x04\x05") };

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Send { count: u16, heard: bool },
        Fail,
        Kill,
        LoseOutbox,
        CopyOutbox,
        RestoreOutbox,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..600_u16, any::<bool>()).prop_map(|(count, heard)| Step::Send { count, heard }),
            2 => Just(Step::Fail),
            2 => Just(Step::Kill),
            1 => Just(Step::LoseOutbox),
            1 => Just(Step::CopyOutbox),
            1 => Just(Step::RestoreOutbox),
        ]
    }

    struct Life {
        outbox: Outbox,
        copy: Option<u32>,
        own: Option<Counter>,
        /// The last that the meter accepted, and whether it has heard all since.
        accepted: u32,
        has_heard: bool,
        used: HashSet<u32>,
    }

    fn fresh(known: Option<u32>) -> Outbox {
        let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
        let (mut outbox, _) = Outbox::in_memory(settings, Box::new(|| 1)).unwrap();
        outbox.transaction(|outbox| known.map_or(Ok(()), |next| outbox.note_counter(&ID, next))).unwrap();
        outbox
    }

    impl Life {
        /// As [`Counters::prepare`] and [`Talk`] do it.
        fn next(&mut self) -> u32 {
            let own = self.own.take().filter(|own| !own.is_low());
            let mut own = own.unwrap_or_else(|| {
                let floor = floor(Some(self.accepted + 1), None).unwrap();
                let reserved = self.outbox.transaction(|outbox| outbox.reserve_counters(ID, floor, RANGE));
                let range = reserved.unwrap();
                Counter::reserved(range.start, range.end)
            });
            let next = own.next().unwrap();
            self.own = Some(own);
            next
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Send { count, heard } => {
                    for _ in 0..count {
                        let next = self.next();
                        assert!(self.used.insert(next), "{next} twice");
                        self.accepted = if heard { next } else { self.accepted };
                        self.has_heard = heard;
                    }
                }
                Step::Fail => self.own = None,
                Step::Kill => {
                    self.own = None;
                    let outbox = std::mem::replace(&mut self.outbox, fresh(None));
                    self.outbox = outbox.reopen(Box::new(|| 1)).unwrap().0;
                }
                // What a meter has not heard only the outbox knows.
                Step::LoseOutbox | Step::RestoreOutbox if !self.has_heard => {}
                Step::LoseOutbox => (self.own, self.outbox) = (None, fresh(None)),
                Step::CopyOutbox => self.copy = self.outbox.counter(&ID).unwrap(),
                Step::RestoreOutbox => (self.own, self.outbox) = (None, fresh(self.copy)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Controls, seen to fail: what is reserved is not noted; the meter is not asked.
        #[test]
        fn no_counter_is_used_twice_whatever_becomes_of_the_outbox(steps in vec(step(), 1..40)) {
            let (outbox, used) = (fresh(None), HashSet::new());
            let mut life = Life { outbox, copy: None, own: None, accepted: 0, has_heard: true, used };
            for step in steps {
                life.take(step);
            }
        }
    }

    /// Negative control: note what is reserved under the last id only.
    #[tokio::test]
    async fn a_range_under_two_keys_begins_behind_the_last_of_each() {
        let outbox = OutboxHandle::inline(fresh(Some(100))).0;
        let other = CounterId { key: [8; 16], ..ID };
        outbox.run(0, move |outbox| outbox.note_counter(&other, 5_000)).await.unwrap();
        let range = reserve(&outbox, vec![ID, other], 0).await.unwrap();
        assert_eq!(range, 5_000..5_000 + RANGE);
        for id in [ID, other] {
            assert_eq!(reserve(&outbox, vec![id], 0).await.unwrap().start, range.end);
        }
    }

    #[test]
    fn counters_begin_at_the_greatest_that_is_known_and_a_liar_is_not_believed() {
        assert_eq!(floor(Some(5), Some(7)).unwrap(), 7);
        assert_eq!(floor(Some(9), Some(7)).unwrap(), 9);
        assert_eq!(floor(None, Some(7)).unwrap(), 7);
        assert!(matches!(floor(None, None), Err(SessionError::CounterUnknown)));
        let beyond = floor(Some(BELIEVED_MAX + 1), Some(7));
        assert!(matches!(beyond, Err(SessionError::CounterBeyondBelief { told }) if told == BELIEVED_MAX + 1));
        assert_eq!(seconds(UtcMillis(EPOCH_S * 1000 + 61_999)), Some(61));
        assert_eq!(seconds(UtcMillis(0)), None);
    }
}
