use protocols::mbus::{Listener, PENDING_MAX, RadioMode, Receiver, Reception, WirelessForm, WirelessFrame};
use protocols::metering::UtcMillis;

/// The first octet chooses the receiver, the others are what it hands out: the same frames come of them in pieces as in one, and each,
/// handed out anew, is itself.
pub(crate) fn target(data: &[u8]) {
    let Some((choice, octets)) = data.split_first() else { return };
    let all = [Receiver::RtlWmbus, Receiver::Hex, Receiver::Cul, Receiver::Im871a, Receiver::Amb8465];
    let receiver = all.get(usize::from(*choice) % all.len()).copied().unwrap_or(Receiver::Hex);
    let heard = frames(receiver, octets, octets.len().max(1));
    assert_eq!(frames(receiver, octets, 7), heard);
    for frame in heard {
        assert!(frame.encode(WirelessForm::Stripped).is_some());
        // Bare digits are taken for a frame with CRCs where these happen to be right.
        if receiver != Receiver::Hex
            && let Some(again) = receiver.hand_out(&frame, UtcMillis(1_795_401_315_000))
        {
            let known = [&ANSWER[..], &again].concat();
            assert_eq!(frames(receiver, if receiver == Receiver::Amb8465 { &known } else { &again }, 5), [frame]);
        }
    }
}

/// Of an AMB8465: its frames have no signal strength.
const ANSWER: [u8; 7] = [0xff, 0x8a, 0x03, 0x45, 0x01, 0x00, 0x32];

fn frames(receiver: Receiver, octets: &[u8], size: usize) -> Vec<WirelessFrame> {
    let mut listener = Listener::new(receiver, RadioMode::CT);
    let mut found = Vec::new();
    for piece in octets.chunks(size) {
        listener.feed(piece);
        while let Some(reception) = listener.next_reception() {
            match reception {
                Reception::Frame { frame, .. } => found.push(frame),
                Reception::Send(octets) => assert!(!octets.is_empty()),
                Reception::Garbage(error) => assert!(!error.to_string().is_empty()),
            }
        }
        assert!(listener.pending() <= PENDING_MAX);
    }
    found
}
