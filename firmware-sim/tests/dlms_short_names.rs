//! DLMS with short names, over TCP and over HDLC: what a client reads is what the truth says, and the list is what is served.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::{Client, LOAD, places, reader_config, start, told_of, truth};
use firmware_sim::speak::LinePlace;
use protocols::cosem::profile_generic::selection::{EntryDescriptor, Selection};
use protocols::dlms::apdu::DataAccessResult;
use protocols::dlms::client::{ClientConfig, ClientError, ReadError, Referencing, ShortNames};
use protocols::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig};
use protocols::link::Link;
use protocols::metering::ObisCode;
use protocols::wrapper::{WrapperClient, WrapperConfig};

const CLOCK: ObisCode = ObisCode::new(0, 0, 1, 0, 0, 255);
const NAME: ObisCode = ObisCode::new(0, 0, 42, 0, 0, 255);
const ENERGY: ObisCode = ObisCode::new(1, 0, 1, 8, 0, 255);
const ASSOCIATION: ObisCode = ObisCode::new(0, 0, 40, 0, 0, 255);

fn link(place: &LinePlace) -> Box<dyn Link> {
    if let Some(wport) = place.wport {
        return Box::new(WrapperClient::new(WrapperConfig::new(1, wport)));
    }
    let address = HdlcAddress::two(1, place.hdlc_address.unwrap()).unwrap();
    Box::new(HdlcClient::new(HdlcConfig::new(ClientAddress::new(1).unwrap(), address)))
}

fn associate(
    place: &LinePlace,
    referencing: Referencing,
    password: Option<&str>,
) -> Result<Client<TcpStream, Box<dyn Link>>, ClientError> {
    let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let config = ClientConfig { referencing, ..reader_config(password) };
    Client::associate(stream, link(place), config)
}

fn reader(place: &LinePlace) -> Client<TcpStream, Box<dyn Link>> {
    associate(place, Referencing::ShortNames, place.password.as_deref()).unwrap()
}

// Control, seen to fail: give the attributes of a name another step than 8.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_by_short_names_are_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        r#"
        truth = {path:?}
        start_at = "2026-10-27T00:00:30Z"
        history_days = 2.0
        [[meters]]
        protocol = "dlms-tcp"
        referencing = "sn"
        zone = "CET"
        [[meters]]
        protocol = "dlms-hdlc"
        referencing = "sn"
        zone = "CET"
        quirks = ["null-clock", "blocks-from-zero"]
        "#
    ))
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        for (index, (meter, place)) in places.iter().enumerate() {
            let mut config = reader_config(place.password.as_deref());
            (config.referencing, config.quirks.blocks_from_zero) = (Referencing::ShortNames, index > 0);
            let stream = TcpStream::connect(place.address.as_deref().unwrap()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut client = Client::associate(stream, link(place), config).unwrap();
            assert_eq!(client.value((1, NAME, 2)).unwrap()[2..], *meter.as_bytes());
            let load = told_of(&truth(&path), meter, false);
            assert!(load.len() > 300, "{meter}: {} readings", load.len());
            assert_eq!(client.profile(LOAD, None).unwrap(), load, "{meter}");
            let entries = Selection::Entry(EntryDescriptor::entries(1, 4));
            let first = client.profile(LOAD, Some(&entries)).unwrap();
            assert!(first.is_subset(&load) && first.len() >= 8, "{meter}: {first:?}");
            client.release().unwrap();
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_the_list_of_short_names_has_can_be_read() {
    let fleet = start("[[meters]]\nprotocol = \"dlms-tcp\"\nreferencing = \"sn\"").await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let place = &places[0].1;
        let mut reader = reader(place);
        let list = reader.value((12, ASSOCIATION, 2)).unwrap();
        let names = ShortNames::decode(&list).unwrap();
        assert!(names.objects().len() >= 20, "{} objects", names.objects().len());
        for object in names.objects() {
            let attribute = |index| (object.class_id, object.logical_name, index);
            assert_eq!(reader.value(attribute(1)).unwrap()[2..], object.logical_name.0, "{object:?}");
            assert!(reader.get(attribute(2), None).unwrap().is_ok(), "{object:?}");
        }
        let unknown = reader.get((3, ObisCode::new(1, 0, 99, 8, 0, 255), 2), None).unwrap();
        assert_eq!(unknown, Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));

        let mut public = associate(place, Referencing::ShortNames, None).unwrap();
        let list = public.value((12, ASSOCIATION, 2)).unwrap();
        assert_eq!(ShortNames::decode(&list).unwrap().objects().len(), 4, "name, device, clock, association");
        assert!(public.value((8, CLOCK, 2)).is_ok());
        assert!(public.get((3, ENERGY, 2), None).unwrap().is_err());
    })
    .await
    .unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_with_short_names_has_no_others() {
    let text = "[[meters]]\nprotocol = \"dlms-tcp\"\nreferencing = \"sn\"\n[[meters]]\nprotocol = \"dlms-tcp\"";
    let fleet = start(text).await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        for (place, other) in [(&places[0].1, Referencing::LogicalNames), (&places[1].1, Referencing::ShortNames)] {
            let refused = associate(place, other, place.password.as_deref()).err();
            assert!(matches!(refused, Some(ClientError::Rejected { .. })), "{refused:?}");
        }
    })
    .await
    .unwrap();
    fleet.stop().await;
}
