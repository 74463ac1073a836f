use std::time::Duration;

use protocols::mbus::{
    Baud, Frame, Input, Master, MasterConfig, MasterError, MasterEvent, Output, Selection, Target, control,
};

use super::steps::steps;

const TELEGRAMS_MAX: usize = 5;

/// A step brings a frame with a right check, bare octets, or time. Whatever is said to a master, what it gives is bounded, it never
/// asks for what is past, and when nothing more is said an end is near.
pub(crate) fn target(data: &[u8]) {
    let (&flags, data) = data.split_first().unwrap_or((&0, &[]));
    let config =
        MasterConfig { echo: flags & 1 != 0, telegrams_max: TELEGRAMS_MAX, ..MasterConfig::new(Baud::B2400) };
    let mut master = Master::new(config);
    let mut now = Duration::from_secs(1);
    begin(&mut master, now, flags >> 1);
    for (what, content) in steps(data) {
        match what % 8 {
            0 | 1 => master.handle(now, Input::Received(content)),
            2 => hear(&mut master, now, Frame::Acknowledge),
            3 | 4 => {
                let (&[address, ci], data) = content.split_first_chunk().unwrap_or((&[1, 0x72], &[]));
                let control = control::RSP_UD | what & 0x30;
                hear(&mut master, now, Frame::Long { control, address, ci, data });
            }
            5 | 6 => {
                now += Duration::from_millis(20 * content.len() as u64);
                master.handle(now, Input::Tick);
            }
            _ => begin(&mut master, now, content.first().copied().unwrap_or_default()),
        }
        drain(&mut master, now);
    }
    // A search of a silent line ends with its first probe; one in which all seemed to answer may be long: it is left then.
    for _ in 0..500 {
        let Some(at) = drain(&mut master, now) else { return assert!(master.is_idle()) };
        now = at;
        master.handle(now, Input::Tick);
    }
    panic!("no end: {master:?}");
}

/// A master that is busy says so.
fn begin(master: &mut Master, now: Duration, what: u8) {
    let is_idle = master.is_idle();
    let begun = match what % 5 {
        0 => master.read(now, Target::Primary(what)),
        1 => master.read(now, Target::Secondary(Selection::ANY)),
        2 => master.read_alarm(now, Target::Primary(1)),
        3 => master.search(now, Selection::ANY),
        _ => master.read(now, Target::Primary(1)),
    };
    match begun {
        Ok(()) | Err(MasterError::Address { .. }) => assert!(is_idle),
        Err(error) => assert!(!is_idle && error == MasterError::NotReady),
    }
}

fn hear(master: &mut Master, now: Duration, frame: Frame<'_>) {
    let mut octets = Vec::new();
    if frame.encode(&mut octets).is_some() {
        master.handle(now, Input::Received(&octets));
    }
}

/// When it wants to be called again.
fn drain(master: &mut Master, now: Duration) -> Option<Duration> {
    for _ in 0..64 {
        match master.poll() {
            Output::WaitUntil(at) => {
                assert!(at.is_none_or(|at| at > now), "what is past is asked for");
                return at;
            }
            Output::Event(MasterEvent::Answered(answer)) => {
                assert!((1..=TELEGRAMS_MAX).contains(&answer.telegrams.len()));
            }
            Output::Event(_) => {}
            Output::Send(octets) => assert!(octets.len() <= 17),
        }
    }
    panic!("a flood of outputs");
}
