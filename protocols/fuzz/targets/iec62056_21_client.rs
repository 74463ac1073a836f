use std::time::Duration;

use protocols::iec62056_21::{
    Client, ClientConfig, ClientEvent, DeviceAddress, Goal, Input, Output, Password, ReadLevel, ReadRequest,
    SessionError, encode_block, encode_command,
};

use super::steps::steps;

const ANSWER_OCTETS_MAX: usize = 300;

/// A step brings a message with a right check, bare octets, time, or something to ask. Whatever is said to a reader, what it gives
/// is bounded, it never asks for what is past, and when nothing more is said an end is near.
pub(crate) fn target(data: &[u8]) {
    let (&flags, data) = data.split_first().unwrap_or((&0, &[]));
    let config = ClientConfig {
        echo: flags & 1 != 0,
        masked_parity: flags & 2 != 0,
        answer_octets_max: ANSWER_OCTETS_MAX,
        ..ClientConfig::new(DeviceAddress::default())
    };
    let goal = [Goal::Readout, Goal::Programming, Goal::Hdlc, Goal::Programming][usize::from(flags >> 2 & 3)];
    let mut client = Client::new(config);
    let mut now = Duration::from_secs(1);
    client.sign_on(now, goal).expect("the first call");
    for (what, content) in steps(data) {
        let result = match what % 8 {
            0 | 1 => client.handle(now, Input::Received(content)),
            2 | 3 => {
                let mut octets = Vec::new();
                encode_block(&mut octets, content, what & 8 == 0);
                client.handle(now, Input::Received(&octets))
            }
            4 => {
                let mut octets = Vec::new();
                let kind = content.first().copied().unwrap_or(b'P');
                encode_command(&mut octets, kind, b'0', Some(content));
                client.handle(now, Input::Received(&octets))
            }
            5 | 6 => {
                now += Duration::from_millis(40 * content.len() as u64);
                client.handle(now, Input::Tick)
            }
            _ => {
                ask(&mut client, now, content);
                Ok(())
            }
        };
        drain(&mut client, now);
        if let Err(error) = result {
            return failed(&mut client, now, error);
        }
    }
    for _ in 0..100 {
        let Some(at) = drain(&mut client, now) else { return };
        now = at;
        if let Err(error) = client.handle(now, Input::Tick) {
            return failed(&mut client, now, error);
        }
    }
    panic!("no end: {client:?}");
}

/// A reader that is busy says so.
fn ask(client: &mut Client, now: Duration, content: &[u8]) {
    let asked = match content {
        [] => client.sign_off(now),
        [0, ..] => client.log_in(now, &Password::plain("1").expect("a password")),
        [1, ..] => client.sign_on(now, Goal::Readout),
        _ => client.read(now, &ReadRequest::register(ReadLevel::R6, "1.8.0").expect("a register")),
    };
    assert!(matches!(asked, Ok(()) | Err(SessionError::NotReady)));
}

/// When it wants to be called again.
fn drain(client: &mut Client, now: Duration) -> Option<Duration> {
    for _ in 0..64 {
        match client.poll() {
            Output::WaitUntil(at) => {
                assert!(at.is_none_or(|at| at > now), "what is past is asked for");
                return at;
            }
            Output::Event(ClientEvent::ReadOut(block) | ClientEvent::Answered(block)) => {
                assert!(block.content.len() <= ANSWER_OCTETS_MAX + 16, "{} octets", block.content.len());
            }
            Output::Send(octets) => assert!(octets.len() < 200),
            Output::SetLine(_) | Output::Event(_) => {}
        }
    }
    panic!("a flood of outputs");
}

/// A session that failed stays silent.
fn failed(client: &mut Client, now: Duration, error: SessionError) {
    assert!(!error.to_string().is_empty());
    while client.poll() != Output::WaitUntil(None) {
        client.handle(now + Duration::from_secs(1), Input::Tick).expect("it has failed already");
    }
    assert_eq!(client.sign_on(now, Goal::Readout), Err(SessionError::NotReady));
}
