use std::collections::HashSet;

use protocols::cosem::profile_generic::reader::{NullClock, NullValue, ProfileReader, ProfileRules};
use protocols::cosem::profile_generic::rows::Rows;
use protocols::cosem::profile_generic::{CaptureObject, SortMethod};
use protocols::metering::{ObisCode, UtcMillis};

const STATUS: CaptureObject = CaptureObject::new(1, ObisCode::new(0, 0, 96, 10, 1, 255), 2);
const ENERGY: CaptureObject = CaptureObject::new(3, ObisCode::new(1, 0, 1, 8, 0, 255), 2);

/// The first octet says how to read, the rest is a buffer. No two rows of it are the same reading, and there are never more than it
/// announced.
pub(crate) fn target(data: &[u8]) {
    let Some((&how, buffer)) = data.split_first() else { return };
    let Ok(rows) = Rows::new(buffer) else { return };
    let announced = rows.left();
    assert!(rows.count() <= announced);
    let mut rules = ProfileRules::new(if how & 1 == 0 { 900 } else { 0 });
    if how & 2 != 0 {
        rules.sort_method = SortMethod::Lifo;
    }
    if how & 4 != 0 {
        rules.null_clock = NullClock::Repeat;
    }
    if how & 8 != 0 {
        rules.null_value = NullValue::Absent;
    }
    if how & 16 != 0 {
        rules.first_label = Some(UtcMillis(1_795_392_000_000));
    }
    // Half of the time the first column is left out: a profile without a clock.
    let columns = [CaptureObject::CLOCK, STATUS, ENERGY];
    let columns = columns.get(usize::from(how >> 5 & 1)..).expect("three columns");
    read(columns, rules, buffer, announced);
}

fn read(columns: &[CaptureObject], rules: ProfileRules, buffer: &[u8], announced: usize) {
    let mut reader = ProfileReader::new(columns, rules, buffer).expect("its rows could be walked");
    let (mut identities, mut number) = (HashSet::new(), 0);
    while let Some(row) = reader.next_row() {
        match row {
            Ok(row) => {
                assert_eq!(row.row, number);
                assert_eq!(row.cells().len(), columns.len());
                assert!(identities.insert((row.captured_at, row.nth)), "two rows are {}/{}", row.captured_at, row.nth);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        number += 1;
    }
    assert!(number <= announced);
}
