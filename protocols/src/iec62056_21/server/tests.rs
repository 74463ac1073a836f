use super::*;

struct Table;

impl MeterData for Table {
    fn read_out(&mut self, mode: u8) -> Vec<u8> {
        format!("0.0.0({})\r\n1.8.0(1*kWh)\r\n", char::from(mode)).into_bytes()
    }

    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>> {
        (request.address() == "1.8.0").then(|| b"(1*kWh)\r\n(2)\r\n(3)\r\n".to_vec())
    }

    fn admits(&mut self, password: &Password) -> bool {
        *password == Password::plain("1").unwrap()
    }
}

/// A meter, and a hand on the reader's end of the line.
struct Bench {
    server: Server,
    now: Duration,
}

fn config() -> ServerConfig {
    let identification =
        Identification { manufacturer: "SIM".into(), baud: b'5', enhanced: vec![], model: "METERPOST".into() };
    ServerConfig::new(DeviceAddress::new("17").unwrap(), identification)
}

impl Bench {
    fn new(config: ServerConfig) -> Self {
        Self { server: Server::new(config), now: Duration::from_secs(10) }
    }

    fn programming(config: ServerConfig) -> Self {
        let mut bench = Self::new(config);
        assert_eq!(bench.hear(b"/?17!\r\n"), ["/SIM5METERPOST\\r\\n"]);
        let expected = ["9600", "SignedOn(Programming)", "\\x01P0\\x02()\\x03`"];
        assert_eq!(bench.hear(b"\x06051\r\n"), expected);
        bench
    }

    /// What is said until the reader's next turn.
    fn hear(&mut self, octets: &[u8]) -> Vec<String> {
        self.now += Duration::from_secs(1);
        self.server.handle(self.now, Input::Received(octets), &mut Table);
        let mut said = self.said();
        said.extend(self.wait(200));
        said
    }

    fn command(&mut self, kind: u8, variant: u8, data: Option<&[u8]>) -> Vec<String> {
        let mut octets = Vec::new();
        encode_command(&mut octets, kind, variant, data);
        self.hear(&octets)
    }

    fn wait(&mut self, ms: u64) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.server.handle(self.now, Input::Tick, &mut Table);
        self.said()
    }

    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            said.push(match self.server.poll() {
                Output::WaitUntil(_) => return said,
                Output::SetLine(line) => line.baud.bits_per_second().to_string(),
                Output::Send(octets) => octets.escape_ascii().to_string(),
                Output::Event(event) => format!("{event:?}"),
            });
        }
    }
}

#[test]
fn only_who_is_called_answers_after_its_reaction_time() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.hear(b"/?18!\r\n"), [""; 0]);
    bench.server.handle(bench.now, Input::Received(b"/?!\r\n"), &mut Table);
    assert_eq!(bench.said(), [""; 0]);
    assert_eq!(bench.server.poll(), Output::WaitUntil(Some(bench.now + Duration::from_millis(200))));
    assert_eq!(bench.wait(200), ["/SIM5METERPOST\\r\\n"]);
}

#[test]
fn a_read_out_is_sent_at_the_chosen_rate_and_again_after_nak() {
    let mut bench = Bench::new(config());
    bench.hear(b"/?17!\r\n");
    let readout = "\\x020.0.0(7)\\r\\n1.8.0(1*kWh)\\r\\n!\\r\\n\\x03f";
    let said = bench.hear(b"\x06057\r\n");
    assert_eq!(said[..2], ["9600", "SignedOn(Readout)"]);
    assert_eq!(said[2].get(..said[2].len() - 1), readout.get(..readout.len() - 1));
    assert_eq!(bench.hear(&[NAK]), said[2..]);
    assert_eq!(bench.hear(&[ACK]), ["SignedOff", "300"]);
}

#[test]
fn a_select_of_another_rate_is_none_and_who_does_not_select_gets_the_read_out() {
    let mut bench = Bench::new(config());
    bench.hear(b"/?17!\r\n");
    assert_eq!(bench.hear(b"\x06040\r\n"), [""; 0]);
    bench.wait(2_000);
    let said = bench.wait(200);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("\\x020.0.0(0)"), "{said:?}");
}

#[test]
fn commands_are_answered_refused_or_asked_for_again() {
    let mut bench = Bench::programming(ServerConfig { password_needed: true, ..config() });
    assert_eq!(bench.command(b'R', b'1', Some(b"1.8.0()")), ["\\x02(ER02)\\x03\\x17"]);
    assert_eq!(bench.command(b'P', b'1', Some(b"(1)")), ["LoggedIn", "\\x06"]);
    let content = "\\x02(1*kWh)\\r\\n(2)\\r\\n(3)\\r\\n\\x03";
    let said = bench.command(b'R', b'1', Some(b"1.8.0()"));
    assert!(said[0].starts_with(content), "{said:?}");
    assert_eq!(bench.command(b'R', b'1', Some(b"9.9()")), ["\\x02(ER01)\\x03\\x14"]);
    assert_eq!(bench.command(b'R', b'9', Some(b"1.8.0()")), ["\\x02(ER01)\\x03\\x14"]);
    assert_eq!(bench.command(b'W', b'1', Some(b"1.8.0(1)")), ["\\x02(ER01)\\x03\\x14"]);
    assert_eq!(bench.hear(b"\x01R1\x021.8.0()\x03\x00"), ["\\x15"]);
    assert_eq!(bench.command(b'B', b'0', None), ["SignedOff", "300"]);
}

#[test]
fn partial_blocks_wait_for_their_acknowledgement() {
    let mut bench = Bench::programming(ServerConfig { block_octets: 10, ..config() });
    let first = bench.command(b'R', b'6', Some(b"1.8.0()"));
    assert!(first[0].starts_with("\\x02(1*kWh)\\r\\n\\x04"), "{first:?}");
    assert_eq!(bench.hear(&[NAK]), first);
    let second = bench.hear(&[ACK]);
    assert!(second[0].starts_with("\\x02(2)\\r\\n(3)\\r\\n\\x03"), "{second:?}");
    assert_eq!(bench.hear(&[ACK]), [""; 0]);
}

#[test]
fn a_wrong_password_ends_the_session() {
    let mut bench = Bench::programming(config());
    assert_eq!(bench.command(b'P', b'1', Some(b"(2)"))[..2], ["PasswordRefused", "\\x01B0\\x03q"]);
    assert_eq!(bench.wait(200), ["SignedOff", "300"]);
}

#[test]
fn a_reader_that_went_away_is_dropped() {
    let mut bench = Bench::programming(config());
    assert_eq!(bench.wait(59_000), [""; 0]);
    assert_eq!(bench.wait(2_000), ["SignedOff", "300"]);
    assert_eq!(bench.hear(b"/?17!\r\n"), ["/SIM5METERPOST\\r\\n"]);
}

#[test]
fn a_debug_print_shows_nothing_that_was_said() {
    let bench = Bench::programming(config());
    assert_eq!(
        format!("{:?}", bench.server),
        "Server(Programming at LineSettings { baud: B9600, framing: SevenEven })"
    );
}
