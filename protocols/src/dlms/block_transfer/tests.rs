use super::*;
use crate::dlms::pair::Dice;
use crate::dlms::security::hex;
use proptest::prelude::*;

const PLAIN: BlockProtection = BlockProtection::Whole;

fn apdu(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

/// Passes an APDU from one side to the other over a line that loses messages, and answers with it and how many messages it took.
fn pass(octets: &[u8], room: usize, windows: [u8; 2], mut arrives: impl FnMut() -> bool) -> (Vec<u8>, usize) {
    let (mut from, mut to) =
        (BlockTransfer::new([windows[0]; 2], 1 << 20), BlockTransfer::new([windows[1]; 2], 1 << 20));
    from.peer_window = windows[1];
    let mut line = from.send(octets.to_vec(), room, PLAIN).unwrap();
    let mut messages = 0;
    for _ in 0..10_000 {
        let mut back = Vec::new();
        for block in std::mem::take(&mut line) {
            messages += 1;
            if arrives() {
                let taken = to.take(&block, PLAIN).unwrap();
                back.extend(taken.send);
                if let Some(apdu) = taken.apdu {
                    return (apdu, messages);
                }
            }
        }
        for block in back {
            messages += 1;
            if arrives() {
                line.extend(from.take(&block, PLAIN).unwrap().send);
            }
        }
        if line.is_empty() {
            line = from.repeat();
        }
    }
    panic!("no end");
}

#[test]
fn a_window_is_sent_at_once_and_acknowledged_as_one() {
    assert_eq!(pass(&apdu(100), 10, [1, 1], || true), (apdu(100), 19));
    assert_eq!(pass(&apdu(100), 10, [5, 5], || true), (apdu(100), 11));
    assert_eq!(pass(&apdu(100), 10, [63, 63], || true), (apdu(100), 10));
    assert_eq!(pass(&apdu(100), 10, [63, 3], || true), (apdu(100), 13), "no more than the peer takes");
    assert_eq!(pass(&[], 10, [1, 1], || true), (Vec::new(), 1));
}

// Control: let `out_of_order` append the block.
#[test]
fn a_lost_block_and_all_behind_it_are_sent_again() {
    let mut number = 0;
    let arrives = || {
        number += 1;
        number != 3
    };
    // Six blocks, of which the third gets lost; the acknowledgement of two; four blocks again, and the rest.
    assert_eq!(pass(&apdu(80), 10, [6, 6], arrives), (apdu(80), 13));
    let mut number = 0;
    let arrives = || {
        number += 1;
        number != 1
    };
    assert_eq!(pass(&apdu(20), 10, [6, 6], arrives), (apdu(20), 5), "the first one too");
}

#[test]
fn both_directions_follow_one_another() {
    let (mut client, mut server) = (BlockTransfer::new([1; 2], 1_000), BlockTransfer::new([1; 2], 1_000));
    let mut to_server = client.send(apdu(25), 10, PLAIN).unwrap();
    let mut answer = None;
    for _ in 0..20 {
        let taken = server.take(&to_server.remove(0), PLAIN).unwrap();
        let mut to_client = taken.send;
        if let Some(request) = taken.apdu {
            assert_eq!(request, apdu(25));
            to_client = server.send(apdu(35), 10, PLAIN).unwrap();
        }
        let taken = client.take(&to_client.remove(0), PLAIN).unwrap();
        to_server = taken.send;
        answer = taken.apdu;
        if answer.is_some() {
            break;
        }
    }
    assert_eq!(answer, Some(apdu(35)));
    // The next exchange of the same two.
    client.end();
    let block = client.send(vec![7], 10, PLAIN).unwrap();
    assert_eq!(server.take(&block[0], PLAIN).unwrap().apdu, Some(vec![7]));
}

#[test]
fn an_answer_that_got_lost_is_sent_again() {
    let mut server = BlockTransfer::new([4; 2], 1_000);
    let block = GeneralBlock { last: true, streaming: false, window: 4, number: 1, acknowledged: 0, data: &[1] };
    assert_eq!(server.take(&block.encode(), PLAIN).unwrap().apdu, Some(vec![1]));
    let sent = server.send(apdu(30), 10, PLAIN).unwrap();
    assert_eq!(sent.len(), 3);
    let acknowledgement = GeneralBlock { number: 2, acknowledged: 1, data: &[], ..block };
    let again = server.take(&acknowledgement.encode(), PLAIN).unwrap().send;
    assert_eq!(again.len(), 2);
    assert_eq!(GeneralBlock::decode(&again[0]).unwrap().number, 2);
}

// Control: take it as the answer.
#[test]
fn a_late_answer_to_what_came_before_does_not_end_a_request() {
    let mut client = BlockTransfer::new([1; 2], 1_000);
    client.send(apdu(30), 10, PLAIN).unwrap();
    let late = GeneralBlock { last: true, streaming: false, window: 1, number: 1, acknowledged: 3, data: &[0xc5] };
    assert_eq!(client.take(&late.encode(), PLAIN), Ok(Taken::default()));
    let acknowledgement = GeneralBlock { number: 2, acknowledged: 1, data: &[], ..late };
    assert_eq!(client.take(&acknowledgement.encode(), PLAIN).unwrap().send.len(), 1);
}

/// Control, seen to fail: taken without a look at what is complete, they are counted until the counter overflows.
#[test]
fn blocks_behind_the_last_are_no_other_request() {
    let mut server = BlockTransfer::new([4; 2], 1_000);
    let last = |number| GeneralBlock { last: true, streaming: false, window: 1, number, acknowledged: 0, data: &[7] };
    assert_eq!(server.take(&last(1).encode(), BlockProtection::Whole).unwrap().apdu, Some(vec![7]));
    let answer = server.send(apdu(100), 10, BlockProtection::Whole).unwrap();
    for number in 2..400 {
        let taken = server.take(&last(number).encode(), BlockProtection::Whole).unwrap();
        assert_eq!(taken, Taken { send: answer.clone(), apdu: None }, "the answer got lost");
    }
}

/// Control, seen to fail: the form of any block taken for that of ours.
#[test]
fn nobody_changes_the_form_of_what_has_still_to_leave() {
    let mut client = BlockTransfer::new([1; 2], 1_000);
    client.send(apdu(100), 10, BlockProtection::Each).unwrap();
    let block = |number, data| GeneralBlock { last: true, streaming: false, window: 1, number, acknowledged: 0, data };
    for forged in [block(9, &[1][..]), block(1, &[]), block(2, &[])] {
        let taken = client.take(&forged.encode(), BlockProtection::Whole).unwrap();
        assert_eq!((taken, client.form()), (Taken::default(), BlockProtection::Each));
    }
}

#[test]
fn blocks_against_the_rules_are_named() {
    let block = GeneralBlock { last: false, streaming: true, window: 4, number: 1, acknowledged: 0, data: &[0xe0; 60] };
    let mut server = BlockTransfer::new([4; 2], 100);
    server.take(&block.encode(), PLAIN).unwrap();
    let second = GeneralBlock { number: 2, ..block }.encode();
    assert_eq!(server.take(&second, BlockProtection::Each), Err(BlockTransferError::Mixed));
    assert_eq!(server.take(&second, PLAIN), Err(BlockTransferError::TooLong { limit: 100 }));
    let last = GeneralBlock { last: true, number: 2, data: &[1], ..block }.encode();
    assert_eq!(server.take(&last, PLAIN), Err(BlockTransferError::Nested));
    assert!(matches!(server.take(&[0xe0, 0], PLAIN), Err(BlockTransferError::Malformed(_))));

    let mut client = BlockTransfer::new([1; 2], 100);
    client.send(apdu(30), 10, PLAIN).unwrap();
    let acknowledgement = |acknowledged| GeneralBlock { acknowledged, data: &[], ..block }.encode();
    let wrong = |found, sent, known| Err(BlockTransferError::Acknowledgement { found, sent, known });
    assert_eq!(client.take(&acknowledgement(2), PLAIN), wrong(2, 1, 0));
    client.take(&acknowledgement(1), PLAIN).unwrap();
    assert_eq!(client.take(&acknowledgement(0), PLAIN), wrong(0, 2, 1));
    let too_many = BlockTransferError::TooManyBlocks { octets: 70_000, room: 1 };
    assert_eq!(client.send(apdu(70_000), 1, PLAIN), Err(too_many));
}

#[test]
fn a_push_in_blocks_is_put_together_without_anybody_acknowledging_it() {
    let first = hex("e0 40 0001 0000 03 0f0000");
    let last = hex("e0 80 0002 0000 05 0001 00 1107");
    let mut assembler = BlockAssembler::default();
    assert_eq!(assembler.take(&first), Ok(None));
    assert_eq!(assembler.take(&first), Ok(None), "it began anew");
    assert_eq!(assembler.take(&last), Ok(Some(hex("0f00000001001107"))));
    assert_eq!(assembler.take(&last), Err(BlockTransferError::Missing { expected: 1, found: 2 }));
    assert_eq!(assembler.take(&first), Ok(None));
    let third = hex("e0 80 0003 0000 01 aa");
    assert_eq!(assembler.take(&third), Err(BlockTransferError::Missing { expected: 2, found: 3 }));
    let nested = hex("e0 80 0001 0000 01 e0");
    assert_eq!(assembler.take(&nested), Err(BlockTransferError::Nested));
    let mut small = BlockAssembler::new(4);
    assert_eq!(small.take(&first), Ok(None));
    assert_eq!(small.take(&last), Err(BlockTransferError::TooLong { limit: 4 }));
}

/// What a Landis+Gyr E450 in Cyprus pushed (esphome/esphome#16942), without HDLC and with other serial numbers.
const E450: [&str; 3] = [
    "e040000100 0070 0f007c83d30c07ea071206103a00ff800000020d010d020412002809060009190900ff0f021200000204120001090600002a0000ff\
     0f02120000020412000109060000600101ff0f02120000020412000109060000600e00ff0f02120000020412000309060100010801ff0f02120000",
    "e0400002 0000 6c 020412000309060100010802ff0f02120000020412000309060100020801ff0f02120000020412000309060100020802ff0f\
     02120000020412000309060100010800ff0f02120000020412000309060100020800ff0f02120000020412000309060100030800ff0f02120000",
    "e0c00003 0000 73 020412000309060100040800ff0f0212000002041200460906000060030aff0f0312000009104c475a313030303030303030\
     30303030090730303030303030090852415445320000000600361f58060036c67e0600018eb306002778d506006ce5d60600\
     290788060004c70d06002714591601",
];

#[test]
fn the_push_of_an_e450_is_put_together() {
    let mut assembler = BlockAssembler::default();
    let mut taken = E450.map(|block| assembler.take(&hex(block)).unwrap());
    assert_eq!(taken[..2], [None, None]);
    let apdu = taken[2].take().unwrap();
    let notification = crate::dlms::notification::decode_data_notification(&apdu).unwrap();
    assert_eq!((notification.invoke_id(), notification.surplus), (0x7c_83d3, &[][..]));
    let crate::dlms::notification::NotificationBody::Data(body) = notification.body else { panic!("{notification:?}") };
    let values = body.structure().unwrap();
    // Its own object list, and a value for each other element of it.
    assert_eq!((values.len(), values.at(0).unwrap().array().unwrap().len()), (13, 13));
    assert_eq!(values.at(4), Some(crate::dlms::data::Data::DoubleLongUnsigned(0x0036_1f58)));
}

proptest! {
    #[test]
    fn an_apdu_arrives_whole_whatever_gets_lost(
        len in 0usize..800, room in 1usize..200, windows: [u8; 2], seed: u64, every in 2u64..12,
    ) {
        let mut dice = Dice::new(seed);
        let windows = windows.map(|window| 1 + window % 63);
        let (passed, _) = pass(&apdu(len), room, windows, || dice.roll(every) != 0);
        prop_assert_eq!(passed, apdu(len));
    }

    #[test]
    fn whatever_comes_memory_is_bounded_and_nothing_panics(
        blocks in prop::collection::vec(any::<(bool, bool, u8, u8, u8, u8, bool)>(), 0..60), window: u8,
    ) {
        let mut side = BlockTransfer::new([window; 2], 500);
        let mut assembler = BlockAssembler::new(500);
        drop(side.send(apdu(100), 7, PLAIN));
        for (last, streaming, window, number, acknowledged, len, each) in blocks {
            let data = vec![0xc0; usize::from(len)];
            let (number, acknowledged) = (u16::from(number % 8), u16::from(acknowledged % 16));
            let block = GeneralBlock { last, streaming, window, number, acknowledged, data: &data }.encode();
            let form = if each { BlockProtection::Each } else { PLAIN };
            if let Ok(taken) = side.take(&block, form) {
                prop_assert!(taken.send.len() <= 63);
                prop_assert!(taken.apdu.is_none_or(|apdu| apdu.len() <= 500));
            }
            prop_assert!(side.received.len() <= 500);
            drop(assembler.take(&block));
            prop_assert!(assembler.received.len() <= 500);
        }
    }
}
