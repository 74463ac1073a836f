//! General block transfer between client and server, and against meters that do not keep to the rules.

use super::acse::Password;
use super::apdu::{GeneralBlock, tag};
use super::block_transfer::{BlockProtection, BlockTransferError};
use super::client::{
    Authentication, ClientConfig, ClientError, ClientEvent, ClientSession, Ignored, Limits, Stage, Value,
};
use super::conformance::Conformance;
use super::pair::{CLOCK, Dice, DummyLink, ECHO, ENERGY, PROFILE, Pair, profile};
use super::security::{
    Ciphered, CipheredConfig, Counter, Key, Keys, Plain, Protection, ReceivedCounters, SystemTitle, Wrapping,
};
use super::server::{ServerConfig, ServerConnection, ServerSession};
use super::value::DataValue;

const SERVICES: Conformance =
    Conformance::GET.with(Conformance::SET).with(Conformance::ACTION).with(Conformance::GENERAL_BLOCK_TRANSFER);
const PDU_SIZE: u16 = 128;

fn configs(window: u8, block_protection: BlockProtection) -> (ClientConfig, ServerConfig) {
    let client = ClientConfig {
        authentication: Authentication::Low(Password::new("12345678")),
        proposed: SERVICES,
        max_receive_pdu_size: PDU_SIZE,
        block_window: window,
        block_protection,
        ..ClientConfig::default()
    };
    let server = ServerConfig {
        reader_password: Some(Password::new("12345678")),
        conformance: SERVICES,
        max_receive_pdu_size: PDU_SIZE,
        block_window: window,
        ..ServerConfig::default()
    };
    (client, server)
}

type DummyPair<P> = Pair<DummyLink, DummyLink, P>;

fn pair<P: Protection>((client, server): (ClientConfig, ServerConfig), [ours, theirs]: [P; 2]) -> DummyPair<P> {
    let mut pair = Pair::new(
        ClientSession::with_protection(DummyLink::default(), client, ours),
        ServerConnection::new(DummyLink::default(), ServerSession::with_protection(server, theirs)),
    );
    pair.fault = Box::new(|message| {
        assert!(message.len() <= 1 + usize::from(PDU_SIZE), "{} octets", message.len());
        true
    });
    pair
}

fn ciphered(wrapping: Wrapping) -> [Ciphered; 2] {
    let config = |octet| {
        let keys = Keys::new(Key::from([0x11; 16]), Key::from([0x22; 16]));
        CipheredConfig { wrapping, ..CipheredConfig::new(keys, SystemTitle([b'M', b'M', b'M', 0, 0, 0, 0, octet])) }
    };
    let counter = || Counter::reserved(10, 100_000);
    [
        Ciphered::client(config(1), counter(), ReceivedCounters::default()).unwrap(),
        Ciphered::server(config(2), counter(), ReceivedCounters::default()).unwrap(),
    ]
}

fn long() -> Vec<u8> {
    DataValue::OctetString(vec![0x5a; 3_000]).to_vec()
}

fn ask_everything<P: Protection>(pair: &mut DummyPair<P>) {
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.client.set(pair.now, CLOCK, long()).unwrap();
    pair.client.invoke(pair.now, ECHO, Some(long())).unwrap();
    pair.client.release(pair.now).unwrap();
    pair.run();
}

fn assert_everything<P: Protection>(pair: &DummyPair<P>, context: &str) {
    assert_eq!(pair.result, Ok(()), "{context}");
    let value = |data: Vec<u8>| Value { data, surplus: 0 };
    let values = pair.events.iter().filter_map(|event| match event {
        ClientEvent::Value { value, .. } => Some(value.clone()),
        _ => None,
    });
    let values: Vec<_> = values.collect();
    assert!(values == [value(vec![0x06, 0x00, 0xbc, 0x61, 0x4e]), value(profile())], "{context}");
    assert!(matches!(&pair.events[3], ClientEvent::Written { results, .. } if results[..] == [Ok(())]), "{context}");
    let invoked = [Ok(Some(value(long())))];
    assert!(matches!(&pair.events[4], ClientEvent::Invoked { results, .. } if results[..] == invoked), "{context}");
    assert_eq!(pair.objects.written, [(CLOCK, None, long())], "{context}");
    assert_eq!(pair.objects.invoked, [(ECHO, Some(long()))], "{context}");
}

#[test]
fn every_service_goes_in_general_blocks_where_it_has_none_of_its_own() {
    for window in [1, 5, 63] {
        let mut pair = pair(configs(window, BlockProtection::Whole), [Plain, Plain]);
        ask_everything(&mut pair);
        assert_everything(&pair, &format!("window {window}"));
    }
}

#[test]
fn blocks_hold_what_was_protected_or_are_protected_each() {
    for window in [1, 7] {
        for form in [BlockProtection::Whole, BlockProtection::Each] {
            for wrapping in [Wrapping::Service, Wrapping::General] {
                let mut pair = pair(configs(window, form), ciphered(wrapping));
                let seen = std::rc::Rc::new(std::cell::Cell::new([false; 256]));
                let tags = seen.clone();
                pair.fault = Box::new(move |message| {
                    assert!(message.len() <= 1 + usize::from(PDU_SIZE), "{} octets", message.len());
                    let mut all = tags.get();
                    all[usize::from(message.get(1).copied().unwrap_or(0))] = true;
                    tags.set(all);
                    true
                });
                ask_everything(&mut pair);
                assert_everything(&pair, &format!("{window} {form:?} {wrapping:?}"));
                assert!(pair.client.protection().is_authenticated());
                let plain_services = [0xc0, 0xc1, 0xc3, 0xc4, 0xc5, 0xc7];
                assert!(!plain_services.iter().any(|tag| seen.get()[*tag]), "nothing goes unprotected");
                // An answer to a short request begins blocks of its own, which hold what was protected whole.
                assert!(seen.get()[usize::from(tag::GENERAL_BLOCK_TRANSFER)] || form == BlockProtection::Each);
            }
        }
    }
}

// Control: let `acknowledged` go on behind what was sent instead of behind what was acknowledged.
#[test]
fn lost_blocks_are_recovered_in_both_directions() {
    for (window, seed) in [(1, 1), (4, 2), (16, 3)] {
        let (client, server) = configs(window, BlockProtection::Whole);
        let client = ClientConfig { attempts: 20, ..client };
        let mut pair = pair((client, server), [Plain, Plain]);
        let mut dice = Dice::new(seed);
        // Commands are not repeated, so that their last block and its answer must arrive.
        pair.fault = Box::new(move |message| {
            let is_middle = matches!(message[..], [_, tag::GENERAL_BLOCK_TRANSFER, control, ..] if control & 0x80 == 0);
            !is_middle || dice.roll(7) != 0
        });
        ask_everything(&mut pair);
        assert_everything(&pair, &format!("window {window}"));
    }
}

#[test]
fn blocks_that_were_not_agreed_on_are_no_answer() {
    let (client, server) = configs(1, BlockProtection::Whole);
    let conformance = Conformance::GET;
    let mut pair = pair((client, ServerConfig { conformance, ..server }), [Plain, Plain]);
    pair.fault = Box::new(|message| {
        if message.get(1) == Some(&tag::GET_RESPONSE) {
            let apdu = message.split_off(1);
            let block =
                GeneralBlock { last: true, streaming: false, window: 1, number: 1, acknowledged: 0, data: &apdu };
            message.extend(block.encode());
        }
        true
    });
    pair.client.get(pair.now, ENERGY, None).unwrap();
    pair.run();
    assert!(pair.events.contains(&ClientEvent::Ignored(Ignored::Tag(tag::GENERAL_BLOCK_TRANSFER))));
    assert!(matches!(pair.result, Err(ClientError::Silent { stage: Stage::Reading, .. })));
}

/// A client that reads, and a meter whose answers become what `answer` makes of their number.
fn hostile(mut answer: impl FnMut(u16) -> Vec<u8> + 'static) -> (DummyPair<Plain>, ClientError) {
    let (client, server) = configs(1, BlockProtection::Whole);
    let limits = Limits { value_bytes_max: 5_000, ..Limits::default() };
    let mut pair = pair((ClientConfig { limits, ..client }, server), [Plain, Plain]);
    let (mut number, mut is_answer) = (0, false);
    pair.fault = Box::new(move |message| {
        let is_read = matches!(message.get(1), Some(&(tag::GET_REQUEST | tag::GENERAL_BLOCK_TRANSFER)));
        is_answer = is_read && !is_answer;
        if is_answer || !is_read && message.get(1) != Some(&tag::GET_RESPONSE) {
            return true;
        }
        number += 1;
        message.truncate(1);
        message.extend(answer(number));
        is_answer = false;
        true
    });
    pair.client.get(pair.now, PROFILE, None).unwrap();
    pair.run();
    let error = pair.result.clone().expect_err("an error");
    (pair, error)
}

#[test]
fn blocks_without_end_or_sense_end_the_session() {
    let block = |number, data: &[u8]| {
        GeneralBlock { last: false, streaming: false, window: 1, number, acknowledged: 0, data }.encode()
    };
    let (_, error) = hostile(move |number| block(number, &[0x5a; 100]));
    assert_eq!(error, ClientError::BlockTransfer(BlockTransferError::TooLong { limit: 5_000 }));
    // The same block for ever is no progress, however often it comes.
    let (pair, error) = hostile(move |_| block(7, &[0x5a; 100]));
    assert!(matches!(error, ClientError::Silent { stage: Stage::Reading, .. }), "{error:?}");
    assert!(pair.messages < 20_000);
    let (_, error) = hostile(|_| vec![tag::GENERAL_BLOCK_TRANSFER, 0x80, 0x00]);
    assert!(matches!(error, ClientError::BlockTransfer(BlockTransferError::Malformed(_))), "{error:?}");
}
