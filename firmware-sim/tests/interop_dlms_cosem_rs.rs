//! An independent client, that of `dlms-cosem-rs`, reads a virtual meter over TCP; its rows are taken apart by hand.

#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use common::{places, start, told_of, truth};
use dlms_cosem_rs::acse::AuthMechanism;
use dlms_cosem_rs::axdr::DateTime as TheirDateTime;
use dlms_cosem_rs::client as theirs;
use dlms_cosem_rs::codec::Encode as _;
use dlms_cosem_rs::cosem::profile::RangeDescriptor;
use dlms_cosem_rs::obis::Obis;
use dlms_cosem_rs::security::{KeyRing, RustCryptoProvider, Secret};
use dlms_cosem_rs::transport::wrapper::{StreamReassembler, Wpdu};
use dlms_cosem_rs::xdlms::{AttributeDescriptor, SelectiveAccess};
use protocols::metering::UtcMillis;

const LOAD_PROFILE: (u16, [u8; 6], i8) = (7, [1, 0, 99, 1, 0, 255], 2);
const DEVICE_NAME: (u16, [u8; 6], i8) = (1, [0, 0, 42, 0, 0, 255], 2);

struct Reader {
    stream: TcpStream,
    client: theirs::ClientSession<RustCryptoProvider>,
    wport: u16,
}

impl Reader {
    fn associate(address: &str, wport: u16, password: &str) -> Self {
        let config = theirs::ClientConfig {
            client_sap: 1,
            mechanism: AuthMechanism::Low,
            password: Some(Secret::new(password.as_bytes()).unwrap()),
            max_pdu_size: 800,
            ..theirs::ClientConfig::default()
        };
        let client = theirs::ClientSession::new(config, RustCryptoProvider::new(KeyRing::default()));
        let mut reader = Self { stream: TcpStream::connect(address).unwrap(), client, wport };
        let mut out = [0; 1_024];
        let length = reader.client.associate_request(&mut out).unwrap();
        let answer = reader.exchange(&out[..length]);
        let step = reader.client.handle_associate_response(&answer).unwrap();
        assert_eq!(step, theirs::AssociationStep::Established);
        reader
    }

    fn exchange(&mut self, apdu: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        Wpdu::new(1, self.wport, apdu).unwrap().encode(&mut framed).unwrap();
        self.stream.write_all(&framed).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 4_096]);
        loop {
            let count = self.stream.read(&mut chunk).unwrap();
            assert!(count > 0, "the meter hung up");
            answer.extend(&chunk[..count]);
            if let Some((wpdu, _)) = StreamReassembler::new(0).next_pdu(&answer).unwrap() {
                return wpdu.apdu.to_vec();
            }
        }
    }

    fn read(&mut self, attribute: (u16, [u8; 6], i8), selection: Option<SelectiveAccess<'_>>) -> Vec<u8> {
        let (mut out, mut scratch, mut space) = ([0; 1_024], vec![0; 8_192], vec![0; 65_536]);
        let (class_id, obis, index) = attribute;
        let descriptor = AttributeDescriptor::new(class_id, Obis(obis), index);
        let mut length = self.client.get_request(descriptor, selection, &mut out).unwrap();
        let mut collector = theirs::BlockCollector::new(&mut space);
        let mut encoded = Vec::new();
        loop {
            let answer = self.exchange(&out[..length]);
            match self.client.handle_response(&answer, &mut scratch).unwrap() {
                theirs::Response::Data(value) => {
                    value.encode(&mut encoded).unwrap();
                    return encoded;
                }
                theirs::Response::Block { last, number, data } => {
                    collector.push(number, data).unwrap();
                    if last {
                        collector.value().unwrap().encode(&mut encoded).unwrap();
                        return encoded;
                    }
                    length = self.client.get_next_block_request(number, &mut out).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The import register of each row: its instant and its value. A row is clock, status, import and export.
fn imports(buffer: &[u8]) -> BTreeSet<(String, String)> {
    const ROW: usize = 2 + 2 + 12 + 2 + 5 + 5;
    let rows = &buffer[buffer.len() % ROW..];
    let instants = rows.chunks(ROW).map(|row| {
        let ([2, 4, 9, 12], [0x11, _, 6, a, b, c, d, 6, ..]) = (&row[..4], &row[16..]) else { panic!("{row:02x?}") };
        let clock = &row[4..16];
        let year = i32::from(clock[0]) << 8 | i32::from(clock[1]);
        let deviation = i32::from(i16::from_be_bytes([clock[9], clock[10]]));
        let date_time = ((year, clock[2], clock[3]), (clock[5], clock[6], clock[7]));
        let instant = UtcMillis::from_civil(date_time.0, date_time.1, -deviation).unwrap();
        (instant.to_string(), u32::from_be_bytes([*a, *b, *c, *d]).to_string())
    });
    instants.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_reads_what_the_truth_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.jsonl");
    let fleet = start(&format!(
        "truth = {path:?}\nstart_at = \"2026-03-29T12:00:30Z\"\nhistory_days = 2.0\n\
         [[meters]]\nprotocol = \"dlms-tcp\"\nzone = \"CET\""
    ))
    .await;
    let places = places(&fleet);
    tokio::task::spawn_blocking(move || {
        let (meter, place) = &places[0];
        let (address, password) = (place.address.as_deref().unwrap(), place.password.as_deref().unwrap());
        let mut reader = Reader::associate(address, place.wport.unwrap(), password);
        assert_eq!(reader.read(DEVICE_NAME, None)[2..], *meter.as_bytes());
        let told = told_of(&truth(&path), meter, false);
        let told: BTreeSet<(String, String)> =
            told.into_iter().filter(|told| told.0 == "1-0:1.8.0").map(|told| (told.3, told.5)).collect();
        assert_eq!(imports(&reader.read(LOAD_PROFILE, None)), told);
        assert_eq!(told.len(), 192);

        // From 01:30 winter time to 03:15 summer time of the same night: 00:30 to 01:15 in UTC.
        let edge = |hour, minute, deviation: i16, status| {
            let [high, low] = deviation.to_be_bytes();
            TheirDateTime::from_bytes([0x07, 0xea, 3, 29, 7, hour, minute, 0, 0, high, low, status])
        };
        let range = RangeDescriptor::by_clock(edge(1, 30, -60, 0), edge(3, 15, -120, 0x80));
        let mut space = [0; 128];
        let part = imports(&reader.read(LOAD_PROFILE, Some(range.to_selective_access(&mut space).unwrap())));
        let labels: Vec<&str> = part.iter().map(|(instant, _)| instant.as_str()).collect();
        let expected = ["00:30", "00:45", "01:00", "01:15"].map(|time| format!("2026-03-29T{time}:00Z"));
        assert_eq!(labels, expected);
        assert!(part.is_subset(&told));
    })
    .await
    .unwrap();
    fleet.stop().await;
}
