//! SML_Time in all its forms (SML 1.04, definitions F to H).

use super::element::{self, ElementError};
use super::quirks::Quirks;
use crate::bytes::Reader;
use crate::metering::UtcMillis;

/// 2000-01-01T00:00:00Z in seconds: no meter with SML is older.
const SECONDS_MIN: u32 = 946_684_800;

/// A meter's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmlTime {
    /// Choice 1: seconds that the meter was in operation. Says nothing about UTC.
    SecIndex(u32),
    /// Choice 2: seconds since 1970-01-01T00:00:00Z.
    Timestamp(u32),
    /// Choice 3: the same, and what is to be added for local time, in minutes.
    Local { timestamp: u32, local_offset_min: i16, season_offset_min: i16 },
}

impl SmlTime {
    /// The instant, where the meter knows it.
    pub fn utc(self, quirks: Quirks) -> Option<UtcMillis> {
        let seconds = match self {
            Self::SecIndex(_) => return None,
            Self::Timestamp(timestamp) | Self::Local { timestamp, .. } => timestamp,
        };
        let is_unset = quirks.unset_clock && seconds < SECONDS_MIN;
        (!is_unset).then_some(UtcMillis(i64::from(seconds) * 1000))
    }

    /// The seconds index, or what an unset clock shows.
    pub(super) fn sec_index(self, quirks: Quirks) -> Option<u32> {
        match self {
            Self::SecIndex(seconds) => Some(seconds),
            Self::Timestamp(seconds) | Self::Local { timestamp: seconds, .. } => {
                self.utc(quirks).is_none().then_some(seconds)
            }
        }
    }

    #[inline]
    pub(super) fn read(reader: &mut Reader<'_>, quirks: Quirks) -> Result<Self, ElementError> {
        let offset = reader.offset();
        if quirks.bare_time && reader.peek().is_some_and(|octet| octet & 0xf0 == 0x60) {
            return Ok(Self::SecIndex(seconds(reader)?));
        }
        element::list_of(reader, 2)?;
        let choice = element::unsigned(reader, 8)?;
        let is_local = reader.peek().is_some_and(|octet| octet & 0xf0 == 0x70);
        match choice {
            1 | 2 if is_local && quirks.local_time_under_any_choice => Self::local(reader),
            1 => Ok(Self::SecIndex(seconds(reader)?)),
            2 => Ok(Self::Timestamp(seconds(reader)?)),
            3 => Self::local(reader),
            _ => Err(ElementError::Time { offset, choice }),
        }
    }

    /// A time that may be absent.
    #[inline]
    pub(super) fn read_optional(reader: &mut Reader<'_>, quirks: Quirks) -> Result<Option<Self>, ElementError> {
        if element::take_absent(reader) { Ok(None) } else { Self::read(reader, quirks).map(Some) }
    }

    fn local(reader: &mut Reader<'_>) -> Result<Self, ElementError> {
        element::list_of(reader, 3)?;
        Ok(Self::Local {
            timestamp: seconds(reader)?,
            local_offset_min: element::integer(reader, 2)? as i16,
            season_offset_min: element::integer(reader, 2)? as i16,
        })
    }
}

#[inline]
fn seconds(reader: &mut Reader<'_>) -> Result<u32, ElementError> {
    element::unsigned(reader, 4).map(|seconds| seconds as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(octets: &[u8], quirks: Quirks) -> Result<SmlTime, ElementError> {
        let mut reader = Reader::new(octets);
        let time = SmlTime::read(&mut reader, quirks)?;
        assert!(reader.is_empty());
        Ok(time)
    }

    const STAMP: u32 = 1_795_401_315;

    fn stamped(choice: u8) -> Vec<u8> {
        [&[0x72, 0x62, choice, 0x65][..], &STAMP.to_be_bytes()].concat()
    }

    fn local(choice: u8) -> Vec<u8> {
        [&[0x72, 0x62, choice, 0x73, 0x65][..], &STAMP.to_be_bytes(), &[0x52, 60, 0x53, 0, 60]].concat()
    }

    const LOCAL: SmlTime = SmlTime::Local { timestamp: STAMP, local_offset_min: 60, season_offset_min: 60 };

    #[test]
    fn each_choice_of_the_standard_is_read() {
        assert_eq!(read(&[0x72, 0x62, 0x01, 0x64, 0x8f, 0xcc, 0xb4], Quirks::NONE), Ok(SmlTime::SecIndex(9_424_052)));
        assert_eq!(read(&stamped(2), Quirks::NONE), Ok(SmlTime::Timestamp(STAMP)));
        assert_eq!(read(&local(3), Quirks::NONE), Ok(LOCAL));
        let unknown = Err(ElementError::Time { offset: 0, choice: 4 });
        assert_eq!(read(&stamped(4), Quirks::default()), unknown);
    }

    #[test]
    fn the_instant_is_utc_whatever_is_added_for_local_time() {
        let instant = Some(UtcMillis(1_795_401_315_000));
        assert_eq!(SmlTime::Timestamp(STAMP).utc(Quirks::NONE), instant);
        assert_eq!(LOCAL.utc(Quirks::NONE), instant);
        assert_eq!(SmlTime::SecIndex(STAMP).utc(Quirks::NONE), None);
    }

    // Negative control for each: leave its switch out of the condition.
    #[test]
    fn what_makers_do_otherwise_is_read_while_its_switch_is_on() {
        let bare = [0x65, 0x01, 0x1c, 0x1e, 0xb7];
        assert_eq!(read(&bare, Quirks::default()), Ok(SmlTime::SecIndex(18_620_087)));
        assert!(matches!(
            read(&bare, Quirks { bare_time: false, ..Quirks::default() }),
            Err(ElementError::Type { .. })
        ));
        for choice in [1, 2] {
            assert_eq!(read(&local(choice), Quirks::default()), Ok(LOCAL));
            let strict = Quirks { local_time_under_any_choice: false, ..Quirks::default() };
            assert!(matches!(read(&local(choice), strict), Err(ElementError::Type { .. })));
        }
        let unset = SmlTime::Timestamp(3_600);
        assert_eq!((unset.utc(Quirks::default()), unset.sec_index(Quirks::default())), (None, Some(3_600)));
        let strict = Quirks { unset_clock: false, ..Quirks::default() };
        assert_eq!((unset.utc(strict), unset.sec_index(strict)), (Some(UtcMillis(3_600_000)), None));
    }
}
