use super::*;
use crate::iec62056_21::message::{ACK, NAK, encode_block};
use crate::iec62056_21::port::{Baud, Framing};
use crate::iec62056_21::request::ReadLevel;
use crate::iec62056_21::session::DataBlock;

/// A reader, and a hand on the meter's end of the line.
struct Bench {
    client: Client,
    now: Duration,
}

const ID: &[u8] = b"/LGZ5\\2ZMD310\r\n";
const P0: &[u8] = b"\x01P0\x02()\x03\x60";
const BREAK: &[u8] = b"\x01B0\x03q";

impl Bench {
    fn new(config: ClientConfig) -> Self {
        Self { client: Client::new(config), now: Duration::from_secs(10) }
    }

    fn called(config: ClientConfig, goal: Goal) -> Self {
        let mut bench = Self::new(config);
        bench.client.sign_on(bench.now, goal).unwrap();
        assert_eq!(bench.said(), ["300", "/?!\\r\\n"]);
        bench.wait(170).unwrap();
        bench
    }

    /// In programming mode, at 9600.
    fn open(config: ClientConfig) -> Self {
        let mut bench = Self::called(config, Goal::Programming);
        bench.hear(ID).unwrap();
        bench.wait(200).unwrap();
        bench.wait(500).unwrap();
        assert_eq!(bench.said()[1..], ["\\x06051\\r\\n", "9600"]);
        bench.hear(P0).unwrap();
        assert_eq!(bench.said(), ["Programming { challenge: [] }"]);
        bench
    }

    fn wait(&mut self, ms: u64) -> Result<(), SessionError> {
        self.now += Duration::from_millis(ms);
        self.client.handle(self.now, Input::Tick)
    }

    fn hear(&mut self, octets: &[u8]) -> Result<(), SessionError> {
        self.client.handle(self.now, Input::Received(octets))
    }

    fn answer(&mut self, content: &[u8], is_last: bool) -> Result<(), SessionError> {
        let mut octets = Vec::new();
        encode_block(&mut octets, content, is_last);
        self.hear(&octets)
    }

    /// Outputs since the last look: octets, rates, events.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            said.push(match self.client.poll() {
                Output::WaitUntil(_) => return said,
                Output::SetLine(line) => match line.framing {
                    Framing::SevenEven => line.baud.bits_per_second().to_string(),
                    Framing::EightNone => format!("{} 8N1", line.baud.bits_per_second()),
                },
                Output::Send(octets) => octets.escape_ascii().to_string(),
                Output::Event(ClientEvent::Identified(identification)) => identification.model,
                Output::Event(ClientEvent::Answered(DataBlock { content, .. })) => String::from_utf8(content).unwrap(),
                Output::Event(event) => format!("{event:?}"),
            });
        }
    }

    fn read(&mut self, address: &str) {
        self.client.read(self.now, &ReadRequest::register(ReadLevel::R1, address).unwrap()).unwrap();
        self.wait(200).unwrap();
    }

    fn wakes_in(&mut self) -> Duration {
        match self.client.poll() {
            Output::WaitUntil(Some(at)) => at.saturating_sub(self.now),
            other => panic!("{other:?}"),
        }
    }
}

fn config() -> ClientConfig {
    ClientConfig::new(DeviceAddress::default())
}

use crate::iec62056_21::config::DeviceAddress;

// Negative control: change three times as late. (Before the last octet has left the timeline does not let it.)
#[test]
fn the_rate_changes_after_the_select_has_left_and_before_the_meter_may_answer() {
    for (id, reaction_ms) in [(ID, 200), (b"/ISk5MT174-0001\r\n", 20)] {
        let mut bench = Bench::called(config(), Goal::Readout);
        bench.hear(id).unwrap();
        assert_eq!(bench.said().len(), 1, "only the identification");
        assert_eq!(bench.wakes_in(), Duration::from_millis(reaction_ms));
        bench.wait(reaction_ms).unwrap();
        assert_eq!(bench.said(), ["\\x06050\\r\\n"]);
        // Six octets at 300 baud take 200 ms.
        let change_in = bench.wakes_in();
        let earliest = Duration::from_micros(6 * 33_333);
        assert!(change_in >= earliest && change_in < earliest + Duration::from_millis(reaction_ms), "{change_in:?}");
        bench.now += change_in;
        bench.client.handle(bench.now, Input::Tick).unwrap();
        assert_eq!(bench.said(), ["9600"]);
    }
}

#[test]
fn the_change_can_be_delayed_for_slow_adapters() {
    let mut bench = Bench::called(ClientConfig { change_over_ms: Some(400), ..config() }, Goal::Readout);
    bench.hear(ID).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said()[1..], ["\\x06050\\r\\n"]);
    assert_eq!(bench.wakes_in(), Duration::from_micros(6 * 33_333 + 400_000));
}

// Controls, seen to fail: call again without the breaks, or with them at the first rate alone.
#[test]
fn a_meter_that_somebody_left_in_programming_mode_is_told_to_leave_it_at_whatever_rate() {
    let mut bench = Bench::called(ClientConfig { baud_max: Baud::B4800, ..config() }, Goal::Programming);
    bench.wait(2_500).unwrap();
    bench.wait(1_000).unwrap();
    let breaks = ["4800", "2400", "1200", "600", "300"].map(|rate| [rate, "\\x01B0\\x03q"]);
    let expected: Vec<&str> = breaks.into_iter().flatten().chain(["300", "/?!\\r\\n"]).collect();
    assert_eq!(bench.said(), expected[..10], "and the meter has time to leave");
    bench.wait(500).unwrap();
    assert_eq!(bench.said(), expected[10..]);
    bench.wait(170).unwrap();
    bench.hear(ID).unwrap();
    assert_eq!(bench.said(), ["ZMD310"]);
}

/// Control: the shortest pause, whatever the line needs.
#[test]
fn a_line_that_takes_time_to_change_over_has_it_between_breaks() {
    let config = ClientConfig { baud_max: Baud::B600, change_over_ms: Some(400), ..config() };
    let mut bench = Bench::called(config, Goal::Programming);
    bench.wait(2_500).unwrap();
    assert_eq!(bench.said(), ["600", "\\x01B0\\x03q"]);
    // Five octets at 600 baud take 83 ms.
    bench.wait(480).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.wait(10).unwrap();
    assert_eq!(bench.said(), ["300", "\\x01B0\\x03q"]);
}

#[test]
fn a_lost_request_is_repeated_and_silence_given_up() {
    let mut bench = Bench::called(config(), Goal::Readout);
    bench.wait(2_500).unwrap();
    bench.wait(1_350).unwrap();
    assert_eq!(bench.said().len(), 7 * 2 + 2, "breaks, and the request");
    for _ in 0..2 {
        bench.wait(2_500).unwrap();
        assert_eq!(bench.said(), ["300", "/?!\\r\\n"]);
        bench.wait(170).unwrap();
    }
    assert_eq!(bench.wait(2_500), Err(SessionError::Silent { attempts: 4, timeout_ms: 2_500 }));
    assert_eq!(bench.client.poll(), Output::WaitUntil(None));
    assert_eq!(bench.client.sign_on(bench.now, Goal::Readout), Err(SessionError::NotReady));
    assert_eq!(bench.hear(ID), Ok(()));
    assert_eq!(bench.said(), [""; 0]);
}

#[test]
fn noise_and_our_own_request_are_no_identification() {
    let mut bench = Bench::called(config(), Goal::Readout);
    bench.hear(b"\xff\x00/?!\r\n/12").unwrap();
    bench.hear(b"3\r\n").unwrap();
    assert_eq!(bench.said(), [""; 0]);
    for octet in ID {
        bench.hear(&[*octet]).unwrap();
    }
    assert_eq!(bench.said(), ["ZMD310"]);
}

#[test]
fn a_read_out_whose_check_is_wrong_is_asked_for_again() {
    let mut bench = Bench::called(config(), Goal::Readout);
    bench.hear(ID).unwrap();
    bench.wait(200).unwrap();
    bench.wait(500).unwrap();
    bench.said();
    bench.hear(b"\x021.8.0(1)\r\n!\r\n\x03\x00").unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x15"]);
    let mut octets = Vec::new();
    encode_block(&mut octets, b"1.8.0(1)\r\n!\r\n", true);
    let (first, second) = octets.split_at(5);
    bench.hear(first).unwrap();
    bench.wait(1_400).unwrap();
    bench.hear(second).unwrap();
    let said = bench.said();
    assert!(said[0].starts_with("ReadOut(") && said[1] == "300", "{said:?}");
    assert!(bench.client.sign_on(bench.now, Goal::Readout).is_ok());
}

#[test]
fn a_read_out_that_stops_is_asked_for_again() {
    let mut bench = Bench::called(config(), Goal::Readout);
    bench.hear(ID).unwrap();
    bench.wait(200).unwrap();
    bench.wait(500).unwrap();
    bench.said();
    bench.hear(b"\x021.8.0(").unwrap();
    bench.wait(2_600).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x15"]);
}

// Negative control: let `await_answer` set no `hard_deadline`.
#[test]
fn a_meter_that_never_ends_is_given_up() {
    let mut bench = Bench::called(ClientConfig { answer_octets_max: 1_000, ..config() }, Goal::Readout);
    bench.hear(ID).unwrap();
    bench.wait(200).unwrap();
    bench.wait(500).unwrap();
    bench.said();
    let mut result = Ok(());
    for _ in 0..100 {
        result = bench.hear(b"\x021.8.0(").and_then(|()| bench.wait(1_000));
        if result.is_err() {
            break;
        }
    }
    assert!(result.is_err(), "it went on");
}

#[test]
fn a_register_is_read_and_an_answer_without_its_address_gets_it() {
    let mut bench = Bench::open(config());
    bench.read("1.8.0");
    assert_eq!(bench.said(), ["\\x01R1\\x021.8.0()\\x03Z"]);
    bench.answer(b"(012*kWh)", true).unwrap();
    assert_eq!(bench.said(), ["1.8.0(012*kWh)"]);
    bench.client.sign_off(bench.now).unwrap();
    bench.wait(200).unwrap();
    bench.wait(10).unwrap();
    assert_eq!(bench.said(), ["\\x01B0\\x03q", "300", "SignedOff"]);
}

// Negative control: take every answer in `is_asked_for`.
#[test]
fn an_answer_to_another_question_is_none() {
    let mut bench = Bench::open(config());
    bench.read("1.8.0");
    bench.said();
    bench.answer(b"2.8.0(9*kWh)", true).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.answer(b"1-1:1.8.0*255(1*kWh)", true).unwrap();
    assert_eq!(bench.said(), ["1-1:1.8.0*255(1*kWh)"]);

    let mut quirky = config();
    quirky.quirks.any_answer_address = true;
    let mut bench = Bench::open(quirky);
    bench.read("1.8.0");
    bench.said();
    bench.answer(b"2.8.0(9*kWh)", true).unwrap();
    assert_eq!(bench.said(), ["2.8.0(9*kWh)"]);
}

// Negative control: leave out `let_pass` in `on_silence`.
#[test]
fn a_late_answer_passes_before_the_question_is_repeated() {
    let mut bench = Bench::open(config());
    bench.read("1.8.0");
    bench.said();
    bench.wait(2_600).unwrap();
    bench.wait(2_300).unwrap();
    bench.answer(b"(1*kWh)", true).unwrap();
    assert_eq!(bench.said(), [""; 0], "late, and not taken");
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x01R1\\x021.8.0()\\x03Z"]);
    bench.answer(b"(2*kWh)", true).unwrap();
    assert_eq!(bench.said(), ["1.8.0(2*kWh)"]);
}

#[test]
fn partial_blocks_are_acknowledged_one_by_one() {
    let mut bench = Bench::open(config());
    bench.client.read(bench.now, &ReadRequest::new(ReadLevel::R6, "P.01", ";").unwrap()).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x01R6\\x02P.01(;)\\x03 "]);
    bench.answer(b"P.01(1)\r\n", false).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x06"]);
    bench.hear(b"\x02(2)\r\n\x04\x00").unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x15"]);
    bench.answer(b"(2)\r\n", false).unwrap();
    bench.wait(200).unwrap();
    bench.answer(b"(3)\r\n", true).unwrap();
    assert_eq!(bench.said(), ["\\x06", "P.01(1)\r\n(2)\r\n(3)\r\n"]);
}

#[test]
fn an_acknowledgement_into_silence_begins_the_read_anew() {
    let mut bench = Bench::open(config());
    bench.client.read(bench.now, &ReadRequest::new(ReadLevel::R6, "P.01", ";").unwrap()).unwrap();
    bench.wait(200).unwrap();
    bench.answer(b"P.01(1)\r\n", false).unwrap();
    bench.wait(200).unwrap();
    bench.said();
    bench.wait(2_600).unwrap();
    bench.wait(2_500).unwrap();
    assert_eq!(bench.said(), ["\\x01R6\\x02P.01(;)\\x03 "]);
    bench.answer(b"P.01(1)\r\n", false).unwrap();
    bench.wait(200).unwrap();
    bench.answer(b"(2)\r\n", true).unwrap();
    assert_eq!(bench.said(), ["\\x06", "P.01(1)\r\n(2)\r\n"]);
}

// Negative control: let `collect` forget the restarts.
#[test]
fn a_meter_that_always_stops_after_its_first_block_is_given_up() {
    let mut bench = Bench::open(config());
    bench.client.read(bench.now, &ReadRequest::new(ReadLevel::R6, "P.01", ";").unwrap()).unwrap();
    for _ in 0..20 {
        bench.wait(200).unwrap();
        bench.answer(b"P.01(1)\r\n", false).unwrap();
        bench.wait(200).unwrap();
        if let Err(error) = bench.wait(2_600).and_then(|()| bench.wait(2_500)) {
            assert_eq!(error, SessionError::Silent { attempts: 4, timeout_ms: 2_500 });
            let said = bench.said();
            assert_eq!(said.last().unwrap(), "\\x01B0\\x03q", "the meter is not left in programming mode");
            return;
        }
    }
    panic!("it went on");
}

#[test]
fn an_endless_answer_is_refused_empty_blocks_too() {
    for content in [&b"(0.123)(0.456)\r\n"[..], b""] {
        let mut bench = Bench::open(ClientConfig { answer_octets_max: 300, ..config() });
        bench.client.read(bench.now, &ReadRequest::new(ReadLevel::R6, "P.01", ";").unwrap()).unwrap();
        bench.wait(200).unwrap();
        let mut blocks = 0;
        let error = loop {
            if let Err(error) = bench.answer(content, false) {
                break error;
            }
            bench.wait(200).unwrap();
            blocks += 1;
            assert!(blocks < 400, "it went on");
        };
        assert_eq!(error, SessionError::TooLong { limit: 300 });
    }
}

#[test]
fn nak_repeats_a_question_and_then_refuses_it() {
    let mut bench = Bench::open(config());
    bench.read("1.8.0");
    for _ in 0..3 {
        assert_eq!(bench.said(), ["\\x01R1\\x021.8.0()\\x03Z"]);
        bench.hear(&[NAK]).unwrap();
        bench.wait(200).unwrap();
    }
    assert_eq!(bench.said().len(), 1);
    bench.hear(&[NAK]).unwrap();
    assert_eq!(bench.said(), ["Refused { reason: \"NAK\" }"]);
    bench.read("2.8.0");
    bench.answer(b"(1)", true).unwrap();
    assert_eq!(bench.said()[1], "2.8.0(1)");
}

// Negative control: repeat the password as often as other questions.
#[test]
fn a_password_is_sent_twice_at_the_most() {
    let password = Password::plain("s3cr3t").unwrap();
    let mut bench = Bench::open(config());
    bench.client.log_in(bench.now, &password).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["\\x01P1\\x02(s3cr3t)\\x03w"]);
    bench.hear(&[NAK]).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said().len(), 1);
    assert_eq!(bench.hear(&[NAK]), Err(SessionError::PasswordRefused));

    for refusal in [BREAK, b"\x02(ER23)\x03\x14"] {
        let mut bench = Bench::open(config());
        bench.client.log_in(bench.now, &password).unwrap();
        bench.wait(200).unwrap();
        assert_eq!(bench.hear(refusal), Err(SessionError::PasswordRefused), "{}", refusal.escape_ascii());
    }
    let mut bench = Bench::open(config());
    bench.client.log_in(bench.now, &password).unwrap();
    bench.wait(200).unwrap();
    bench.said();
    bench.hear(&[ACK]).unwrap();
    assert_eq!(bench.said(), ["LoggedIn"]);
}

#[test]
fn a_debug_print_shows_no_password() {
    let mut bench = Bench::open(config());
    bench.client.log_in(bench.now, &Password::plain("s3cr3t").unwrap()).unwrap();
    let asked = format!("{:?}", bench.client);
    bench.wait(200).unwrap();
    let output = bench.client.poll();
    assert!(matches!(output, Output::Send(_)));
    let shown = format!("{asked}{output:?}{:?}", bench.client);
    assert!(!shown.contains("s3cr3t") && !shown.contains("115, 51"), "{shown}");
}

#[test]
fn a_break_ends_the_session() {
    let mut bench = Bench::open(config());
    bench.read("1.8.0");
    assert_eq!(bench.hear(BREAK), Err(SessionError::Ended));
}

#[test]
fn mode_e_is_confirmed_before_the_change_or_after_it() {
    for at_new_rate in [false, true] {
        let mut config = config();
        config.quirks.hdlc_confirmed_at_new_rate = at_new_rate;
        let mut bench = Bench::called(config, Goal::Hdlc);
        bench.hear(ID).unwrap();
        bench.wait(200).unwrap();
        bench.wait(500).unwrap();
        let mut said = vec!["ZMD310", "\\x06252\\r\\n"];
        said.extend(at_new_rate.then_some("9600"));
        assert_eq!(bench.said(), said);
        bench.hear(b"\x06252").unwrap();
        bench.hear(b"\r\n").unwrap();
        bench.wait(200).unwrap();
        let ready = "HdlcReady(LineSettings { baud: B9600, framing: EightNone })";
        assert_eq!(bench.said(), ["9600 8N1", ready]);
    }
}

#[test]
fn what_mode_c_needs_is_not_asked_of_modes_a_and_b() {
    for goal in [Goal::Programming, Goal::Hdlc] {
        let mut bench = Bench::called(config(), goal);
        assert_eq!(bench.hear(b"/LGZEZMD310\r\n"), Err(SessionError::NotOffered { goal }));
    }
}

#[test]
fn other_request_and_mode_characters_can_be_asked_with() {
    let config = ClientConfig {
        request_character: b'2',
        readout_character: b'6',
        initial_baud: Baud::B2400,
        ..ClientConfig::new(DeviceAddress::new("17").unwrap())
    };
    let mut bench = Bench::new(config);
    bench.client.sign_on(bench.now, Goal::Readout).unwrap();
    assert_eq!(bench.said(), ["2400", "/217!\\r\\n"]);
    bench.wait(30).unwrap();
    bench.hear(b"/LGZ3ZMD310\r\n").unwrap();
    bench.wait(200).unwrap();
    bench.wait(200).unwrap();
    assert_eq!(bench.said(), ["ZMD310", "\\x06036\\r\\n"], "the rate is that of the call");
}

#[test]
fn nothing_is_asked_out_of_turn() {
    let mut bench = Bench::new(config());
    let request = ReadRequest::register(ReadLevel::R1, "1.8.0").unwrap();
    assert_eq!(bench.client.read(bench.now, &request), Err(SessionError::NotReady));
    assert_eq!(bench.client.sign_off(bench.now), Err(SessionError::NotReady));
    let mut bench = Bench::open(config());
    bench.client.read(bench.now, &request).unwrap();
    assert_eq!(bench.client.read(bench.now, &request), Err(SessionError::NotReady));
    assert_eq!(bench.client.sign_on(bench.now, Goal::Readout), Err(SessionError::NotReady));
}

#[test]
fn whatever_is_heard_memory_stays_bounded() {
    let mut bench = Bench::open(ClientConfig { answer_octets_max: 500, ..config() });
    bench.read("1.8.0");
    for octets in [&b"\x02"[..], b"/", b"\x01", b"xxxxxxxx"] {
        for _ in 0..10_000 {
            if bench.hear(octets).is_err() {
                return;
            }
            assert!(bench.client.incoming.len() <= 600);
        }
    }
}
