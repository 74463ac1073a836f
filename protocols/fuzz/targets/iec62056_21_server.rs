use std::time::Duration;

use protocols::iec62056_21::{
    DeviceAddress, Identification, Input, MeterData, Output, Password, ReadRequest, Server, ServerConfig, ServerEvent,
    encode_command,
};

use super::steps::steps;

struct Table;

impl MeterData for Table {
    fn read_out(&mut self, _mode: u8) -> Vec<u8> {
        b"1.8.0(1*kWh)\r\n".repeat(20)
    }

    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>> {
        (request.address() == "1.8.0").then(|| b"(1*kWh)\r\n".repeat(20))
    }

    fn admits(&mut self, password: &Password) -> bool {
        *password == Password::plain("1").expect("a password")
    }
}

/// A step brings a command with a right check, bare octets, or time. Whatever is said to a meter, what it gives is bounded, and the
/// next reader is answered.
pub(crate) fn target(data: &[u8]) {
    let (&flags, data) = data.split_first().unwrap_or((&0, &[]));
    let baud = [b'5', b'C', b'#', b'0'][usize::from(flags & 3)];
    let identification = Identification { manufacturer: "SIm".into(), baud, enhanced: vec![b'2'], model: "X".into() };
    let address = DeviceAddress::new("17").expect("an address");
    let config = ServerConfig {
        echo: flags & 4 != 0,
        masked_parity: flags & 8 != 0,
        partial_readout: flags & 16 != 0,
        block_octets: 60,
        ..ServerConfig::new(address, identification)
    };
    let mut server = Server::new(config.clone());
    let mut now = Duration::from_secs(1);
    for (what, content) in steps(data) {
        match what % 4 {
            0 => hear(&mut server, now, content),
            1 => {
                let mut octets = Vec::new();
                let (&kind, rest) = content.split_first().unwrap_or((&b'R', &[]));
                encode_command(&mut octets, kind, b'0' + (what >> 2) % 8, Some(rest));
                hear(&mut server, now, &octets);
            }
            _ => {
                now += Duration::from_millis(60 * content.len() as u64);
                hear(&mut server, now, &[]);
            }
        }
    }
    if server_is_gone(&mut server, now) {
        server = Server::new(config);
    }
    for _ in 0..10 {
        now += Duration::from_secs(100);
        hear(&mut server, now, &[]);
    }
    let mut request = b"/?17!\r\n".to_vec();
    if flags & 8 != 0 {
        protocols::iec62056_21::MaskedParity::mask(&mut request);
    }
    server.handle(now, Input::Received(&request), &mut Table);
    server.handle(now + Duration::from_secs(1), Input::Tick, &mut Table);
    assert!(matches!(server.poll(), Output::Send(octets) if octets.len() == 10), "no identification");
}

/// HDLC has the line.
fn server_is_gone(server: &mut Server, now: Duration) -> bool {
    server.handle(now + Duration::from_secs(50), Input::Tick, &mut Table);
    drop(drain(server, now + Duration::from_secs(50)));
    format!("{server:?}").contains("HandedOver")
}

fn hear(server: &mut Server, now: Duration, octets: &[u8]) {
    server.handle(now, Input::Received(octets), &mut Table);
    drop(drain(server, now));
}

fn drain(server: &mut Server, now: Duration) -> Vec<ServerEvent> {
    let mut events = Vec::new();
    for _ in 0..64 {
        match server.poll() {
            Output::WaitUntil(at) => {
                assert!(at.is_none_or(|at| at > now), "what is past is asked for");
                return events;
            }
            Output::Send(octets) => assert!(octets.len() <= 400, "{} octets", octets.len()),
            Output::Event(event) => events.push(event),
            Output::SetLine(_) => {}
        }
    }
    panic!("a flood of outputs");
}
