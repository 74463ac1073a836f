use protocols::bytes::Reader;
use protocols::dlms::axdr::{Limits, skip_value};
use protocols::dlms::data::Data;
use protocols::dlms::value::DataValue;

/// Values of one input that are made into a tree: how many there may be is the decoder's limit, and a million takes its time.
const VALUES_MAX: u32 = 5_000;

/// Stepping over a value and reading it agree, and what was read is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    let skipped = skip_value(&mut Reader::new(data), Limits::DEFAULT);
    let value = match Data::from_bytes(data) {
        Ok(value) => value,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return assert_eq!(skipped, Err(error));
        }
    };
    let octets = skipped.expect("a value that can be read can be stepped over");
    assert_eq!(Data::from_bytes(octets).map(|value| value.tag()), Ok(value.tag()));
    if let Some(value) = owned(value) {
        reads_back(&value);
    }
    shallow(value);
}

/// The tree of a value, unless it is too large for a test.
pub(super) fn owned(value: Data<'_>) -> Option<DataValue> {
    let mut left = VALUES_MAX;
    is_small(value, &mut left).then(|| DataValue::from(value))
}

/// Octets are compared, since a float may be no number.
pub(super) fn reads_back(value: &DataValue) {
    let octets = value.to_vec();
    let again = Data::from_bytes(&octets).expect("our own encoding is sound");
    assert_eq!(DataValue::from(again).to_vec(), octets);
}

fn is_small(value: Data<'_>, left: &mut u32) -> bool {
    let Some(after) = left.checked_sub(1) else { return false };
    *left = after;
    value.elements().into_iter().flatten().all(|element| is_small(element, left))
}

/// What the accessors give of a value itself.
fn shallow(value: Data<'_>) {
    if let Some(elements) = value.elements() {
        assert!(value.array().is_some() || value.structure().is_some());
        let count = elements.iter().take(100).count();
        assert_eq!(count, elements.len().min(100));
        assert_eq!(elements.at(0).is_some(), !elements.is_empty());
        assert!(elements.at(elements.len()).is_none());
    }
    if let Some(date_time) = value.date_time() {
        assert!(!date_time.to_string().is_empty());
        if let Ok(clock) = date_time.to_utc(protocols::dlms::datetime::ClockRules::default()) {
            assert!(!clock.utc.to_string().is_empty());
        }
    }
}
