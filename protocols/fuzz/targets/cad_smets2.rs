use protocols::cad::smets2::{self, Topic};
use protocols::metering::Kind;

/// Registers are never negative, and a state says nothing of a meter.
pub(crate) fn target(data: &[u8]) {
    let device = "4C11AE000001";
    for topic in [Topic::Electricity { device }, Topic::Gas { device }] {
        let Ok(Some(telegram)) = smets2::decode(topic, data) else { continue };
        assert!(telegram.readings.len() <= 3);
        for reading in &telegram.readings {
            assert!(reading.kind == Kind::Instant || reading.quantity.mantissa >= 0, "{reading:?}");
        }
        for problem in &telegram.problems {
            assert!(!problem.to_string().is_empty());
        }
    }
    assert!(!matches!(smets2::decode(Topic::State { device }, data), Ok(Some(_))));
    if let Some(topic) = std::str::from_utf8(data).ok().and_then(Topic::parse) {
        assert_eq!(topic.meter().is_none(), matches!(topic, Topic::State { .. }));
    }
}
