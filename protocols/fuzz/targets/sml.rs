use protocols::metering::UtcMillis;
use protocols::sml::{
    Body, Builder, CrcAlgorithm, CrcVerdict, FILE_LEN_MAX, Messages, Policy, Quirks, Readout, Scan, Scanner, Settings, SmlFile,
    encode_file, scan,
};

/// A stream is walked to its end in steps forward, whatever it holds, and in pieces as in one; whatever is sent as content comes
/// out of its file as it went in, and what can be read of it is written so that it reads the same.
pub(crate) fn target(data: &[u8]) {
    let walked = walk(data);
    assert_eq!(walk_in_pieces(data), walked);
    content(data);
    // Stuffing doubles it at most.
    if data.len() < FILE_LEN_MAX / 2 - 16 {
        let octets = encode_file(data, CrcAlgorithm::X25);
        let file = SmlFile::parse(&octets).expect("our own file is whole");
        assert_eq!((file.crc(), &*file.content()), (CrcVerdict::Valid, data));
        read(&file);
    }
}

/// How many files there are, and how many octets that are none of a file or wait for more.
fn walk(mut rest: &[u8]) -> (usize, usize) {
    let (mut files, mut lost) = (0, 0);
    loop {
        let used = match scan(rest) {
            Scan::NeedMore => {
                assert!(rest.len() < FILE_LEN_MAX);
                return (files, lost + rest.len());
            }
            Scan::File { file, used } => {
                assert!(file.octets().len() <= FILE_LEN_MAX);
                read(&file);
                files += 1;
                used
            }
            Scan::Garbage { skip, error } => {
                assert!(!error.to_string().is_empty());
                lost += skip;
                skip
            }
        };
        assert!(used > 0);
        rest = rest.get(used..).expect("no more is used than was there");
    }
}

fn walk_in_pieces(data: &[u8]) -> (usize, usize) {
    let (mut scanner, mut files, mut lost) = (Scanner::default(), 0, 0);
    for piece in data.chunks(7) {
        scanner.feed(piece);
        loop {
            let before = scanner.pending();
            match scanner.next_file() {
                None => break,
                Some(Ok(_)) => files += 1,
                Some(Err(_)) => lost += before - scanner.pending(),
            }
        }
    }
    (files, lost + scanner.pending())
}

fn read(file: &SmlFile<'_>) {
    let received_at = UtcMillis(1_795_401_315_000);
    let strict = Readout::decode(file, &Settings::default(), received_at);
    assert!(strict.is_err() || !matches!(file.crc(), CrcVerdict::Invalid { .. }));
    let everything = Settings {
        policy: Policy { accept_invalid_crc: true },
        quirks: Quirks { power_sign_from_status: true, list_length_by_content: true, ..Quirks::default() },
        ..Settings::default()
    };
    let readout = match Readout::decode(file, &everything, received_at) {
        Ok(readout) => readout,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
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

fn content(data: &[u8]) {
    for quirks in [Quirks::NONE, Quirks { list_length_by_content: true, ..Quirks::default() }] {
        let mut messages = 0;
        for message in Messages::new(data, quirks) {
            messages += 1;
            let Ok(message) = message else { continue };
            let Body::GetList(list) = message.body else { continue };
            let entries: Vec<_> = list.entries().flatten().collect();
            let bytes = entries.iter().fold(Builder::new(b"SIM"), Builder::entry).content();
            let again = Messages::new(&bytes, Quirks::NONE).flatten().find_map(|message| match message.body {
                Body::GetList(list) => Some(list.entries().collect::<Result<Vec<_>, _>>()),
                _ => None,
            });
            assert_eq!(again, Some(Ok(entries)));
        }
        assert!(messages <= data.len());
    }
}
