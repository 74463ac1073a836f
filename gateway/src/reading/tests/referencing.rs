//! Meters with short names, and meters that associate with nobody.

use super::*;
use protocols::dlms::server::Referencing;

const SHORT: &str = "referencing = \"short-names\"\n";
const KNOWN: &str = "association = \"pre-established\"\n";

/// What a gateway with these settings stores of such a meter: all that it has.
async fn read(settings: &str, set_up: impl Fn(&mut MeterBody)) -> usize {
    let clock = TokioClock::shared(T0);
    let (parts, outbox) = parts(&clock);
    let meter = meters(&format!("{METER}{settings}")).remove(0);
    let body = MeterBody::shared(&clock, "SIM0001", 2);
    set_up(&mut body.lock().unwrap());
    let mut memory = MeterMemory::new(meter.reads.len());
    session(&parts, &meter, &mut memory, &body).await.unwrap();
    let rows = stored(&outbox);
    assert_complete(&rows, &body);
    // Whoever asks for the newest entries and finds that they do not reach back asks for all.
    assert!(rows.values().all(|count| *count == 1) || body.lock().unwrap().refuses_ranges);
    assert_eq!(rows.len(), 2 * 96 + 1);
    let entry = entry(&parts);
    assert_eq!((entry.state, entry.meter.unwrap().as_str()), (MeterState::Ok, "SIM0001"));
    body.lock().unwrap().associations
}

// Negative control: read it by logical names.
#[tokio::test(start_paused = true)]
async fn a_meter_with_short_names_is_read_to_the_truth() {
    assert_eq!(read(SHORT, |body| body.referencing = Referencing::ShortNames).await, 1);
    let knows_entries_only =
        |body: &mut MeterBody| (body.referencing, body.refuses_ranges) = (Referencing::ShortNames, true);
    assert_eq!(read(SHORT, knows_entries_only).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_is_pre_established_is_read_without_asking() {
    assert_eq!(read(KNOWN, |body| body.is_pre_established = true).await, 0);
    let both = |body: &mut MeterBody| {
        (body.referencing, body.is_pre_established) = (Referencing::ShortNames, true);
    };
    assert_eq!(read(&format!("{SHORT}{KNOWN}"), both).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_is_referenced_otherwise_refuses() {
    let clock = TokioClock::shared(T0);
    let (parts, _) = parts(&clock);
    for (settings, referencing) in [(SHORT, Referencing::LogicalNames), ("", Referencing::ShortNames)] {
        let meter = meters(&format!("{METER}{settings}")).remove(0);
        let body = MeterBody::shared(&clock, "SIM0001", 1);
        body.lock().unwrap().referencing = referencing;
        let refused = session(&parts, &meter, &mut MeterMemory::new(meter.reads.len()), &body).await.unwrap_err();
        let SessionError::Talk(talk) = &refused else { panic!("{refused:?}") };
        assert!(talk.text().contains("application context name not supported"), "{}", talk.text());
        assert!(talk.is_refusal());
    }
}
