use protocols::metering::UtcMillis;
use protocols::p1::{
    CipheredScan, CrcVerdict, Identification, Policy, Readout, Scan, Settings, TELEGRAM_LEN_MAX, Telegram, clear_even_parity, scan,
    scan_ciphered,
};

/// A stream is walked to its end in steps forward, whatever it holds, and a telegram means the same alone.
pub(crate) fn target(data: &[u8]) {
    walk(data);
    let mut seven_bits = data.to_vec();
    if clear_even_parity(&mut seven_bits) {
        walk(&seven_bits);
    }
    blocks(data);
}

/// The same of ciphered blocks; what stands before one makes a telegram of no more than a line and the block.
fn blocks(mut rest: &[u8]) {
    let mut identification = Identification::default();
    loop {
        let used = match scan_ciphered(rest) {
            CipheredScan::NeedMore => return assert!(rest.len() <= TELEGRAM_LEN_MAX + 30),
            CipheredScan::Block { apdu } => {
                assert!(identification.join(apdu.to_vec()).len() <= apdu.len() + 64);
                identification.clear();
                apdu.len()
            }
            CipheredScan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                identification.take(&rest[..skip]);
                skip
            }
        };
        assert!(used > 0);
        rest = rest.get(used..).expect("no more is used than was there");
    }
}

fn walk(mut rest: &[u8]) {
    loop {
        let used = match scan(rest) {
            Scan::NeedMore => {
                // One more octet than the longest telegram and its end is never waited for.
                assert!(rest.len() <= TELEGRAM_LEN_MAX + "FFFF\r".len());
                return;
            }
            Scan::Telegram { telegram, used } => {
                read(&telegram);
                used
            }
            Scan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                skip
            }
        };
        let (taken, after) = rest.split_at_checked(used).expect("no more is used than was there");
        assert!(used > 0);
        if let Scan::Telegram { telegram, .. } = scan(taken) {
            assert_eq!(Telegram::parse(taken).as_ref(), Ok(&telegram));
        }
        rest = after;
    }
}

fn read(telegram: &Telegram<'_>) {
    let received_at = UtcMillis(1_795_401_315_000);
    let strict = Readout::decode(telegram, &Settings::default(), received_at);
    assert!(strict.is_err() || !matches!(telegram.crc(), CrcVerdict::Invalid { .. }));
    let policy = Policy { accept_invalid_crc: true };
    let Ok(readout) = Readout::decode(telegram, &Settings { policy, ..Settings::default() }, received_at) else { return };
    for reading in readout.meters.iter().flat_map(|meter| &meter.readings) {
        assert_eq!((reading.period_s, reading.kind.has_period()), (0, false));
        assert_eq!(reading.quantity.to_string().parse(), Ok(reading.quantity));
    }
    for event in &readout.events {
        assert!(readout.meters.iter().any(|meter| meter.meter == event.meter));
    }
    for problem in &readout.problems {
        assert!(!problem.to_string().is_empty());
    }
}
