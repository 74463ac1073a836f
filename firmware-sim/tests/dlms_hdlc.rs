//! DLMS over HDLC: several meters on one line, on a pty or on TCP, and what faults on that line do.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use common::{Client, LOAD, places, reader_config, start, told_of, truth};
use firmware_sim::speak::LinePlace;
use protocols::cosem::profile_generic::selection::{RangeDescriptor, Selection};
use protocols::dlms::client::ClientError;
use protocols::dlms::datetime::{ClockStatus, DateTime};
use protocols::hdlc::{AddressForm, ClientAddress, HdlcAddress, HdlcClient, HdlcConfig};
use protocols::metering::ObisCode;
use tokio::time::Instant;

const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const NAME: ObisCode = ObisCode::new(0, 0, 42, 0, 0, 255);

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A pty or a TCP line, as the place says.
fn connect(place: &LinePlace) -> Box<dyn Stream> {
    let patience = Duration::from_millis(20);
    if let Some(path) = &place.path {
        return Box::new(tokio_serial::new(path, 9_600).timeout(patience).open().unwrap());
    }
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    Box::new(stream)
}

fn config(place: &LinePlace, form: AddressForm) -> HdlcConfig {
    let (logical, physical) = (place.logical_device.unwrap(), place.hdlc_address.unwrap());
    let address = match form {
        AddressForm::Four => HdlcAddress::four(logical, physical),
        _ => HdlcAddress::two(logical, physical),
    };
    HdlcConfig::new(ClientAddress::new(place.client.unwrap()).unwrap(), address.unwrap())
}

fn associate(place: &LinePlace, config: HdlcConfig) -> Result<Client<Box<dyn Stream>, HdlcClient>, ClientError> {
    let password = reader_config(place.password.as_deref());
    Client::associate(connect(place), HdlcClient::new(config), password)
}

fn reader(place: &LinePlace) -> Client<Box<dyn Stream>, HdlcClient> {
    associate(place, config(place, AddressForm::Two)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_meters_on_one_pty_are_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("truth.jsonl"), folder.path().join("rs485"));
    let fleet = start(&format!(
        "truth = {path:?}\nhistory_days = 1.0\n[[meters]]\ncount = 3\nprotocol = \"dlms-hdlc\"\nline = \"pty\"\n\
         path = {link:?}\nhdlc_address_first = 17\nhdlc_information_octets_max = 512\nzone = \"CET\""
    ))
    .await;
    let places = places(&fleet);
    assert_eq!(places.iter().map(|(_, place)| place.hdlc_address.unwrap()).collect::<Vec<_>>(), [17, 18, 19]);
    assert!(places.iter().all(|(_, place)| place.path.as_deref() == link.to_str()));
    tokio::task::spawn_blocking(move || {
        for (meter, place) in &places {
            let mut reader = reader(place);
            assert_eq!(reader.value((1, NAME, 2)).unwrap()[2..], *meter.as_bytes());
            let all = reader.profile(LOAD, None).unwrap();
            let told = told_of(&truth(&path), meter, false);
            // Between the read and the look into the truth a quarter of an hour may have ended.
            assert!(all.is_subset(&told) && told.len() - all.len() <= 2 && all.len() >= 190, "{meter}");
            let hour = all.iter().next_back().unwrap().3.parse::<protocols::metering::UtcMillis>().unwrap();
            let edge = |ms| DateTime::from_utc(hour.plus_ms(ms), 0, ClockStatus::GOOD);
            let range = Selection::Range(RangeDescriptor::clock(edge(-3_600_000), edge(0)));
            let part = reader.profile(LOAD, Some(&range)).unwrap();
            assert!(part.is_subset(&all) && part.len() == 10, "{meter}: {} readings", part.len());
            reader.release().unwrap();
        }
        // The long form of an address is answered, too.
        let (meter, place) = &places[2];
        let mut reader = associate(place, config(place, AddressForm::Four)).unwrap();
        assert_eq!(reader.value((1, NAME, 2)).unwrap()[2..], *meter.as_bytes());
    })
    .await
    .unwrap();
    fleet.stop().await;
    assert!(!Path::new(&link).exists(), "the link goes with the fleet");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_under_an_address_that_nobody_has() {
    let fleet = start("[[meters]]\ncount = 2\nprotocol = \"dlms-hdlc\"").await;
    let places = places(&fleet);
    assert_eq!(places[0].1.address, places[1].1.address);
    tokio::task::spawn_blocking(move || {
        let mut place = places[0].1.clone();
        place.hdlc_address = Some(99);
        let mut config = config(&place, AddressForm::Two);
        (config.response_timeout_ms, config.retries_max) = (100, 1);
        assert!(matches!(associate(&place, config).err(), Some(ClientError::Link { .. })));
        assert!(reader(&places[1].1).value((3, ENERGY, 2)).is_ok());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paced_line_is_as_slow_as_its_baud_rate() {
    let fleet = start("history_days = 0.05\n[[meters]]\nprotocol = \"dlms-hdlc\"\nbaud = 2400\npace = true").await;
    let places = places(&fleet);
    assert_eq!(places[0].1.baud, Some(2_400));
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut reader = reader(&places[0].1);
        assert!(reader.value((3, ENERGY, 2)).is_ok());
        // All frames together have more than 150 octets, at 240 a second.
        assert!(begun.elapsed() > Duration::from_millis(600), "{:?}", begun.elapsed());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_costs_time_but_never_a_wrong_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nstart_at = \"2026-03-01T00:00:00Z\"\nspeed = 0.001\nhistory_days = 1.0\n\
         [[meters]]\ncount = 3\nprotocol = \"dlms-hdlc\"\n\
         [meters.faults]\nline-noise = 0.03\necho = 0.2\ndropped-bytes = 0.02\nsilence = 0.02\nwrong-crc = 0.03"
    ))
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let lines = truth(&path);
        let mut whole = 0;
        for round in 0..12 {
            let (meter, place) = &places[round % 3];
            let mut config = config(place, AddressForm::Two);
            (config.response_timeout_ms, config.retries_max) = (150, 8);
            config.inter_octet_timeout_ms = 60;
            let Ok(mut reader) = associate(place, config) else { continue };
            match reader.profile(LOAD, None) {
                Ok(read) => {
                    assert_eq!(read, told_of(&lines, meter, false), "{meter}");
                    whole += 1;
                }
                Err(ClientError::Link { .. } | ClientError::Closed { .. } | ClientError::Silent { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(whole >= 6, "{whole} of 12 reads came through");
    })
    .await
    .unwrap();
    fleet.stop().await;
}
