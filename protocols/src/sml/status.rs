//! The status word of an energy register. SML leaves its meaning open; two specifications of the German network operators give it one.

use std::fmt;

use crate::metering::Quality;

/// The status of an entry as it stands.
///
/// *Modern meters* (FNN specification of the basic meter): 04 in the low octet, nothing above bit 20.
///
/// | bit | 8 | 9 | 10 | 11 | 12-14 | 15 | 16 | 17 | 18-20 |
/// | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
/// | set | above the starting current | magnet | cover opened | feeding in | the same by phase | phases in another order | running backwards is held | fatal error | voltage on L1, L2, L3 |
///
/// *EDL21 meters*, 2009 to about 2016: only bit 5 has the same meaning with all makers, feeding in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusWord(pub u64);

impl StatusWord {
    const MAGNET: u64 = 1 << 9;
    const COVER: u64 = 1 << 10;
    const FEEDING_IN: u64 = 1 << 11;
    const PHASE_ORDER: u64 = 1 << 15;
    const FATAL_ERROR: u64 = 1 << 17;
    const VOLTAGE: [u64; 3] = [1 << 18, 1 << 19, 1 << 20];
    /// What follows the current, and changes many times a day: start, directions, backstop.
    const FLOW: u64 = 1 << 8 | 0xf << 11 | 1 << 16;
    const FEEDING_IN_EDL21: u64 = 1 << 5;

    /// Whether it has the form of the basic meter.
    pub const fn is_basic_meter(self) -> bool {
        self.0 & 0xff == 0x04 && self.0 >> 21 == 0
    }

    /// What it says of the values. A fatal error makes them worthless; a magnet or an open cover makes them invalid for
    /// billing until somebody has looked, as TRuDI takes it, the display software of the national metrology institute.
    pub const fn quality(self) -> Quality {
        let mut quality = Quality::GOOD;
        if !self.is_basic_meter() {
            return quality;
        }
        if self.0 & Self::FATAL_ERROR != 0 {
            quality = quality.with(Quality::CRITICAL_ERROR);
        }
        if self.0 & (Self::MAGNET | Self::COVER) != 0 {
            quality = quality.with(Quality::NOT_VALID);
        }
        quality
    }

    /// Whether energy is fed into the network.
    pub const fn is_feeding_in(self) -> bool {
        let bit = if self.is_basic_meter() { Self::FEEDING_IN } else { Self::FEEDING_IN_EDL21 };
        self.0 & bit != 0
    }

    /// Without what only follows the current: a change of what is left is worth telling.
    #[must_use]
    pub const fn lasting(self) -> Self {
        if self.is_basic_meter() { Self(self.0 & !Self::FLOW) } else { self }
    }
}

impl fmt::Display for StatusWord {
    /// What is out of the ordinary: `magnet, phases in another order, no voltage on L3`. Empty when nothing is, or nothing is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_basic_meter() {
            return Ok(());
        }
        let has = |bit: u64| self.0 & bit != 0;
        let [l1, l2, l3] = Self::VOLTAGE;
        let told = [
            (has(Self::FATAL_ERROR), "fatal error"),
            (has(Self::MAGNET), "magnet"),
            (has(Self::COVER), "cover opened"),
            (has(Self::PHASE_ORDER), "phases in another order"),
            (!has(l1), "no voltage on L1"),
            (!has(l2), "no voltage on L2"),
            (!has(l3), "no voltage on L3"),
        ];
        let mut separator = "";
        for (_, text) in told.into_iter().filter(|(is_so, _)| *is_so) {
            write!(f, "{separator}{text}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_real_meters_mean_what_they_show() {
        let consuming = StatusWord(0x001c_0104);
        assert_eq!(
            (consuming.quality(), consuming.is_feeding_in(), consuming.to_string()),
            (Quality::GOOD, false, String::new())
        );
        let feeding_in = StatusWord(0x001c_7904);
        assert!(feeding_in.is_feeding_in());
        assert_eq!(feeding_in.lasting(), consuming.lasting());
        assert_eq!(StatusWord(0x001c_8104).to_string(), "phases in another order");
        assert_eq!(StatusWord(0x0010_0104).to_string(), "no voltage on L1, no voltage on L2");
        // EDL21: EMH, consuming and feeding in; Iskra MT175, feeding in.
        for (word, is_feeding_in) in [(0x0182, false), (0x01a2, true), (0x0001_01a2, true), (0x82, false)] {
            let word = StatusWord(word);
            assert_eq!((word.is_feeding_in(), word.quality(), word.lasting()), (is_feeding_in, Quality::GOOD, word));
            assert_eq!(word.to_string(), "");
        }
    }

    // Negative control: swap the two qualities in `quality`.
    #[test]
    fn each_bit_has_its_quality_and_no_other() {
        for bit in 0..64 {
            let word = StatusWord(0x04 | 1 << bit);
            let expected = match bit {
                9 | 10 => Quality::NOT_VALID,
                17 => Quality::CRITICAL_ERROR,
                _ => Quality::GOOD,
            };
            assert_eq!(word.quality(), expected, "bit {bit}");
        }
        let both = StatusWord(0x0002_0204);
        assert_eq!(both.quality(), Quality::CRITICAL_ERROR.with(Quality::NOT_VALID));
        assert_eq!(StatusWord(0x0002_0200).quality(), Quality::GOOD, "no word of a basic meter");
    }
}
