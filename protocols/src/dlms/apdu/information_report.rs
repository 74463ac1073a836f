//! InformationReport: what a meter with short names says without being asked.
//!
//! ```text
//! 18 | current-time: 00, or 01, length and text | count | variable-access-specifications | count | values
//! ```

use crate::bytes::Reader;
use crate::dlms::axdr::{read_length, write_length};

use super::read::expect;
use super::set::{list, same_count, value, write_values};
use super::{ApduError, VariableAccess, tag};

/// A report as it stands in its octets; [`crate::dlms::short_names::ShortNames`] says what its variables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InformationReport<'a> {
    /// A GeneralizedTime as text, which nothing here reads.
    pub current_time: Option<&'a [u8]>,
    pub variables: Vec<VariableAccess<'a>>,
    /// One encoded value for each variable.
    pub values: Vec<&'a [u8]>,
}

impl<'a> InformationReport<'a> {
    pub fn decode(apdu: &'a [u8]) -> Result<Self, ApduError> {
        let mut reader = Reader::new(apdu);
        expect(&mut reader, tag::INFORMATION_REPORT)?;
        let offset = reader.offset();
        let current_time = match reader.u8()? {
            0 => None,
            1 => {
                let length = read_length(&mut reader)?;
                Some(reader.take(length)?)
            }
            _ => return Err(ApduError::Malformed { what: "current-time", offset }),
        };
        let (variables, values) = (list(&mut reader, VariableAccess::decode)?, list(&mut reader, value)?);
        same_count(variables.len(), values.len())?;
        Ok(Self { current_time, variables, values })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![tag::INFORMATION_REPORT];
        match self.current_time {
            Some(time) => {
                out.push(1);
                write_length(&mut out, time.len());
                out.extend(time);
            }
            None => out.push(0),
        }
        VariableAccess::encode_list(&self.variables, &mut out);
        write_values(&mut out, &self.values);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::variable::tests::{any_variable, variable};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_report_names_its_variables_and_may_say_when() {
        let report = InformationReport {
            current_time: None,
            variables: vec![VariableAccess::Name(0x0108)],
            values: vec![&[0x11, 0x2a]],
        };
        assert_eq!(report.encode(), [0x18, 0x00, 0x01, 0x02, 0x01, 0x08, 0x01, 0x11, 0x2a]);
        let timed = InformationReport { current_time: Some(b"20261107120000Z"), ..report };
        assert_eq!(InformationReport::decode(&timed.encode()), Ok(timed));
        let flag = ApduError::Malformed { what: "current-time", offset: 1 };
        assert_eq!(InformationReport::decode(&[0x18, 0x02]), Err(flag));
        let counts = InformationReport::decode(&[0x18, 0x00, 0x01, 0x02, 0x01, 0x08, 0x00]);
        assert_eq!(counts, Err(ApduError::Count { expected: 1, found: 0 }));
    }

    proptest! {
        #[test]
        fn reports_round_trip(owned in prop::collection::vec(any_variable(), 0..6), time in prop::option::of(prop::collection::vec(any::<u8>(), 0..20))) {
            let values = owned.iter().map(|(.., value)| &value[..]).collect();
            let report = InformationReport { current_time: time.as_deref(), variables: owned.iter().map(variable).collect(), values };
            let octets = report.encode();
            prop_assert_eq!(InformationReport::decode(&octets), Ok(report));
        }

        #[test]
        fn no_octets_panic(mut octets in prop::collection::vec(any::<u8>(), 1..60)) {
            octets[0] = tag::INFORMATION_REPORT;
            drop(InformationReport::decode(&octets));
        }
    }
}
