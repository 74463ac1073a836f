//! Client and server together: over the least of links, over the wrapper and over HDLC, undisturbed and disturbed.

use std::time::Duration;

use super::acse::{Diagnostic, Password};
use super::apdu::{CosemAttribute, DataAccessResult};
use super::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Quirks, ReadError, RequestId, Selected,
    Stage, Value,
};
use super::conformance::Conformance;
use super::pair::{CLOCK, Dice, DummyLink, ENERGY, MISSING, PRIVATE, PROFILE, Pair, SERIAL, profile};
use super::security::{Protection, ProtectionError, Purpose};
use super::server::{self, ClientRole, ServerConfig, ServerConnection, ServerEvent, ServerSession};
use crate::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig, HdlcServer};
use crate::link::Link;
use crate::wrapper::{WrapperClient, WrapperConfig, WrapperServer};

fn reader() -> ClientConfig {
    ClientConfig { authentication: Authentication::Low(Password::new("12345678")), ..ClientConfig::default() }
}

fn meter() -> ServerConfig {
    ServerConfig { reader_password: Some(Password::new("12345678")), ..ServerConfig::default() }
}

type DummyPair = Pair<DummyLink, DummyLink>;

fn pair(client: ClientConfig, server: ServerConfig) -> DummyPair {
    Pair::new(
        ClientSession::new(DummyLink::default(), client),
        ServerConnection::new(DummyLink::default(), ServerSession::new(server)),
    )
}

fn answers(events: &[ClientEvent]) -> Vec<&ClientEvent> {
    events
        .iter()
        .filter(|event| {
            matches!(event, ClientEvent::Value { .. } | ClientEvent::Failed { .. } | ClientEvent::Values { .. })
        })
        .collect()
}

fn value(request: RequestId, data: &[u8]) -> ClientEvent {
    ClientEvent::Value { request, value: Value { data: data.to_vec(), surplus: 0 } }
}

fn wholes(attributes: &[CosemAttribute]) -> Vec<Selected> {
    attributes.iter().copied().map(Selected::whole).collect()
}

#[test]
fn a_reader_associates_reads_and_releases() {
    let mut pair = pair(reader(), meter());
    let energy = pair.client.get(pair.now, ENERGY, None).unwrap();
    let clock = pair.client.get(pair.now, CLOCK, None).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    assert!(
        matches!(pair.events[0], ClientEvent::Associated(negotiated) if negotiated.server_max_receive_pdu_size == 1024)
    );
    assert_eq!(pair.events[1], value(energy, &[0x06, 0x00, 0xbc, 0x61, 0x4e]));
    assert!(matches!(&pair.events[2], ClientEvent::Value { request, .. } if *request == clock));
    assert_eq!(pair.events[3..], [ClientEvent::Released]);
    assert!(pair.now < Duration::from_secs(1_001), "something was waited for");
    let seen = [ServerEvent::Connected, ServerEvent::Associated(ClientRole::Reader), ServerEvent::Released];
    assert_eq!(pair.server_events[..3], seen);
}

#[test]
fn requests_may_come_after_the_association_rested() {
    let mut pair = pair(ClientConfig::default(), meter());
    pair.run();
    assert!(pair.client.negotiated().is_some());
    let energy = pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert_eq!(pair.events.last(), Some(&value(energy, &[0x06, 0x00, 0xbc, 0x61, 0x4e])));
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.events.last(), Some(&ClientEvent::Released));
    assert_eq!(pair.client.get(pair.now, ENERGY, None), Err(ClientError::Ended));
}

#[test]
fn a_load_profile_of_100_kb_arrives_in_blocks_of_the_negotiated_size() {
    let expected = profile();
    assert!(expected.len() > 90_000);
    for (pdu_size, messages_min) in [(0, 4), (128, 800), (1_024, 90), (4_096, 22)] {
        let mut pair = pair(ClientConfig { max_receive_pdu_size: pdu_size, ..reader() }, meter());
        let request = pair.client.get(pair.now, PROFILE, None).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!(answers(&pair.events), [&value(request, &expected)], "PDU size {pdu_size}");
        assert!(pair.messages > messages_min, "PDU size {pdu_size}: {} messages", pair.messages);
    }
}

#[test]
fn the_smallest_pdu_size_still_carries_a_value_octet_by_octet() {
    let mut pair = pair(ClientConfig { max_receive_pdu_size: 13, ..reader() }, meter());
    let request = pair.client.get(pair.now, SERIAL, None).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(answers(&pair.events), [&value(request, b"\x09\x08ABC12345")]);
    assert!(pair.messages > 20);
}

#[test]
fn a_pdu_size_that_fits_no_block_is_refused() {
    let mut pair = pair(ClientConfig { max_receive_pdu_size: 12, ..reader() }, meter());
    pair.run();
    let Err(ClientError::Rejected { service_error: Some(error), .. }) = pair.result else {
        panic!("{:?}", pair.result)
    };
    assert_eq!(error.to_string(), "initiate: PDU size too short");
}

#[test]
fn a_list_is_one_exchange_and_keeps_its_order() {
    let mut pair = pair(reader(), meter());
    let request = pair.client.get_list(pair.now, wholes(&[ENERGY, MISSING, PRIVATE, SERIAL])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let [ClientEvent::Values { request: answered, results }] = answers(&pair.events)[..] else {
        panic!("{:?}", pair.events)
    };
    assert_eq!(*answered, request);
    assert_eq!(results[0].as_ref().unwrap().data, [0x06, 0x00, 0xbc, 0x61, 0x4e]);
    assert_eq!(results[1], Err(ReadError::Refused(DataAccessResult::ObjectUndefined)));
    assert_eq!(results[2].as_ref().unwrap().data, [0x11, 0x2a]);
    assert_eq!(results[3].as_ref().unwrap().data, b"\x09\x08ABC12345");
    // AARQ, GET, RLRQ and their answers, and the farewell.
    assert_eq!(pair.messages, 7);
}

#[test]
fn a_list_is_split_by_length_and_by_the_size_that_the_meter_takes() {
    let attributes = vec![ENERGY; 40];
    for (list_length_max, server_size, gets) in
        [(16, 1_024, 3), (127, 1_024, 1), (127, 64, 7), (127, 20, 40), (1, 0, 40)]
    {
        let client = ClientConfig { list_length_max, ..reader() };
        let mut pair = pair(client, ServerConfig { max_receive_pdu_size: server_size, ..meter() });
        pair.client.get_list(pair.now, wholes(&attributes)).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        let [ClientEvent::Values { results, .. }] = answers(&pair.events)[..] else { panic!("{:?}", pair.events) };
        assert_eq!(results.len(), 40);
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(pair.messages, 5 + 2 * gets, "at most {list_length_max} and {server_size} octets");
    }
}

#[test]
fn a_long_list_arrives_in_blocks() {
    let mut pair = pair(ClientConfig { max_receive_pdu_size: 100, ..reader() }, meter());
    pair.client.get_list(pair.now, wholes(&[PROFILE, MISSING, ENERGY])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let [ClientEvent::Values { results, .. }] = answers(&pair.events)[..] else { panic!("{:?}", pair.result) };
    assert_eq!(results[0].as_ref().unwrap().data, profile());
    assert!(results[1].is_err());
    assert_eq!(results[2].as_ref().unwrap().data, [0x06, 0x00, 0xbc, 0x61, 0x4e]);
}

#[test]
fn without_multiple_references_a_list_is_read_one_by_one() {
    let conformance = Conformance::GET | Conformance::BLOCK_TRANSFER_WITH_GET;
    let mut pair = pair(reader(), ServerConfig { conformance, ..meter() });
    pair.client.get_list(pair.now, wholes(&[ENERGY, MISSING, SERIAL])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let [ClientEvent::Values { results, .. }] = answers(&pair.events)[..] else { panic!("{:?}", pair.events) };
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(pair.messages, 5 + 6);
}

#[test]
fn an_empty_list_is_answered_at_once() {
    let mut pair = pair(reader(), meter());
    let request = pair.client.get_list(pair.now, Vec::new()).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(answers(&pair.events), [&ClientEvent::Values { request, results: Vec::new() }]);
}

#[test]
fn a_selection_reaches_the_object_unchanged() {
    let selection = vec![0x02, 0x02, 0x04, 0x06, 0, 0, 0, 1, 0x06, 0, 0, 0, 10, 0x12, 0, 1, 0x12, 0, 0];
    let mut pair = pair(reader(), meter());
    let request = pair.client.get(pair.now, PROFILE, Some(selection.clone())).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(answers(&pair.events), [&value(request, &[&[0x09, 19][..], &selection].concat())]);
}

#[test]
fn a_selection_that_was_not_negotiated_is_not_sent() {
    let conformance = Conformance::GET | Conformance::BLOCK_TRANSFER_WITH_GET;
    let mut pair = pair(reader(), ServerConfig { conformance, ..meter() });
    let request = pair.client.get(pair.now, PROFILE, Some(vec![0x01, 0x00])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let error = ReadError::NotNegotiated(Conformance::SELECTIVE_ACCESS);
    assert_eq!(answers(&pair.events), [&ClientEvent::Failed { request, error }]);
    assert_eq!(pair.objects.reads, 0);
}

#[test]
fn what_the_meter_refuses_does_not_end_the_session() {
    let mut pair = pair(ClientConfig::default(), meter());
    let missing = pair.client.get(pair.now, MISSING, None).unwrap();
    let private = pair.client.get(pair.now, PRIVATE, None).unwrap();
    let energy = pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    let refused = |request, result| ClientEvent::Failed { request, error: ReadError::Refused(result) };
    assert_eq!(
        answers(&pair.events),
        [
            &refused(missing, DataAccessResult::ObjectUndefined),
            &refused(private, DataAccessResult::ReadWriteDenied),
            &value(energy, &[0x06, 0x00, 0xbc, 0x61, 0x4e]),
        ]
    );
}

#[test]
fn without_block_transfer_a_long_value_is_refused_and_a_long_list_read_one_by_one() {
    let conformance = Conformance::GET | Conformance::MULTIPLE_REFERENCES;
    let mut pair =
        pair(ClientConfig { max_receive_pdu_size: 200, ..reader() }, ServerConfig { conformance, ..meter() });
    pair.client.get_list(pair.now, wholes(&[ENERGY, PROFILE])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let [ClientEvent::Values { results, .. }] = answers(&pair.events)[..] else { panic!("{:?}", pair.events) };
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(ReadError::Refused(DataAccessResult::OtherReason)));
}

#[test]
fn a_wrong_password_is_a_refusal_and_names_itself() {
    for reject_without_user_information in [false, true] {
        let quirks = server::Quirks { reject_without_user_information, ..Default::default() };
        let client =
            ClientConfig { authentication: Authentication::Low(Password::new("wrong")), ..ClientConfig::default() };
        let mut pair = pair(client, ServerConfig { quirks, ..meter() });
        pair.client.get(pair.now, ENERGY, None).unwrap();
        pair.run();
        let Err(error @ ClientError::Rejected { diagnostic, service_error, .. }) = &pair.result else {
            panic!("{:?}", pair.result)
        };
        assert_eq!(*diagnostic, Diagnostic::AUTHENTICATION_FAILURE);
        assert_eq!(service_error.is_none(), reject_without_user_information);
        assert!(error.is_refusal());
        assert_eq!(error.to_string(), "meter refused the association: authentication failure (rejected permanently)");
        assert_eq!(pair.objects.reads, 0);
    }
}

#[test]
fn a_client_without_password_is_told_that_one_is_needed() {
    let mut pair = pair(ClientConfig::default(), ServerConfig { public_client: false, ..meter() });
    pair.run();
    let Err(ClientError::Rejected { diagnostic, .. }) = pair.result else { panic!("{:?}", pair.result) };
    assert_eq!(diagnostic, Diagnostic::MECHANISM_REQUIRED);
}

#[test]
fn a_request_longer_than_the_meter_takes_is_not_sent() {
    let mut pair = pair(reader(), ServerConfig { max_receive_pdu_size: 30, ..meter() });
    let selection = [&[0x01, 0x09, 40][..], &[0; 40]].concat();
    let request = pair.client.get(pair.now, PROFILE, Some(selection)).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    let error = ReadError::RequestTooLong { size: 56, limit: 30 };
    assert_eq!(answers(&pair.events), [&ClientEvent::Failed { request, error }]);
}

#[test]
fn the_quirks_of_a_meter_are_met_by_those_of_the_client() {
    let quirks = server::Quirks {
        blocks_from_zero: true,
        short_conformance_tag: true,
        values_twice: true,
        ignores_release: true,
        ..Default::default()
    };
    let client_quirks =
        Quirks { blocks_from_zero: true, no_release: true, short_conformance_tag: true, disconnect_first: true };
    let client = ClientConfig { max_receive_pdu_size: 1_000, quirks: client_quirks, ..reader() };
    let mut pair = pair(client, ServerConfig { quirks, ..meter() });
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    let [ClientEvent::Value { value, .. }] = answers(&pair.events)[..] else { panic!("{:?}", pair.events) };
    assert_eq!(*value, Value { data: profile(), surplus: profile().len() });
    assert!(!pair.server_events.contains(&ServerEvent::Released), "an RLRQ was sent");
}

#[test]
fn a_meter_that_does_not_answer_the_release_is_left_all_the_same() {
    let quirks = server::Quirks { ignores_release: true, ..Default::default() };
    let mut pair = pair(reader(), ServerConfig { quirks, ..meter() });
    pair.client.release(pair.now).unwrap();
    pair.run();
    assert_eq!(pair.result, Ok(()));
    assert_eq!(pair.events.last(), Some(&ClientEvent::Released));
    assert!(pair.now >= Duration::from_secs(1_000) + ClientConfig::RESPONSE_TIMEOUT);
}

#[test]
fn block_numbers_from_zero_without_the_quirk_end_the_session() {
    let quirks = server::Quirks { blocks_from_zero: true, ..Default::default() };
    let mut pair = pair(reader(), ServerConfig { quirks, ..meter() });
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.run();
    assert_eq!(pair.result, Err(ClientError::BlockOrder { target: PROFILE.into(), expected: 1, found: 0 }));
}

#[test]
fn lost_apdus_are_asked_for_again_and_nothing_is_lost_or_doubled() {
    let mut recovered = 0;
    for seed in 1..40 {
        let client = ClientConfig { attempts: 10, max_receive_pdu_size: 1_500, ..reader() };
        let mut pair = pair(client, meter());
        let mut dice = Dice::new(seed);
        pair.fault = Box::new(move |_| dice.roll(100) >= 15);
        let profile_request = pair.client.get(pair.now, PROFILE, None).unwrap();
        let list = pair.client.get_list(pair.now, wholes(&[ENERGY, SERIAL, CLOCK])).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
        assert_eq!(pair.result, Ok(()), "seed {seed}");
        let found = answers(&pair.events);
        assert_eq!(found[0], &value(profile_request, &profile()), "seed {seed}");
        assert!(
            matches!(found[1], ClientEvent::Values { request, results } if *request == list && results.iter().all(Result::is_ok))
        );
        assert_eq!(found.len(), 2);
        recovered += usize::from(pair.now > Duration::from_secs(1_060));
    }
    assert!(recovered > 30, "hardly anything was lost");
}

#[test]
fn a_line_that_goes_dead_ends_the_session_in_time() {
    let mut pair = pair(ClientConfig { attempts: 3, ..reader() }, meter());
    let mut left = 6;
    pair.fault = Box::new(move |_| {
        left -= 1;
        left > 0
    });
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.run();
    assert!(
        matches!(pair.result, Err(ClientError::Silent { attempts: 3, timeout_ms: 75_000, .. })),
        "{:?}",
        pair.result
    );
    assert!(pair.now < Duration::from_secs(1_000 + 3 * 75 + 1));
}

#[test]
fn damaged_apdus_never_panic_and_always_end() {
    for seed in 1..400 {
        let client = ClientConfig { attempts: 2, max_receive_pdu_size: 5_000, ..reader() };
        let mut pair = pair(client, meter());
        let mut dice = Dice::new(seed);
        pair.fault = Box::new(move |bytes| {
            if dice.roll(3) == 0 && bytes.len() > 1 {
                let at = 1 + dice.roll(bytes.len() as u64 - 1) as usize;
                match dice.roll(3) {
                    0 => bytes[at] = dice.roll(256) as u8,
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, dice.roll(256) as u8),
                }
            }
            true
        });
        for attribute in [ENERGY, PROFILE, SERIAL] {
            pair.client.get(pair.now, attribute, None).unwrap();
        }
        pair.client.get_list(pair.now, wholes(&[ENERGY, SERIAL, MISSING])).unwrap();
        pair.client.release(pair.now).unwrap();
        pair.run();
    }
}

/// A protection that anyone can break, but that shows where each APDU goes: a tag, the purpose, a counter, the APDU
/// with every bit turned.
struct Toy {
    key: u8,
    sent: u8,
}

impl Protection for Toy {
    fn protect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        self.sent = self.sent.wrapping_add(1);
        let header = [0xdb, u8::from(purpose == Purpose::Initiate), self.sent];
        Ok(header.into_iter().chain(apdu.into_iter().map(|octet| octet ^ self.key)).collect())
    }

    fn unprotect(&mut self, purpose: Purpose, apdu: Vec<u8>) -> Result<Vec<u8>, ProtectionError> {
        match apdu.as_slice() {
            [0xdb, initiate, _, rest @ ..] if *initiate == u8::from(purpose == Purpose::Initiate) => {
                Ok(rest.iter().map(|octet| octet ^ self.key).collect())
            }
            // An exception has no ciphered form.
            [0xd8, ..] => Ok(apdu),
            _ => Err(ProtectionError::Ciphered { tag: apdu.first().copied().unwrap_or_default() }),
        }
    }

    fn overhead(&self) -> usize {
        3
    }
}

fn toy_pair(client_key: u8, server_key: u8, client: ClientConfig) -> Pair<DummyLink, DummyLink, Toy> {
    let server = ServerSession::with_protection(meter(), Toy { key: server_key, sent: 0 });
    Pair::new(
        ClientSession::with_protection(DummyLink::default(), client, Toy { key: client_key, sent: 0 }),
        ServerConnection::new(DummyLink::default(), server),
    )
}

#[test]
fn every_service_goes_through_the_protection_and_stays_within_the_pdu_size() {
    let pdu_size = 100;
    let mut pair = toy_pair(0xff, 0xff, ClientConfig { max_receive_pdu_size: pdu_size, ..reader() });
    pair.fault = Box::new(move |message| {
        match message.as_slice() {
            [_, 0x60 | 0x61, aarq_or_aare @ ..] => {
                assert!(aarq_or_aare.windows(2).any(|window| window == [0xdb, 0x01]), "{message:02x?}");
            }
            [_, 0x62 | 0x63, ..] | [_] => {}
            [_, apdu @ ..] => {
                assert_eq!(apdu[..2], [0xdb, 0x00]);
                assert!(apdu.len() <= usize::from(pdu_size));
            }
            [] => panic!("an empty message"),
        }
        true
    });
    ask_everything(&mut pair);
    assert_everything(&pair, "protected");
    assert!(pair.client.protection().sent > 3);
}

#[test]
fn sides_with_different_keys_do_not_associate() {
    let mut pair = toy_pair(0xff, 0x7f, reader());
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(matches!(pair.result, Err(ClientError::Rejected { .. })), "{:?}", pair.result);
    assert_eq!(pair.objects.reads, 0);
}

fn wrapper_pair(client: ClientConfig, server: ServerConfig) -> Pair<WrapperClient, WrapperServer> {
    let config = WrapperConfig::new(1, 1);
    Pair::new(
        ClientSession::new(WrapperClient::new(config.clone()), client),
        ServerConnection::new(WrapperServer::new(config), ServerSession::new(server)),
    )
}

fn hdlc_pair(
    client: ClientConfig,
    server: ServerConfig,
    information_max: u16,
    window: u8,
) -> Pair<HdlcClient, HdlcServer> {
    let address = HdlcAddress::two(1, 17).unwrap();
    let mut config = HdlcConfig::new(ClientAddress::new(0x20).unwrap(), address);
    (config.information_transmit_max, config.information_receive_max) = (information_max, information_max);
    (config.window_transmit, config.window_receive) = (window, window);
    Pair::new(
        ClientSession::new(HdlcClient::new(config.clone()), client),
        ServerConnection::new(HdlcServer::new(config), ServerSession::new(server)),
    )
}

fn ask_everything<C: Link, S: Link, P: Protection>(pair: &mut Pair<C, S, P>) {
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.get_list(pair.now, wholes(&[SERIAL, MISSING, CLOCK])).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
}

fn assert_everything<C: Link, S: Link, P: Protection>(pair: &Pair<C, S, P>, context: &str) {
    assert_eq!(pair.result, Ok(()), "{context}");
    let found = answers(&pair.events);
    let [
        ClientEvent::Value { value: whole, .. },
        ClientEvent::Value { value: energy, .. },
        ClientEvent::Values { results, .. },
    ] = found[..]
    else {
        panic!("{context}: {:?}", pair.events);
    };
    assert!(whole.data == profile(), "{context}: the profile differs");
    assert_eq!(energy.data, [0x06, 0x00, 0xbc, 0x61, 0x4e], "{context}");
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true], "{context}");
    assert_eq!(pair.events.last(), Some(&ClientEvent::Released), "{context}");
}

#[test]
fn everything_is_read_over_the_wrapper() {
    for pdu_size in [0, 500, 4_096] {
        let mut pair = wrapper_pair(ClientConfig { max_receive_pdu_size: pdu_size, ..reader() }, meter());
        ask_everything(&mut pair);
        assert_everything(&pair, &format!("PDU size {pdu_size}"));
    }
}

#[test]
fn everything_is_read_over_hdlc_with_any_frame_and_window_size() {
    for (information_max, window) in [(128, 1), (128, 7), (512, 3), (2_030, 1)] {
        let mut pair = hdlc_pair(reader(), meter(), information_max, window);
        ask_everything(&mut pair);
        assert_everything(&pair, &format!("frames of {information_max}, window {window}"));
    }
}

#[test]
fn noise_on_an_hdlc_line_changes_no_value() {
    let mut complete = 0;
    for seed in 1..30 {
        let mut pair = hdlc_pair(ClientConfig { max_receive_pdu_size: 2_000, ..reader() }, meter(), 256, 4);
        let mut dice = Dice::new(seed);
        pair.fault = Box::new(move |bytes| {
            match dice.roll(40) {
                0 => return false,
                1 if !bytes.is_empty() => {
                    let at = dice.roll(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << dice.roll(8);
                }
                2 => bytes.truncate(bytes.len() / 2),
                3 => bytes.splice(0..0, [0x00, 0x7e, 0xff, 0x7e]).for_each(drop),
                _ => {}
            }
            true
        });
        ask_everything(&mut pair);
        match &pair.result {
            Ok(()) => {
                assert_everything(&pair, &format!("seed {seed}"));
                complete += 1;
            }
            // A line may be too bad to read, but it never yields a wrong value.
            Err(error) => {
                assert!(
                    matches!(error, ClientError::Link { .. } | ClientError::Closed { .. }),
                    "seed {seed}: {error:?}"
                );
                for event in answers(&pair.events) {
                    if let ClientEvent::Value { value, .. } = event {
                        assert!(value.data == profile() || value.data == [0x06, 0x00, 0xbc, 0x61, 0x4e], "seed {seed}");
                    }
                }
            }
        }
    }
    assert!(complete >= 25, "only {complete} of 29 lines were read to the end");
}

#[test]
fn a_wrong_password_over_hdlc_still_closes_the_link_in_order() {
    let client =
        ClientConfig { authentication: Authentication::Low(Password::new("guess")), ..ClientConfig::default() };
    let mut pair = hdlc_pair(client, meter(), 128, 1);
    pair.run();
    assert!(pair.result.as_ref().is_err_and(ClientError::is_refusal), "{:?}", pair.result);
    assert_eq!(pair.server_events.last(), Some(&ServerEvent::Disconnected), "DISC was not sent");
}

#[test]
fn nobody_at_the_other_end_is_a_link_error() {
    let mut pair = hdlc_pair(reader(), meter(), 128, 1);
    pair.fault = Box::new(|_| false);
    pair.run();
    assert!(matches!(pair.result, Err(ClientError::Link { stage: Stage::Connecting, .. })), "{:?}", pair.result);
}

#[test]
fn a_link_of_an_earlier_client_is_closed_first_where_the_meter_needs_it() {
    let quirks = Quirks { disconnect_first: true, ..Quirks::default() };
    let mut pair = hdlc_pair(ClientConfig { quirks, ..reader() }, meter(), 128, 1);
    let mut is_first = true;
    pair.fault = Box::new(move |frame| {
        if std::mem::take(&mut is_first) {
            assert_eq!(frame[6], 0x53, "the first frame is no DISC: {frame:02x?}");
        }
        true
    });
    ask_everything(&mut pair);
    assert_everything(&pair, "after a DISC");
}
