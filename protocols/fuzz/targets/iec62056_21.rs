use protocols::iec62056_21::{
    DataBlock, Expectation, LogBook, MaskedParity, Message, Profile, PushScan, ReadQuirks, Readout, Scan, Settings,
    scan, scan_push,
};
use protocols::metering::{MeterId, Quality, TelegramReading, UtcMillis};

const BLOCK_OCTETS_MAX: usize = 4_096;

/// A stream is walked to its end in steps forward, as messages and as pushes, with parity and without; and any octets are read as
/// data lines.
pub(crate) fn target(data: &[u8]) {
    for option_select in [false, true] {
        walk(data, Expectation { option_select, block_octets_max: BLOCK_OCTETS_MAX });
    }
    walk_pushes(data);
    read(data);
    let mut seven_bits = data.to_vec();
    let mut parity = MaskedParity::default();
    parity.unmask(&mut seven_bits);
    assert!(parity.errors() <= data.len() as u64);
    walk_pushes(&seven_bits);
}

fn walk(mut rest: &[u8], expectation: Expectation) {
    loop {
        let used = match scan(rest, expectation) {
            Scan::NeedMore => {
                assert!(rest.len() <= BLOCK_OCTETS_MAX + 1);
                return;
            }
            Scan::Message { message, used } => {
                if let Message::Data(block) = message {
                    read(block.content);
                }
                used
            }
            Scan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                skip
            }
        };
        assert!(used > 0);
        rest = rest.split_at_checked(used).expect("no more is used than was there").1;
    }
}

fn walk_pushes(mut rest: &[u8]) {
    loop {
        let used = match scan_push(rest) {
            PushScan::NeedMore => return,
            PushScan::Push { push, used } => {
                read(push.content);
                used
            }
            PushScan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                skip
            }
        };
        assert!(used > 0);
        rest = rest.split_at_checked(used).expect("no more is used than was there").1;
    }
}

fn read(content: &[u8]) {
    let received_at = UtcMillis(1_795_401_315_000);
    let block = DataBlock { identification: None, content: content.to_vec(), quality: Quality::GOOD };
    let meter = MeterId::new("SIM:1").expect("a meter id");
    let all_quirks = ReadQuirks {
        billing_zero_is_current: true,
        units_by_code: true,
        unit_without_asterisk: true,
        ..ReadQuirks::default()
    };
    for quirks in [ReadQuirks::STRICT, all_quirks] {
        let settings = Settings { assumed_meter: Some(meter.clone()), quirks, ..Settings::default() };
        let readout = Readout::decode(&block, &settings, received_at).expect("a meter is assumed");
        let profile = Profile::decode(&block, &settings, received_at);
        readout.readings.iter().chain(&profile.readings).for_each(check);
        let book = LogBook::decode(&block, &meter, &settings, received_at);
        for problem in readout.problems.iter().chain(&profile.problems).chain(&book.problems) {
            assert!(!problem.to_string().is_empty());
        }
        for event in &readout.events {
            assert!(!event.log.is_empty());
        }
    }
}

fn check(reading: &TelegramReading) {
    assert_eq!(reading.period_s > 0, reading.kind.has_period());
    assert_eq!(reading.quantity.to_string().parse(), Ok(reading.quantity));
    assert_eq!(reading.code.to_string().parse(), Ok(reading.code.clone()));
}
