use std::time::Duration;

use protocols::mbus::{
    Baud, Builder, Datum, FRAME_LEN_MAX, Frame, Input, Output, Place, SecondaryAddress, Slave, SlaveConfig, SlaveData, control,
};

use super::steps::steps;

struct Meter(SecondaryAddress);

impl SlaveData for Meter {
    fn telegrams(&mut self) -> Vec<Vec<u8>> {
        let record = |builder: Builder, storage| {
            let place = Place { storage, ..Place::PRESENT };
            builder.record(place, &[0x13], &Datum::Integer(7, 4)).expect("a record")
        };
        (0..60).fold(Builder::new(self.0), record).finish()
    }
}

/// A step brings a frame with a right check, bare octets, or time. Whatever is said to a meter, what it gives is bounded, and the
/// next master is answered.
pub(crate) fn target(data: &[u8]) {
    let (&flags, data) = data.split_first().unwrap_or((&0, &[]));
    let address = SecondaryAddress::of_number(12_345_678, 0x4d2c, 1, 7);
    let config = SlaveConfig { echo: flags & 1 != 0, ..SlaveConfig::new(5, address, Baud::B2400) };
    let (mut slave, mut meter) = (Slave::new(config), Meter(address));
    let mut now = Duration::from_secs(1);
    for (what, content) in steps(data) {
        match what % 4 {
            0 => hear(&mut slave, &mut meter, now, content),
            1 => {
                let (&[control, address], _) = content.split_first_chunk().unwrap_or((&[0x5b, 5], &[]));
                say(&mut slave, &mut meter, now, Frame::Short { control, address });
            }
            2 => {
                let (&[address, ci], data) = content.split_first_chunk().unwrap_or((&[253, 0x52], &[0xff; 8]));
                say(&mut slave, &mut meter, now, Frame::Long { control: control::SND_UD, address, ci, data });
            }
            _ => {
                now += Duration::from_millis(10 * content.len() as u64);
                hear(&mut slave, &mut meter, now, &[]);
            }
        }
    }
    now += Duration::from_secs(10);
    hear(&mut slave, &mut meter, now, &[]);
    now += Duration::from_secs(10);
    say(&mut slave, &mut meter, now, Frame::Short { control: control::SND_NKE, address: 5 });
    slave.handle(now + Duration::from_secs(1), Input::Tick, &mut meter);
    assert_eq!(slave.poll(), Output::Send(vec![0xe5]), "no acknowledgement");
}

fn say(slave: &mut Slave, meter: &mut Meter, now: Duration, frame: Frame<'_>) {
    let mut octets = Vec::new();
    if frame.encode(&mut octets).is_some() {
        hear(slave, meter, now, &octets);
    }
}

fn hear(slave: &mut Slave, meter: &mut Meter, now: Duration, octets: &[u8]) {
    let input = if octets.is_empty() { Input::Tick } else { Input::Received(octets) };
    slave.handle(now, input, meter);
    loop {
        match slave.poll() {
            Output::WaitUntil(at) => return assert!(at.is_none_or(|at| at > now), "what is past is asked for"),
            Output::Send(octets) => assert!(octets.len() <= FRAME_LEN_MAX),
            Output::Event(()) => {}
        }
    }
}
