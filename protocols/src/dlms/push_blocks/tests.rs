use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1_000);

const fn sender(end: u64, source: u32) -> BlockSender {
    BlockSender { end, source, title: None }
}

fn push(octet: u8, len: usize) -> Vec<u8> {
    vec![octet; len]
}

/// The blocks of a push, ten octets in each; with a window in streams of `window`.
fn blocks(apdu: &[u8], window: u8) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = apdu.chunks(10).collect();
    let block = |(number, data): (u16, &&[u8])| {
        let last = usize::from(number) == pieces.len();
        let streaming = window == 0 || !(last || number % u16::from(window) == 0);
        GeneralBlock { last, streaming, window, number, acknowledged: 0, data }.encode()
    };
    (1..).zip(&pieces).map(block).collect()
}

fn acknowledged(octets: Option<Vec<u8>>) -> Option<(u16, Vec<u8>)> {
    let octets = octets?;
    let block = GeneralBlock::decode(&octets).unwrap();
    Some((block.acknowledged, block.data.to_vec()))
}

/// Control, seen to fail: one transfer for all senders.
#[test]
fn pushes_of_several_senders_that_come_at_once_do_not_spoil_each_other() {
    let mut all = PushBlocks::new(PushBlockLimits::DEFAULT);
    let title = Some(SystemTitle(*b"SIM00001"));
    let senders = [sender(1, 1), sender(1, 2), sender(2, 1), BlockSender { title, ..sender(1, 1) }];
    let sent: Vec<_> = (1..).zip(senders).map(|(octet, sender)| (sender, push(octet, 45))).collect();
    let mut whole = Vec::new();
    for place in 0..5 {
        for (sender, apdu) in &sent {
            let taken = all.take(*sender, false, NOW, &blocks(apdu, 0)[place]).unwrap();
            assert_eq!((taken.answer, taken.dropped), (None, 0));
            whole.extend(taken.apdu);
        }
    }
    assert_eq!(whole, sent.into_iter().map(|(_, apdu)| apdu).collect::<Vec<_>>());
    assert!(all.transfers.is_empty() && all.octets() == 0);
}

/// Controls, seen to fail: give up at the first gap; ask while blocks stream.
#[test]
fn whoever_takes_blocks_is_asked_for_those_that_are_missing_and_hears_the_end_again() {
    let (mut all, meter, apdu) = (PushBlocks::new(PushBlockLimits::DEFAULT), sender(7, 1), push(9, 65));
    let blocks = blocks(&apdu, 3);
    let take = |all: &mut PushBlocks, place: usize| all.take(meter, true, NOW, &blocks[place]).unwrap();
    assert_eq!(take(&mut all, 0), BlockTaken::default());
    // The second gets lost.
    assert_eq!(acknowledged(take(&mut all, 2).answer), Some((1, Vec::new())));
    assert_eq!(take(&mut all, 1), BlockTaken::default());
    assert_eq!(acknowledged(take(&mut all, 2).answer), Some((3, Vec::new())));
    // That got lost: the meter repeats the end of its stream.
    assert_eq!(acknowledged(take(&mut all, 2).answer), Some((3, Vec::new())));
    assert_eq!((take(&mut all, 3), take(&mut all, 4)), (BlockTaken::default(), BlockTaken::default()));
    assert_eq!(acknowledged(take(&mut all, 5).answer), Some((6, Vec::new())));
    let taken = take(&mut all, 6);
    assert_eq!((taken.apdu, taken.answer), (Some(apdu.clone()), None), "first it has to be stored");
    assert_eq!(take(&mut all, 6), BlockTaken::default(), "there is nothing to say again yet");
    let told = all.close(meter, b"kept");
    assert_eq!(acknowledged(told.clone()), Some((7, b"kept".to_vec())));
    assert_eq!(take(&mut all, 6).answer, told);
    // The meter acknowledges it, and goes on with the next.
    let word = GeneralBlock { last: true, streaming: false, window: 3, number: 8, acknowledged: 5, data: &[] }.encode();
    assert_eq!(all.take(meter, true, NOW, &word), Ok(BlockTaken::default()));
    assert_eq!(all.take(meter, true, NOW, &blocks[0]), Ok(BlockTaken::default()));
    assert_eq!(all.close(meter, b"kept"), None, "it is not complete");
}

/// Control, seen to fail: nothing is late (`take`).
#[test]
fn what_is_left_of_a_push_is_not_the_beginning_of_the_next() {
    let (mut all, meter) = (PushBlocks::new(PushBlockLimits::DEFAULT), sender(7, 1));
    let (one, next) = (blocks(&push(1, 45), 0), blocks(&push(2, 45), 0));
    assert_eq!(one.len(), next.len());
    for block in &one[..2] {
        all.take(meter, false, NOW, block).unwrap();
    }
    // The rest of it got lost, and the first of the next too.
    let missing = BlockTransferError::Missing { expected: 1, found: 3 };
    assert_eq!(all.take(meter, false, NOW + IDLE_MAX, &next[2]), Err(missing));
    all.take(meter, false, NOW, &one[0]).unwrap();
    assert_eq!(all.take(meter, false, NOW + IDLE_MAX, &next[0]).unwrap().dropped, 1, "the one before");
    let within = NOW + IDLE_MAX + Duration::from_secs(59);
    for block in &next[1..next.len() - 1] {
        assert_eq!(all.take(meter, false, within, block), Ok(BlockTaken::default()));
    }
    assert_eq!(all.take(meter, false, within, next.last().unwrap()).unwrap().apdu, Some(push(2, 45)));
}

#[test]
fn what_nobody_sends_again_is_given_up_and_counted() {
    let (mut all, meter) = (PushBlocks::new(PushBlockLimits::DEFAULT), sender(7, 1));
    let (one, other) = (blocks(&push(1, 45), 0), blocks(&push(2, 45), 0));
    all.take(meter, true, NOW, &one[0]).unwrap();
    assert_eq!(all.take(meter, true, NOW, &one[0]).unwrap().dropped, 0, "once more");
    let missing = Err(BlockTransferError::Missing { expected: 2, found: 4 });
    assert_eq!(all.take(meter, true, NOW, &one[3]), missing);
    all.take(meter, true, NOW, &one[0]).unwrap();
    all.take(meter, true, NOW, &one[1]).unwrap();
    assert_eq!(all.take(meter, true, NOW, &one[0]).unwrap().dropped, 0, "from the beginning");
    assert_eq!(all.take(meter, true, NOW, &other[0]).unwrap().dropped, 1, "another begins");
    // Whoever can be asked and never sends what is missing.
    let lossy = blocks(&push(3, 45), 1);
    all.take(sender(8, 1), true, NOW, &lossy[0]).unwrap();
    let asked = (0..100).take_while(|_| all.take(sender(8, 1), true, NOW, &lossy[2]).is_ok()).count();
    assert_eq!(asked, usize::from(ASKED_MAX));
    let small = PushBlockLimits { apdu_octets_max: 15, ..PushBlockLimits::DEFAULT };
    let mut all = PushBlocks::new(small);
    all.take(meter, false, NOW, &one[0]).unwrap();
    assert_eq!(all.take(meter, false, NOW, &one[1]), Err(BlockTransferError::TooLong { limit: 15 }));
    assert_eq!(all.take(meter, false, NOW, &blocks(&[0xe0], 0)[0]), Err(BlockTransferError::Nested));
    assert!(matches!(all.take(meter, false, NOW, &[0xe0, 0]), Err(BlockTransferError::Malformed(_))));
    assert_eq!(all.octets(), 0);
}

/// Control, seen to fail: give up whoever was heard of longest ago, whatever his end has.
#[test]
fn whoever_begins_pushes_without_end_loses_his_own() {
    let limits = PushBlockLimits { senders_max: 8, apdu_octets_max: 100, octets_max: 100 };
    let (mut all, meter) = (PushBlocks::new(limits), sender(1, 1));
    let honest = blocks(&push(1, 45), 0);
    let mut dropped = 0;
    for (place, block) in honest.iter().enumerate() {
        let taken = all.take(meter, false, NOW, block).unwrap();
        assert_eq!(taken.apdu.is_some(), place == 4, "for its room others give way");
        for source in 0..50 {
            dropped += all.take(sender(2, source), false, NOW, &blocks(&push(2, 25), 0)[0]).unwrap().dropped;
            assert!(all.transfers.len() <= 8 && all.octets() <= 100, "{} octets", all.octets());
        }
    }
    assert!(dropped > 30, "{dropped}");
}

proptest! {
    #[test]
    fn whatever_comes_memory_is_bounded_and_nothing_panics(
        blocks in prop::collection::vec(any::<(u8, bool, bool, bool, u8, u8, u8)>(), 0..120),
    ) {
        let limits = PushBlockLimits { senders_max: 4, apdu_octets_max: 300, octets_max: 500 };
        let mut all = PushBlocks::new(limits);
        for (who, can_be_said, last, streaming, window, number, len) in blocks {
            let data = vec![who; usize::from(len)];
            let number = u16::from(number % 4);
            let block = GeneralBlock { last, streaming, window: window % 3, number, acknowledged: 0, data: &data };
            if let Ok(taken) = all.take(sender(u64::from(who % 3), u32::from(who % 7)), can_be_said, NOW, &block.encode()) {
                prop_assert!(taken.apdu.is_none_or(|apdu| apdu.len() <= 300));
            }
            prop_assert!(all.transfers.len() <= 4 && all.octets() <= 500);
        }
    }
}
