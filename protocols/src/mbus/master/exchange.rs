//! What each frame means in each step, and what silence means.

use std::time::Duration;

use super::{Job, Master, Patience, Purpose, Step};
use crate::mbus::address::{ANYBODY, SecondaryAddress};
use crate::mbus::frame::{Frame, control};
use crate::mbus::record::{Item, Records};
use crate::mbus::security::Key;
use crate::mbus::session::{MasterError, MasterEvent, Target};
use crate::mbus::transport::{Body, Telegram};

impl Master {
    pub(super) fn on_frame(&mut self, now: Duration, frame: Frame<'_>, is_damaged: bool) {
        match (frame, self.step) {
            // A single character in what is damaged is no acknowledgement.
            (Frame::Acknowledge, Step::Request) if !is_damaged => self.on_nothing(now),
            (Frame::Acknowledge, _) if !is_damaged => self.proceed(now),
            (Frame::Long { control: sent, address, ci, data }, Step::Request)
                if sent & !(control::ACD | control::DFC) == control::RSP_UD =>
            {
                let telegram = [&[ci], data].concat();
                self.on_telegram(now, sent & control::ACD != 0, address, telegram);
            }
            // Late, or of somebody else.
            _ => {}
        }
    }

    /// The step is done.
    fn proceed(&mut self, now: Duration) {
        match self.step {
            Step::Deselect if self.is_searching() => self.probe(now),
            Step::Deselect => self.enter(now, Step::Select),
            Step::Select | Step::Reset if self.resets_application() => self.enter(now, Step::ResetApplication),
            Step::Select | Step::Reset | Step::ResetApplication => self.enter(now, Step::Request),
            Step::Idle | Step::Request | Step::Release => self.finish(now),
        }
    }

    fn resets_application(&self) -> bool {
        let is_read = self.job.as_ref().is_some_and(|job| matches!(job.purpose, Purpose::Read));
        is_read && self.config.application_reset.is_some()
    }

    fn is_searching(&self) -> bool {
        self.job.as_ref().is_some_and(|job| matches!(job.purpose, Purpose::Search { .. }))
    }

    /// A question for alarms is answered with the single character when there are none.
    fn on_nothing(&mut self, now: Duration) {
        let Some(job) = &self.job else { return };
        if matches!(job.purpose, Purpose::Alarm) {
            self.event(MasterEvent::NoAlarm { target: job.target });
            self.wind_up(now);
        }
    }

    fn on_telegram(&mut self, now: Duration, has_alarm: bool, primary: u8, octets: Vec<u8>) {
        let Some(job) = &mut self.job else { return };
        let key = self.config.key.as_ref();
        let decoded = Telegram::decode(&octets, None, key);
        let address = decoded.as_ref().ok().and_then(|telegram| telegram.header.address).or_else(|| stated(&octets));
        let is_asked = match job.target {
            Target::Primary(ANYBODY) => true,
            Target::Primary(asked) => asked == primary,
            Target::Secondary(selection) => address.is_some_and(|address| selection.matches(address)),
        };
        if !is_asked {
            self.patience.was_other = address.or(self.patience.was_other);
            self.patience.was_damaged |= address.is_none();
            return;
        }
        if let Purpose::Search { found, .. } = &mut job.purpose {
            if let Some(address) = address.filter(|address| !found.contains(address)) {
                found.push(address);
                self.event(MasterEvent::Found { address, primary });
            }
            return self.probe(now);
        }
        if job.answer.telegrams.iter().any(|earlier| same_content(earlier, &octets, key)) {
            self.patience.was_same = true;
            return;
        }
        let is_last = !decoded.is_ok_and(|telegram| announces_more(&telegram));
        job.answer.telegrams.push(octets);
        job.answer.primary = primary;
        job.answer.has_alarm |= has_alarm;
        if is_last {
            let answer = job.answer.clone();
            self.event(MasterEvent::Answered(answer));
            return self.wind_up(now);
        }
        let limit = self.config.telegrams_max;
        if job.answer.telegrams.len() >= limit {
            return self.fail(now, MasterError::TooMany { limit });
        }
        job.count_bit = !job.count_bit;
        self.enter(now, Step::Request);
    }

    /// The answer did not come in time, or was damaged.
    pub(super) fn on_silence(&mut self, now: Duration) {
        if matches!(self.step, Step::Deselect | Step::Release) {
            return self.proceed(now);
        }
        let is_searching = self.is_searching();
        let retries_max = if is_searching { self.config.search_retries_max } else { self.config.retries_max };
        if self.patience.attempts <= retries_max {
            return self.attempt(now);
        }
        if is_searching {
            return self.on_probe_failed(now);
        }
        let Patience { attempts, was_damaged, was_other, was_same, .. } = self.patience;
        let timeout_ms = self.config.response_timeout().as_millis() as u64;
        self.fail(
            now,
            match was_other {
                _ if was_same => MasterError::Stuck,
                Some(address) => MasterError::OtherMeter { address },
                None if was_damaged => MasterError::Damaged { attempts },
                None => MasterError::Silent { attempts, timeout_ms },
            },
        );
    }

    /// Nobody acknowledged a selection: nobody is there. Otherwise there are several, or one that is not understood.
    fn on_probe_failed(&mut self, now: Duration) {
        let is_silent = self.step == Step::Select && !self.patience.was_damaged;
        let Some(Job { target: Target::Secondary(selection), purpose: Purpose::Search { search, .. }, .. }) =
            &mut self.job
        else {
            return;
        };
        let selection = *selection;
        if !is_silent && !search.divide(selection) {
            self.event(MasterEvent::Unresolved { selection });
        }
        self.probe(now);
    }

    /// Tries the next selection.
    fn probe(&mut self, now: Duration) {
        let Some(Job { target, purpose: Purpose::Search { search, .. }, count_bit, .. }) = &mut self.job else {
            return;
        };
        if let Some(selection) = search.next() {
            (*target, *count_bit) = (Target::Secondary(selection), true);
            return self.enter(now, Step::Select);
        }
        let searched = MasterEvent::Searched { probes: search.probes(), is_cut: search.is_cut() };
        self.event(searched);
        self.wind_up(now);
    }

    fn fail(&mut self, now: Duration, error: MasterError) {
        let Some(job) = &self.job else { return };
        self.event(MasterEvent::Failed { target: job.target, error });
        self.patience.is_strained = true;
        self.wind_up(now);
    }

    /// Leaves nobody selected.
    fn wind_up(&mut self, now: Duration) {
        if let Some(Job { target: Target::Secondary(_), purpose, .. }) = &mut self.job {
            // Nothing more is searched for.
            *purpose = Purpose::Read;
            return self.enter(now, Step::Release);
        }
        self.finish(now);
    }

    fn finish(&mut self, now: Duration) {
        self.step = Step::Idle;
        self.job = None;
        self.incoming.clear();
        if self.patience.is_strained {
            // An answer to what was repeated may still come, and is none to the next question.
            self.quiet_until = now + self.config.response_timeout();
        }
        self.patience.send_at = None;
    }
}

/// The address of a long header whose content cannot be read.
fn stated(octets: &[u8]) -> Option<SecondaryAddress> {
    match octets {
        [0x72, rest @ ..] => rest.first_chunk().map(|address| SecondaryAddress::from_octets(*address)),
        _ => None,
    }
}

fn announces_more(telegram: &Telegram) -> bool {
    let Body::Records(records) = &telegram.body else { return false };
    Records::new(records).any(|item| matches!(item, Ok(Item::MoreRecordsFollow(_))))
}

/// Whether two telegrams say the same, whatever their access numbers.
fn same_content(a: &[u8], b: &[u8], key: Option<&Key>) -> bool {
    match (Telegram::decode(a, None, key), Telegram::decode(b, None, key)) {
        (Ok(a), Ok(b)) => a.body == b.body,
        _ => a == b,
    }
}
