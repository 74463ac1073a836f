//! Faults by name and rate: what goes wrong in the meter, and what goes wrong on its line.

use std::str::FromStr;

use protocols::metering::{Day, UtcMillis};

use crate::clock::DAY_MS;
use crate::nearest::{UnknownName, unknown};
use crate::rng::{Rate, Rng, mix};

const MINUTE_MS: u64 = 60_000;

/// Names as configuration and command line have them. Their places are part of the seed: new ones come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    LineNoise,
    Echo,
    DroppedBytes,
    Silence,
    SlowAnswers,
    WrongCrc,
    Duplicate,
    StuckRegister,
    CounterReset,
    ClockJump,
    PowerFailure,
    WrongTag,
    ReplayedAnswer,
    Downgrade,
    CounterJump,
}

impl Fault {
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::LineNoise, "line-noise"),
        (Self::Echo, "echo"),
        (Self::DroppedBytes, "dropped-bytes"),
        (Self::Silence, "silence"),
        (Self::SlowAnswers, "slow-answers"),
        (Self::WrongCrc, "wrong-crc"),
        (Self::Duplicate, "duplicate"),
        (Self::StuckRegister, "stuck-register"),
        (Self::CounterReset, "counter-reset"),
        (Self::ClockJump, "clock-jump"),
        (Self::PowerFailure, "power-failure"),
        (Self::WrongTag, "wrong-tag"),
        (Self::ReplayedAnswer, "replayed-answer"),
        (Self::Downgrade, "downgrade"),
        (Self::CounterJump, "counter-jump"),
    ];

    /// A meter's faults are counted per meter and day, a line's per message.
    pub const fn is_of_meter(self) -> bool {
        matches!(self, Self::StuckRegister | Self::CounterReset | Self::ClockJump | Self::PowerFailure)
    }

    /// Of ciphered answers; `counter-jump` of each connection: the meter takes the invocation counters of its clients for greater than they were.
    pub const fn is_of_security(self) -> bool {
        matches!(self, Self::WrongTag | Self::ReplayedAnswer | Self::Downgrade | Self::CounterJump)
    }

    /// A probability for a line, up to 48 a day for a meter.
    pub const fn rate_max(self) -> f64 {
        if self.is_of_meter() { 48.0 } else { 1.0 }
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for Fault {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(fault, _)| fault).ok_or_else(|| unknown("fault", text, Self::ALL.map(|(_, name)| name)))
    }
}

/// How often each fault occurs; never, unless set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultRates {
    rates: [Rate; Fault::ALL.len()],
}

impl FaultRates {
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: Rate) -> Self {
        self.rates[fault as usize] = rate;
        self
    }

    pub fn of(&self, fault: Fault) -> Rate {
        self.rates[fault as usize]
    }

    pub fn set_faults(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().map(|(fault, _)| fault).filter(|fault| !self.of(*fault).is_never())
    }
}

/// Something that befalls a meter at a world time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    CounterReset,
    ClockJump { by_ms: i64 },
    RegisterStuck,
    RegisterFree,
    PowerDown,
    PowerUp,
}

/// What befalls a meter on one day, in order of time: a function of seed, day and rates alone.
///
/// What begins on a day may end on the next: ends are part of the answer.
pub fn happenings_of_day(seed: u64, day: Day, rates: &FaultRates) -> Vec<(UtcMillis, Happening)> {
    let mut all = Vec::new();
    for fault in rates.set_faults().filter(|fault| fault.is_of_meter()) {
        let mut rng = Rng::seeded(mix(seed, &[0xfa17, day.0 as u64, fault as u64]));
        for _ in 0..rng.count(rates.of(fault)) {
            let at = day.start().plus_ms(rng.below(DAY_MS as u64) as i64);
            let mut lasting = |from, to, most_min: u64| {
                let ms = MINUTE_MS + rng.below(most_min * MINUTE_MS);
                all.extend([(at, from), (at.plus_ms(ms as i64), to)]);
            };
            match fault {
                Fault::StuckRegister => lasting(Happening::RegisterStuck, Happening::RegisterFree, 720),
                Fault::PowerFailure => lasting(Happening::PowerDown, Happening::PowerUp, 240),
                Fault::ClockJump => {
                    let by_ms = (30_000 + rng.below(120 * MINUTE_MS)) as i64;
                    let back = rng.below(2) == 0;
                    all.push((at, Happening::ClockJump { by_ms: if back { -by_ms } else { by_ms } }));
                }
                _ => all.push((at, Happening::CounterReset)),
            }
        }
    }
    all.sort_unstable();
    all
}

/// What becomes of one message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmission {
    pub delay_ms: u64,
    /// `None`: the meter stays silent.
    pub bytes: Option<Vec<u8>>,
}

/// The faults of one line, in an order that its seed fixes.
#[derive(Debug, Clone)]
pub struct LineFaults {
    rates: FaultRates,
    rng: Rng,
}

impl LineFaults {
    /// A slow answer comes after 0.5 to 3 s (pauses of 3 s between frames were seen with real meters).
    const SLOW_MS: (u32, u32) = (500, 3_000);
    const NOISE_BYTES_MAX: u64 = 8;

    pub fn new(seed: u64, rates: FaultRates) -> Self {
        Self { rates, rng: Rng::seeded(mix(seed, &[0x11fe])) }
    }

    pub fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.rates.of(fault);
        !rate.is_never() && self.rng.chance(rate)
    }

    /// A message of the meter as it reaches the other end.
    pub fn outgoing(&mut self, message: &[u8]) -> Transmission {
        let delay_ms = self.delay_ms();
        if self.strikes(Fault::Silence) {
            return Transmission { delay_ms, bytes: None };
        }
        let mut bytes = message.to_vec();
        if self.strikes(Fault::DroppedBytes) && !bytes.is_empty() {
            let from = self.rng.below(bytes.len() as u64) as usize;
            let count = (1 + self.rng.below(4) as usize).min(bytes.len() - from);
            bytes.drain(from..from + count);
        }
        if self.strikes(Fault::LineNoise) {
            self.add_noise(&mut bytes);
        }
        Transmission { delay_ms, bytes: Some(bytes) }
    }

    /// Bytes towards the meter as they reach it.
    pub fn incoming(&mut self, received: &mut Vec<u8>) {
        if self.strikes(Fault::LineNoise) {
            self.add_noise(received);
        }
    }

    pub fn delay_ms(&mut self) -> u64 {
        if self.strikes(Fault::SlowAnswers) { self.rng.between(Self::SLOW_MS.0, Self::SLOW_MS.1).into() } else { 0 }
    }

    /// Either spurious bytes in front, or one byte hit.
    fn add_noise(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() || self.rng.below(2) == 0 {
            let count = 1 + self.rng.below(Self::NOISE_BYTES_MAX);
            let noise: Vec<u8> = (0..count).map(|_| self.rng.next_u64() as u8).collect();
            bytes.splice(0..0, noise);
        } else {
            let place = self.rng.below(bytes.len() as u64) as usize;
            bytes[place] ^= 1 + self.rng.below(255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(fault: Fault) -> LineFaults {
        LineFaults::new(1, FaultRates::default().with(fault, Rate::ONE))
    }

    #[test]
    fn every_fault_is_found_by_its_name() {
        for (fault, name) in Fault::ALL {
            assert_eq!(name.parse(), Ok(fault));
            assert_eq!(fault.name(), name);
        }
        assert_eq!("clockjump".parse::<Fault>().unwrap_err().hint.as_deref(), Some("did you mean \"clock-jump\"?"));
    }

    #[test]
    fn a_line_without_faults_changes_nothing() {
        let mut line = LineFaults::new(1, FaultRates::default());
        let sent = line.outgoing(b"hello");
        assert_eq!(sent, Transmission { delay_ms: 0, bytes: Some(b"hello".to_vec()) });
    }

    #[test]
    fn each_line_fault_shows() {
        assert_eq!(always(Fault::Silence).outgoing(b"hello").bytes, None);
        assert!(always(Fault::SlowAnswers).outgoing(b"hello").delay_ms >= 500);
        assert!(always(Fault::DroppedBytes).outgoing(b"hello").bytes.unwrap().len() < 5);
        let mut noisy = always(Fault::LineNoise);
        for _ in 0..100 {
            assert_ne!(noisy.outgoing(b"hello").bytes.unwrap(), b"hello");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_faults() {
        let rates = FaultRates::default().with(Fault::LineNoise, Rate::from_f64(0.5, 1.0).unwrap());
        let run = |seed| {
            let mut line = LineFaults::new(seed, rates);
            (0..50).map(|_| line.outgoing(b"hello")).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_day_has_as_many_happenings_as_its_rate_says() {
        let rates = FaultRates::default()
            .with(Fault::ClockJump, Rate::from_f64(2.0, 48.0).unwrap())
            .with(Fault::PowerFailure, Rate::ONE);
        let day = Day(20_000);
        let all = happenings_of_day(3, day, &rates);
        assert_eq!(all.len(), 4, "two jumps, one power failure with its end");
        assert!(all.is_sorted());
        assert_eq!(all, happenings_of_day(3, day, &rates));
        assert_ne!(all, happenings_of_day(4, day, &rates));
    }
}
