//! Seeded randomness: the same seed gives the same numbers on every machine, in every build and in every release.

/// SplitMix64 (Steele, Lea, Flood 2014): tiny state, good enough to vary meters, no secret in it.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    pub const fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        finish(self.state)
    }

    /// From 0 to `bound` - 1; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        scale(self.next_u64(), bound)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let width = u64::from(high.saturating_sub(low)) + 1;
        low + self.below(width) as u32
    }

    pub fn chance(&mut self, rate: Rate) -> bool {
        self.below(Rate::ONE.per_billion) < rate.per_billion
    }

    /// How often something happens in one period when it happens `rate` times on average (a rate above 1 is allowed).
    pub fn count(&mut self, rate: Rate) -> u64 {
        let whole = rate.per_billion / Rate::ONE.per_billion;
        let rest = Rate { per_billion: rate.per_billion % Rate::ONE.per_billion };
        whole + u64::from(self.chance(rest))
    }
}

/// A number that depends on all parts and on nothing else: randomness by place instead of by order of asking.
pub fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(finish(seed ^ GOLDEN_GAMMA), |state, part| {
        finish(state.wrapping_add(GOLDEN_GAMMA).wrapping_add(finish(part.wrapping_add(GOLDEN_GAMMA))))
    })
}

/// `mix` brought to the range 0 to `bound` - 1.
pub fn mix_below(seed: u64, parts: &[u64], bound: u64) -> u64 {
    scale(mix(seed, parts), bound)
}

const fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn scale(random: u64, bound: u64) -> u64 {
    ((random as u128 * bound as u128) >> 64) as u64
}

/// A probability or a mean count, in billionths, so that no float decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rate {
    per_billion: u64,
}

impl Rate {
    pub const NEVER: Self = Self { per_billion: 0 };
    pub const ONE: Self = Self { per_billion: 1_000_000_000 };

    /// `None` for what is negative, no number, or above `max`.
    pub fn from_f64(rate: f64, max: f64) -> Option<Self> {
        (rate.is_finite() && (0.0..=max).contains(&rate)).then(|| Self { per_billion: (rate * 1e9).round() as u64 })
    }

    pub const fn is_never(self) -> bool {
        self.per_billion == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut rng = Rng::seeded(0);
        assert_eq!([rng.next_u64(), rng.next_u64()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn a_rate_is_met_on_average() {
        let (mut rng, rate) = (Rng::seeded(1), Rate::from_f64(0.25, 1.0).unwrap());
        let hits = (0..10_000).filter(|_| rng.chance(rate)).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10000");
        assert!(!rng.chance(Rate::NEVER) && rng.chance(Rate::ONE));
    }

    #[test]
    fn a_mean_count_above_one_gives_that_many() {
        let mut rng = Rng::seeded(2);
        let total: u64 = (0..1_000).map(|_| rng.count(Rate::from_f64(2.5, 10.0).unwrap())).sum();
        assert!((2_400..2_600).contains(&total), "{total}");
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for rate in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Rate::from_f64(rate, 1.0), None);
        }
    }
}
