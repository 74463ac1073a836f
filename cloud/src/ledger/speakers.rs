//! Who speaks under one gateway id. It must be one; two that were given the same id are told by what each knows.
//!
//! A status names every incarnation of its gateway's outbox and the certificate that it shows the broker: its *marks* are the
//! newest incarnation and the certificate. A mark that a later status does not know is *gone*: the outbox was lost or set back,
//! the certificate renewed. That happens once and the mark is never heard again, unless it belongs to another gateway that
//! still runs: a mark that was gone and speaks again means two.
//!
//! Each instance of the cloud appends each status, so that one may come again after a newer one. It is known by its marks and by
//! when it was written, and says nothing the second time. Clocks of two gateways are never compared.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use protocols::metering::UtcMillis;
use protocols::uplink::{Sha256, Status};

/// The oldest goes first: two gateways that restart in turn a dozen times between two statuses are not seen.
const MARKS_MAX: usize = 16;
/// A status that seems older by more than this comes from a clock that was mended, not from an instance that was slow.
const REPEATED_WITHIN_MS: i64 = 86_400_000;
/// Since two were last seen at once: both say something every few minutes.
const TWINS_FOR_MS: i64 = 3_600_000;

/// What a speaker is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The newest incarnation of an outbox.
    Outbox(u64),
    Certificate(CertificateMark),
}

/// In order of its octets, which means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateMark([u8; 32]);

impl Mark {
    fn of_certificate(fingerprint: Sha256) -> Self {
        Self::Certificate(CertificateMark(fingerprint.0))
    }

    /// For people: no two certificates of one installation begin alike.
    fn short(self) -> String {
        const DIGITS: usize = 16;
        match self {
            Self::Outbox(_) => self.to_string(),
            Self::Certificate(CertificateMark(fingerprint)) => {
                format!("certificate {:.DIGITS$}…", Sha256(fingerprint).to_string())
            }
        }
    }

    fn is_of_the_kind_of(self, other: Self) -> bool {
        matches!((self, other), (Self::Outbox(_), Self::Outbox(_)) | (Self::Certificate(_), Self::Certificate(_)))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbox(incarnation) => write!(f, "outbox {incarnation:016x}"),
            Self::Certificate(CertificateMark(fingerprint)) => write!(f, "certificate {}", Sha256(*fingerprint)),
        }
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is no mark of a gateway");
        match text.split_once(' ') {
            Some(("outbox", digits)) => u64::from_str_radix(digits, 16).map(Self::Outbox).map_err(|_| unknown()),
            Some(("certificate", digits)) => digits.parse().map(Self::of_certificate).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// By the gateway's clock.
    pub(super) written_at: UtcMillis,
    pub(super) is_gone: bool,
}

/// Two gateways that use one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// When it last showed, by the log's clock.
    pub seen_at: UtcMillis,
    /// What they are told apart by, outbox or certificate or both: of the one heard last, and of the other if it is remembered.
    pub marks: Vec<(Mark, Option<Mark>)>,
}

impl Twins {
    /// Whether both still run, as far as is known.
    pub fn are_there(&self, now: UtcMillis) -> bool {
        now.since(self.seen_at) <= TWINS_FOR_MS
    }
}

impl fmt::Display for Twins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two gateways use this id")?;
        for (place, (one, other)) in self.marks.iter().enumerate() {
            let other = other.map_or_else(|| "another".to_owned(), Mark::short);
            write!(f, "{} {} and {other}", if place == 0 { ":" } else { "," }, one.short())?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Speakers {
    pub(super) marks: BTreeMap<Mark, Heard>,
    pub(super) twins: Option<Twins>,
}

impl Speakers {
    /// Whether this status shows that there are two.
    pub(super) fn hear(&mut self, status: &Status, appended_at: UtcMillis) -> bool {
        let outbox = status.incarnations.last().map(|newest| Mark::Outbox(newest.incarnation));
        let own: Vec<Mark> = outbox.into_iter().chain(status.certificate.map(Mark::of_certificate)).collect();
        if own.iter().all(|mark| self.has_said(*mark, status.written_at)) {
            return false;
        }
        let mut back: Vec<Mark> = Vec::new();
        for (&mark, heard) in &mut self.marks {
            match knows(status, mark) {
                Some(true) => {
                    if heard.is_gone && !back.iter().any(|other| other.is_of_the_kind_of(mark)) {
                        back.push(mark);
                    }
                    *heard = Heard { written_at: status.written_at, is_gone: false };
                }
                Some(false) => heard.is_gone = true,
                None => {}
            }
        }
        for mark in own {
            self.marks.insert(mark, Heard { written_at: status.written_at, is_gone: false });
        }
        let is_back = !back.is_empty();
        if is_back {
            let marks = back.into_iter().map(|mark| (mark, self.other_than(mark))).collect();
            self.twins = Some(Twins { seen_at: appended_at, marks });
        }
        while self.marks.len() > MARKS_MAX {
            let oldest = self.marks.iter().min_by_key(|(_, heard)| heard.written_at).map(|(&mark, _)| mark);
            let Some(oldest) = oldest else { break };
            self.marks.remove(&oldest);
        }
        is_back
    }

    /// What the other gateway is known by.
    fn other_than(&self, mark: Mark) -> Option<Mark> {
        let others = self.marks.iter().filter(|(other, heard)| heard.is_gone && other.is_of_the_kind_of(mark));
        others.max_by_key(|(_, heard)| heard.written_at).map(|(&other, _)| other)
    }

    fn has_said(&self, mark: Mark, written_at: UtcMillis) -> bool {
        let heard = self.marks.get(&mark);
        heard.is_some_and(|heard| (0..=REPEATED_WITHIN_MS).contains(&heard.written_at.since(written_at)))
    }
}

/// `None`: a status that says nothing of this kind, as of a gateway without TLS, or one that has sealed nothing yet.
fn knows(status: &Status, mark: Mark) -> Option<bool> {
    match mark {
        Mark::Outbox(incarnation) if !status.incarnations.is_empty() => {
            Some(status.incarnations.iter().any(|said| said.incarnation == incarnation))
        }
        Mark::Certificate(_) => status.certificate.map(|shown| Mark::of_certificate(shown) == mark),
        Mark::Outbox(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use protocols::uplink::{GatewayId, IncarnationStatus, SeqSet};

    use super::*;
    use crate::ledger::GatewayLedger;

    /// What one gateway says, a minute after the status before.
    fn status(minute: i64, incarnations: &[u64], certificate: Option<u8>) -> Status {
        let said =
            |&incarnation: &u64| IncarnationStatus { incarnation, last_sealed: 1, floor: 2, abandoned: SeqSet::new() };
        Status {
            gateway: GatewayId::new("gw-1").unwrap(),
            written_at: UtcMillis(minute * 60_000),
            software: "0.1.0".to_owned(),
            incarnations: incarnations.iter().map(said).collect(),
            backlog_rows: 0,
            backlog_since: None,
            dropped: 0,
            repeated: 0,
            certificate: certificate.map(|octet| Sha256([octet; 32])),
        }
    }

    /// Which of these statuses show two, and what is said in the end. After each, the ledger goes through its bytes.
    fn heard(statuses: &[Status]) -> (Vec<usize>, Option<String>) {
        let (mut ledger, mut shown) = (GatewayLedger::default(), Vec::new());
        for (place, status) in statuses.iter().enumerate() {
            if ledger.hear_status(status, UtcMillis(1 + place as i64)) {
                shown.push(place);
            }
            let decoded = GatewayLedger::decode(&ledger.encode());
            assert_eq!(decoded.as_ref(), Ok(&ledger));
            ledger = decoded.unwrap();
        }
        (shown, ledger.twins().map(Twins::to_string))
    }

    /// Control: a mark that is gone and speaks again left to pass (`hear`).
    #[test]
    fn two_gateways_with_one_id_are_told_by_their_outboxes() {
        let said = [status(1, &[7], None), status(1, &[8], None), status(2, &[7], None), status(2, &[8, 9], None)];
        let (shown, twins) = heard(&said);
        assert_eq!(shown, [2, 3]);
        let expected = "two gateways use this id: outbox 0000000000000008 and outbox 0000000000000007";
        assert_eq!(twins.as_deref(), Some(expected));
    }

    /// Also where both have a copy of one outbox, and before the second has sealed anything.
    #[test]
    fn two_gateways_with_one_id_are_told_by_their_certificates() {
        let said = [status(1, &[7], Some(1)), status(1, &[7], Some(2)), status(2, &[7], Some(1))];
        let (shown, twins) = heard(&said);
        assert_eq!(shown, [2]);
        let twins = twins.unwrap();
        assert_eq!(twins, "two gateways use this id: certificate 0101010101010101… and certificate 0202020202020202…");
        assert_eq!(heard(&[status(1, &[7], Some(1)), status(1, &[], Some(2)), status(2, &[7], Some(1))]).0, [2]);
    }

    /// A minute behind or a year ahead: each clock is compared with itself.
    #[test]
    fn clocks_of_two_gateways_are_not_compared() {
        const YEAR: i64 = 525_600;
        let said = [
            status(10, &[7], None),
            status(YEAR, &[8], None),
            status(11, &[7], None),
            status(YEAR + 1, &[8], None),
            status(12, &[7], None),
        ];
        assert_eq!(heard(&said).0, [2, 3, 4]);
    }

    /// Controls, seen to fail: the marks of what came again taken as new (`has_said`); a status without any incarnation taken for one that
    /// knows no outbox (`knows`).
    #[test]
    fn one_gateway_is_one_whatever_becomes_of_it() {
        let lives: [&[Status]; 8] = [
            // It restarts.
            &[status(1, &[7], None), status(2, &[7, 8], None), status(3, &[7, 8, 9], None)],
            // Its outbox is lost; it has sealed nothing at first.
            &[status(1, &[7], None), status(2, &[], None), status(3, &[8], None), status(4, &[8], None)],
            // It is lost, and found again.
            &[status(1, &[7], None), status(2, &[], None), status(3, &[7], None)],
            // The same, with a certificate: without anything to know it by, that status would say nothing.
            &[status(1, &[7], Some(1)), status(2, &[], Some(1)), status(3, &[7], Some(1))],
            // The outbox is set back to a copy.
            &[status(1, &[7, 8], None), status(2, &[7], None), status(3, &[7, 9], None), status(4, &[7, 9], None)],
            // The certificate is renewed.
            &[status(1, &[7], Some(1)), status(2, &[7], Some(2)), status(3, &[7], Some(2))],
            // A slow instance of the cloud appends all of it again.
            &[
                status(1, &[7], Some(1)),
                status(2, &[8], Some(2)),
                status(1, &[7], Some(1)),
                status(2, &[8], Some(2)),
                status(3, &[8], Some(2)),
            ],
            // Its clock is mended, from a year ahead.
            &[status(525_600, &[7], None), status(1, &[7], None), status(2, &[7], None)],
        ];
        for life in lives {
            assert_eq!(heard(life), (Vec::new(), None), "{life:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let said: Vec<Status> = (1..100).map(|n| status(n, &[n as u64], Some(n as u8))).collect();
        let mut speakers = Speakers::default();
        for status in &said {
            speakers.hear(status, UtcMillis(1));
        }
        assert_eq!(speakers.marks.len(), MARKS_MAX);
    }
}
