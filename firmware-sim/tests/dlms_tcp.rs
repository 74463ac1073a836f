//! DLMS over TCP: what our own client and an independent one read is what the truth says.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use common::{Client, LOAD, Told, places, reader_config, start, told_of, truth};
use firmware_sim::speak::LinePlace;
use protocols::cosem::association_ln::{AccessMode, object_list};
use protocols::cosem::profile_generic::selection::{EntryDescriptor, RangeDescriptor, Selection};
use protocols::dlms::acse::Diagnostic;
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::client::{ClientConfig, ClientError, ReadError};
use protocols::dlms::data::Data;
use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::metering::{ObisCode, UtcMillis};
use protocols::wrapper::{WrapperClient, WrapperConfig};

const CLOCK: ObisCode = ObisCode::new(0, 0, 1, 0, 0, 255);
const NAME: ObisCode = ObisCode::new(0, 0, 42, 0, 0, 255);
const DEVICE: ObisCode = ObisCode::new(0, 0, 96, 1, 0, 255);
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const ASSOCIATION: ObisCode = ObisCode::new(0, 0, 40, 0, 0, 255);
const DAILY: ObisCode = ObisCode::new(1, 0, 99, 2, 0, 255);
const MONTHLY: ObisCode = ObisCode::new(0, 0, 98, 1, 0, 255);
const EVENTS: ObisCode = ObisCode::new(0, 0, 99, 98, 0, 255);

fn connect(place: &LinePlace) -> TcpStream {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

fn link(client: u16, place: &LinePlace) -> WrapperClient {
    WrapperClient::new(WrapperConfig::new(client, place.wport.unwrap()))
}

fn client(place: &LinePlace, config: ClientConfig) -> Client<TcpStream, WrapperClient> {
    Client::associate(connect(place), link(1, place), config).unwrap()
}

fn reader(place: &LinePlace) -> Client<TcpStream, WrapperClient> {
    client(place, reader_config(place.password.as_deref()))
}

fn at(text: &str) -> UtcMillis {
    text.parse().unwrap()
}

fn range(from: &str, to: &str) -> Selection {
    let edge = |text| DateTime::from_utc(at(text), 60, ClockStatus::GOOD);
    Selection::Range(RangeDescriptor::clock(edge(from), edge(to)))
}

fn within(all: &BTreeSet<Told>, from: &str, to: &str) -> BTreeSet<Told> {
    let edges = at(from)..=at(to);
    all.iter().filter(|told| edges.contains(&at(&told.3))).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_profile_and_every_part_of_it_is_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    // The nights of both clock changes, a drifting clock, jumps, power failures.
    let fleet = start(&format!(
        r#"
        truth = {path:?}
        start_at = "2026-10-27T00:00:30Z"
        history_days = 4.0
        [[meters]]
        protocol = "dlms-tcp"
        zone = "CET"
        drift_ppm_max = 50
        [meters.profile]
        columns = ["import-register", "export-register", "import-interval", "average-power", "average-voltage"]
        [[meters]]
        count = 3
        protocol = "dlms-tcp"
        zone = "CET"
        meters_per_line = 3
        quirks = ["deviation-unspecified", "null-clock", "null-status", "entry-on-power-up", "values-twice",
                  "blocks-from-zero", "short-conformance-tag"]
        [meters.faults]
        clock-jump = 2.0
        power-failure = 1.0
        counter-reset = 0.5
        stuck-register = 1.0
        "#
    ))
    .await;
    let places = places(&fleet);
    let is_powered = fleet.stations().iter().all(|station| station.now(|meter| meter.is_powered()));
    assert!(is_powered, "another seed is needed: a meter has no power at the start");
    tokio::task::spawn_blocking(move || {
        let lines = truth(&path);
        for (index, (meter, place)) in places.iter().enumerate() {
            let mut config = reader_config(place.password.as_deref());
            config.quirks.blocks_from_zero = index > 0;
            config.quirks.short_conformance_tag = index > 0;
            let mut client = client(place, config);
            let load = told_of(&lines, meter, false);
            assert!(load.len() > 500, "{meter}: {} readings", load.len());
            assert_eq!(client.profile(LOAD, None).unwrap(), load, "{meter}");
            let (from, to) = ("2026-10-24T22:00:00Z", "2026-10-25T02:15:00Z");
            let part = client.profile(LOAD, Some(&range(from, to))).unwrap();
            assert_eq!(part, within(&load, from, to), "{meter}");
            let entries = Selection::Entry(EntryDescriptor::entries(1, 4));
            let first = client.profile(LOAD, Some(&entries)).unwrap();
            assert!(first.is_subset(&load) && first.len() >= 8, "{meter}: {first:?}");
            let mut billed = client.profile(DAILY, None).unwrap();
            billed.extend(client.profile(MONTHLY, None).unwrap());
            assert_eq!(billed, told_of(&lines, meter, true), "{meter}");
            client.release().unwrap();
        }
        assert_eq!(truth(&path), lines, "reading captures nothing");
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_password_sees_identity_and_clock_only() {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "open sesame\n").unwrap();
    let text = format!(
        "[[meters]]\nprotocol = \"dlms-tcp\"\npassword_file = {password_file:?}\n[[meters]]\nprotocol = \"dlms-tcp\""
    );
    let fleet = start(&text).await;
    let places = places(&fleet);
    assert_eq!((&places[0].1.password, places[1].1.password.as_ref().map(String::len)), (&None, Some(12)));
    tokio::task::spawn_blocking(move || {
        let (meter, place) = &places[0];
        let mut public = client(place, reader_config(None));
        for obis in [NAME, DEVICE] {
            assert_eq!(public.value((1, obis, 2)).unwrap()[2..], *meter.as_bytes());
        }
        let now = public.value((8, CLOCK, 2)).unwrap();
        assert!(Data::from_bytes(&now).unwrap().date_time().is_some());
        for hidden in [(3, ENERGY, 2), (7, LOAD, 2), (7, EVENTS, 2), (3, ObisCode([1; 6]), 2)] {
            let refused = public.get(hidden, None).unwrap();
            assert_eq!(refused, Err(ReadError::Refused(DataAccessResult::ReadWriteDenied)));
        }
        let list = public.value((15, ASSOCIATION, 2)).unwrap();
        let listed = object_list(&Data::from_bytes(&list).unwrap()).unwrap().count();
        assert_eq!(listed, 4, "name, device, clock, association");
        public.release().unwrap();

        let mut reader = client(place, reader_config(Some("open sesame")));
        assert!(reader.value((3, ENERGY, 2)).is_ok());
        let wrong = Client::associate(connect(place), link(1, place), reader_config(Some("sesame"))).err();
        let Some(ClientError::Rejected { diagnostic, .. }) = wrong else { panic!("{wrong:?}") };
        assert_eq!(diagnostic, Diagnostic::AUTHENTICATION_FAILURE);
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_object_list_names_can_be_read() {
    let text = "start_at = \"2026-07-01T12:00:00Z\"\n[[meters]]\nprotocol = \"dlms-tcp\"\nzone = \"CET\"\n\
                profile.columns = [\"import-register\", \"import-interval\", \"average-voltage\"]";
    let fleet = start(text).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let mut reader = reader(&places[0].1);
        let list = reader.value((15, ASSOCIATION, 2)).unwrap();
        let objects: Vec<_> = object_list(&Data::from_bytes(&list).unwrap()).unwrap().map(Result::unwrap).collect();
        assert!(objects.len() >= 22, "{} objects", objects.len());
        let mut read = 0;
        for object in &objects {
            for access in &object.attributes {
                let attribute = (object.class_id, object.logical_name, access.attribute);
                let answer = reader.get(attribute, None).unwrap();
                if access.mode == AccessMode::NONE {
                    assert_eq!(answer, Err(ReadError::Refused(DataAccessResult::ReadWriteDenied)), "{attribute:?}");
                } else {
                    assert!(Data::from_bytes(&answer.unwrap()).is_ok(), "{attribute:?}");
                    read += 1;
                }
            }
        }
        assert!(read > 70, "{read} attributes");
        let wrong_class = reader.get((1, ENERGY, 2), None).unwrap();
        assert_eq!(wrong_class, Err(ReadError::Refused(DataAccessResult::ObjectClassInconsistent)));
        let unknown = reader.get((3, ObisCode::new(1, 0, 99, 8, 0, 255), 2), None).unwrap();
        assert_eq!(unknown, Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));
        let no_such = reader.get((3, ENERGY, 4), None).unwrap();
        assert_eq!(no_such, Err(ReadError::Refused(DataAccessResult::ReadWriteDenied)));
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selective_access_can_be_missing_in_two_ways() {
    let fleet = start(
        "[[meters]]\nprotocol = \"dlms-tcp\"\nquirks = [\"no-selective-access\"]\n\
         [[meters]]\nprotocol = \"dlms-tcp\"\nquirks = [\"selective-access-refused\"]",
    )
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let entries = Selection::Entry(EntryDescriptor::entries(1, 4));
        let errors =
            [0, 1].map(|index| reader(&places[index].1).get((7, LOAD, 2), Some(&entries)).unwrap().unwrap_err());
        assert!(matches!(errors[0], ReadError::NotNegotiated(_)), "{errors:?}");
        assert_eq!(errors[1], ReadError::Refused(DataAccessResult::OtherReason));
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_meters_start_and_answer() {
    let fleet = start("history_days = 0.1\n[[meters]]\ncount = 500\nprotocol = \"dlms-tcp\"").await;
    let places = places(&fleet);
    assert_eq!(places.len(), 500);
    tokio::task::spawn_blocking(move || {
        for (meter, place) in &places {
            let mut reader = reader(place);
            assert_eq!(reader.value((1, NAME, 2)).unwrap()[2..], *meter.as_bytes());
            reader.release().unwrap();
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_while_another_is_there_takes_over() {
    let fleet = start("[[meters]]\nprotocol = \"dlms-tcp\"").await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let mut first = reader(&places[0].1);
        assert!(first.value((3, ENERGY, 2)).is_ok());
        let mut second = reader(&places[0].1);
        assert!(second.value((3, ENERGY, 2)).is_ok());
        drop(first);
        assert!(second.value((3, ENERGY, 2)).is_ok());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_meter_answers_nothing_and_a_slow_one_late() {
    let fleet = start(
        "[[meters]]\nprotocol = \"dlms-tcp\"\nfaults = { silence = 1.0 }\n\
         [[meters]]\nprotocol = \"dlms-tcp\"\nfaults = { slow-answers = 1.0 }",
    )
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let mut config = WrapperConfig::new(1, 1);
        config.response_timeout_ms = 300;
        let patience = reader_config(places[0].1.password.as_deref());
        let silent = Client::associate(connect(&places[0].1), WrapperClient::new(config), patience).err();
        assert!(matches!(silent, Some(ClientError::Link { .. })), "{silent:?}");
        let begun = tokio::time::Instant::now();
        drop(reader(&places[1].1));
        assert!(begun.elapsed() >= Duration::from_millis(500));
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_answers_the_same_bytes() {
    let text = |seed: u32| {
        format!(
            "seed = {seed}\nstart_at = \"2026-01-01T00:00:00Z\"\nspeed = 0.001\nhistory_days = 3.0\n\
             [[meters]]\nprotocol = \"dlms-tcp\"\nfaults = {{ clock-jump = 2.0, power-failure = 1.0 }}"
        )
    };
    let mut read = Vec::new();
    for seed in [1, 1, 2] {
        let fleet = start(&text(seed)).await;
        let places = places(&fleet);
        let octets = tokio::task::spawn_blocking(move || {
            let mut reader = reader(&places[0].1);
            [(7, LOAD, 2), (7, EVENTS, 2), (3, ENERGY, 2), (15, ASSOCIATION, 2)]
                .map(|attribute| reader.value(attribute).unwrap())
                .concat()
        });
        read.push(octets.await.unwrap());
        fleet.stop().await;
    }
    assert!(read[0].len() > 5_000, "{} octets", read[0].len());
    assert_eq!(read[0], read[1]);
    assert_ne!(read[0], read[2]);
}
