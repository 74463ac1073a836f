use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocols::dlms::acse::{ApplicationContext, AssociationRequest, Mechanism, Secret};
use protocols::dlms::apdu::{ActionRequest, CosemMethod, InvokeId};
use protocols::hdlc::HdlcAddress;
use protocols::hdlc::control::{Control, Sequence};
use protocols::metering::UtcMillis;
use protocols::wrapper::Wpdu;

use super::*;
use crate::clock::Clock;

const PASSWORD: &[u8] = b"s3cr3t-Passw0rd";

struct Still;

impl Clock for Still {
    fn wall(&self) -> UtcMillis {
        UtcMillis(1_795_392_060_120)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is told of these octets, each in one piece.
fn told(framing: Framing, pieces: &[(Way, Vec<u8>)]) -> String {
    let (paper, (ours, _theirs)) = (Paper::default(), tokio::io::duplex(1));
    let link = Box::new(super::super::StreamLink(ours));
    let mut link = TraceLink::new(link, framing, Arc::new(Still), Box::new(paper.clone()));
    for (way, octets) in pieces {
        link.tracer.trace(*way, octets);
    }
    drop(link);
    let text = paper.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

/// No two octets of the secret are seen behind each other.
fn assert_hidden(text: &str, secret: &[u8]) {
    for pair in secret.windows(2) {
        let seen = format!("{:02x} {:02x}", pair[0], pair[1]);
        assert!(!text.contains(&seen), "{seen} of the secret is seen in\n{text}");
    }
}

fn aarq(user_information: &[u8]) -> Vec<u8> {
    let request = AssociationRequest {
        version_1: true,
        context: ApplicationContext::LogicalName,
        calling_ap_title: None,
        calling_user_id: None,
        mechanism: Some(Mechanism::Low),
        authentication: Some(Secret(PASSWORD)),
        user_information: Some(user_information),
    };
    request.encode()
}

/// The frames of an APDU, with so many octets of information.
fn frames(apdu: &[u8], information_max: usize) -> Vec<Vec<u8>> {
    let whole = [&[0xe6, 0xe6, 0x00], apdu].concat();
    let parts: Vec<&[u8]> = whole.chunks(information_max).collect();
    let control = Control::Information { send: Sequence::default(), receive: Sequence::default() }.encode(true);
    let frame = |(place, information): (usize, &&[u8])| {
        let (destination, source) = (HdlcAddress::one(1).unwrap(), HdlcAddress::one(16).unwrap());
        let segmented = place + 1 < parts.len();
        let mut octets = Vec::new();
        Frame { segmented, destination, source, control, information }.encode(&mut octets);
        octets
    };
    parts.iter().enumerate().map(frame).collect()
}

/// Controls, seen to fail: the check sequence shown; continued parts looked at as if they were an APDU.
#[test]
fn a_password_is_seen_neither_whole_nor_in_parts_nor_in_an_echo() {
    let apdu = aarq(&[0x01, 0, 0, 0, 6, 0x5f]);
    for information_max in [128, 40, 16, 5] {
        let frames = frames(&apdu, information_max);
        let mut pieces: Vec<_> = frames.iter().map(|frame| (Way::Sent, frame.clone())).collect();
        // Sent again, and given back by the line, the last with an octet missing.
        pieces.extend(frames.last().map(|frame| (Way::Sent, frame.clone())));
        pieces.extend(frames.iter().map(|frame| (Way::Received, frame.clone())));
        pieces.push((Way::Received, frames.concat()[9..].to_vec()));
        let text = told(Framing::Hdlc, &pieces);
        assert_hidden(&text, PASSWORD);
        let check =
            |frame: &Vec<u8>| hexadecimal(frame[frame.len() - 3..frame.len() - 1].iter().map(|octet| Some(*octet)));
        let with_secret =
            frames.iter().filter(|frame| frame.windows(3).any(|part| PASSWORD.windows(3).any(|of| of == part)));
        for frame in with_secret {
            assert!(!text.contains(&check(frame)), "{}", check(frame));
        }
    }
    let text = told(Framing::Hdlc, &frames(&apdu, 128).into_iter().map(|frame| (Way::Sent, frame)).collect::<Vec<_>>());
    let line = "2026-11-23T00:01:00.120Z sent     7e a0 43 03 21 10 ";
    assert!(text.starts_with(line), "{text}");
    assert!(text.contains("be 08 04 06 01 00 00 00 06 5f ** **\n"), "the rest is shown\n{text}");
    let mut octets = Vec::new();
    Wpdu { source: 16, destination: 1, apdu: &apdu }.encode(&mut octets).unwrap();
    let (first, second) = octets.split_at(30);
    let text = told(Framing::Wrapper, &[(Way::Sent, first.to_vec()), (Way::Sent, second.to_vec())]);
    assert_hidden(&text, PASSWORD);
    assert!(text.contains("be 08 04 06 01 00 00 00 06 5f\n"), "{text}");
}

/// Control, seen to fail: actions shown.
#[test]
fn proofs_keys_and_tags_are_hidden() {
    let proof: Vec<u8> = (0xa0..0xb1).collect();
    let parameters = [&[9, 17], &proof[..]].concat();
    let action = ActionRequest::Normal {
        invoke: InvokeId::confirmed(1),
        method: CosemMethod::REPLY_TO_HLS,
        parameters: Some(&parameters),
    };
    let tag: Vec<u8> = (0x81..0x8d).collect();
    let content = [&[0x30, 0, 0, 0, 1][..], &[0x11; 20], &tag].concat();
    let ciphered = [&[0xc8, content.len() as u8], &content[..]].concat();
    let initiate = [&[0x21, content.len() as u8], &content[..]].concat();
    let dedicated = [&[0x01, 0x01, 17][..], &proof, &[0, 0, 6]].concat();
    for (apdu, secret) in [
        (action.encode(), &proof),
        (ciphered, &tag),
        // Only authenticated: the proof can be read.
        ([&[0xcb, 39, 0x10, 0, 0, 0, 1, 0xc3, 1][..], &proof, &tag, &[0, 0, 0]].concat(), &proof),
        ([&[0xdb, 3, 1, 2, 3, 36, 0x10, 0, 0, 0, 1, 0xc3, 1][..], &proof, &tag].concat(), &proof),
        ([&[0x63, 2 + initiate.len() as u8, 0xbe, initiate.len() as u8][..], &initiate].concat(), &tag),
        (aarq(&initiate), &tag),
        (aarq(&dedicated), &proof),
        ([&[0x05, 0x01, 0x04, 0xfa, 0x00, 0x01, 9, 17], &proof[..]].concat(), &proof),
        ([&[0x0c, 0x01, 0x00, 9, 17], &proof[..]].concat(), &proof),
        ([&[0xe0, 0x80, 0, 1, 0, 0, 17], &proof[..]].concat(), &proof),
    ] {
        for information_max in [128, 20, 14] {
            let pieces: Vec<_> = frames(&apdu, information_max).into_iter().map(|frame| (Way::Sent, frame)).collect();
            assert_hidden(&told(Framing::Hdlc, &pieces), secret);
        }
        let mut octets = Vec::new();
        Wpdu { source: 16, destination: 1, apdu: &apdu }.encode(&mut octets).unwrap();
        assert_hidden(&told(Framing::Wrapper, &[(Way::Sent, octets)]), secret);
    }
    // What is no secret is shown, ciphered or not.
    let get = vec![0xc4, 1, 0xc1, 0, 6, 0, 0, 0x10, 0];
    let text = told(Framing::Hdlc, &[(Way::Received, frames(&get, 128).concat())]);
    assert!(text.contains("received 7e a0") && text.contains("c4 01 c1 00 06 00 00 10 00"), "{text}");
    let text = told(Framing::Hdlc, &[(Way::Received, b"noise\x7e\x7e".to_vec())]);
    assert_eq!(text, "2026-11-23T00:01:00.120Z received 6e 6f 69 73 65 (no frame)\n");
}

/// Control, seen to fail: what comes back shown.
#[test]
fn a_password_of_programming_mode_is_hidden_with_its_check_character() {
    let command = [b"\x01P1\x02(", PASSWORD, b")\x03\x5a"].concat();
    for parity in [0x00, 0x80] {
        let command: Vec<u8> = command.iter().map(|octet| octet | parity).collect();
        let echo = |from: usize| (Way::Received, command[from..].to_vec());
        let pieces =
            [(Way::Sent, command.clone()), echo(0), echo(3), echo(7), (Way::Received, vec![0x06 | parity, b'x'])];
        let text = told(Framing::Iec62056_21, &pieces);
        let secret: Vec<u8> = [PASSWORD, b")"].concat().iter().map(|octet| octet | parity).collect();
        assert_hidden(&text, &secret);
        assert!(!text.contains(&format!("{:02x}", 0x5a | parity)), "{text}");
        assert!(text.ends_with(&format!("received {:02x} 78\n", 0x06 | parity)), "what comes then is seen\n{text}");
    }
    let read = told(Framing::Iec62056_21, &[(Way::Sent, b"\x01R1\x021.8.0()\x03\x5a".to_vec())]);
    assert!(read.ends_with("sent     01 52 31 02 31 2e 38 2e 30 28 29 03 5a\n"), "{read}");
}
