use protocols::cad::{PAYLOAD_LEN_MAX, minimal};
use protocols::metering::UtcMillis;

/// What is read can be written and reads back the same, without problems.
pub(crate) fn target(data: &[u8]) {
    let Ok(telegram) = minimal::decode(data) else { return };
    for problem in &telegram.problems {
        assert!(!problem.to_string().is_empty());
    }
    let captured_at = telegram.readings.first().map_or(UtcMillis(0), |reading| reading.captured_at);
    let text = minimal::encode(&telegram.meter, captured_at, &telegram.readings);
    // Defaults are spelled out, so a payload near the limit may outgrow it.
    if text.len() <= PAYLOAD_LEN_MAX {
        let again = minimal::decode(text.as_bytes()).expect("our own payload is sound");
        assert_eq!(again.problems, []);
        assert_eq!((again.meter, again.readings), (telegram.meter, telegram.readings));
    }
}
