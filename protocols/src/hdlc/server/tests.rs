use super::super::frame::{Scan, scan};
use super::super::pair::Random;
use super::super::transfer::LLC_COMMAND;
use super::*;

/// A server, and a hand on the client's end of the line.
struct Bench {
    server: HdlcServer,
    now: Duration,
    /// The address that is written into frames.
    to: HdlcAddress,
    client: ClientAddress,
}

fn own_address() -> HdlcAddress {
    HdlcAddress::two(1, 17).unwrap()
}

fn config() -> HdlcConfig {
    HdlcConfig::new(ClientAddress::PUBLIC, own_address())
}

impl Bench {
    fn new(config: HdlcConfig) -> Self {
        Self { server: HdlcServer::new(config), now: Duration::ZERO, to: own_address(), client: ClientAddress::PUBLIC }
    }

    fn connected(config: HdlcConfig) -> Self {
        let mut bench = Self::new(config);
        bench.hear(Control::Snrm, &[]);
        assert_eq!(bench.server.poll(), LinkOutput::Connected);
        assert_eq!(bench.said(), ["Ua F"]);
        bench
    }

    fn hear(&mut self, control: Control, information: &[u8]) {
        self.hear_octet(control.encode(true), false, information);
    }

    fn hear_octet(&mut self, control: u8, segmented: bool, information: &[u8]) {
        let mut out = Vec::new();
        let (destination, source) = (self.to, self.client.into());
        Frame { segmented, destination, source, control, information }.encode(&mut out);
        self.server.handle(self.now, LinkInput::Received(&out)).unwrap();
    }

    fn request(&mut self, send: u8, receive: u8, apdu: &[u8]) {
        self.hear(information(send, receive), &[&LLC_COMMAND, apdu].concat());
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.server.handle(self.now, LinkInput::Tick).unwrap();
    }

    /// The frames sent since the last look, in words. All come from the address that was used, whatever its form.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(LinkOutput::Send(octets)) =
            self.server.outputs.pop_front_if(|output| matches!(output, LinkOutput::Send(_)))
        {
            let mut rest = &octets[..];
            while let Scan::Frame { frame, used } = scan(rest) {
                assert_eq!((frame.source, frame.destination), (self.to, self.client.into()));
                let words = match frame.control().unwrap() {
                    Control::Information { send, receive } => {
                        format!("I{send:?}/{receive:?}{}", if frame.segmented { "+" } else { "" })
                    }
                    Control::ReceiveReady { receive } => format!("RR{receive:?}"),
                    Control::Frmr => format!("Frmr {:02x?}", frame.information),
                    other => format!("{other:?}"),
                };
                said.push(words + if frame.poll_final() { " F" } else { "" });
                rest = &rest[used..];
            }
        }
        said
    }
}

fn information(send: u8, receive: u8) -> Control {
    Control::Information { send: Sequence::new(send), receive: Sequence::new(receive) }
}

fn ready(receive: u8) -> Control {
    Control::ReceiveReady { receive: Sequence::new(receive) }
}

#[test]
fn a_request_is_answered_when_the_owner_answers() {
    let mut bench = Bench::connected(config());
    assert_eq!(bench.server.client(), Some(ClientAddress::PUBLIC));
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
    assert_eq!(bench.said(), [""; 0]);
    bench.server.send(bench.now, &[0xc4]).unwrap();
    assert_eq!(bench.said(), ["I0/1 F"]);
    bench.hear(Control::Disc, &[]);
    assert_eq!(bench.said(), ["Ua F"]);
    assert_eq!(bench.server.poll(), LinkOutput::Disconnected);
    bench.hear(Control::Disc, &[]);
    assert_eq!(bench.said(), ["Dm F"]);
}

// Negative control: answer with `config.server` instead of the address that was used.
#[test]
fn the_answer_has_the_address_form_of_the_question() {
    for form in [HdlcAddress::one(1), HdlcAddress::two(1, 17), HdlcAddress::four(1, 17)] {
        let mut bench = Bench::new(config());
        bench.to = form.unwrap();
        bench.hear(Control::Snrm, &[]);
        assert_eq!(bench.server.poll(), LinkOutput::Connected);
        assert_eq!(bench.said(), ["Ua F"]);
        bench.request(0, 0, &[0xc0]);
        assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
        bench.server.send(bench.now, &[0xc4]).unwrap();
        assert_eq!(bench.said(), ["I0/1 F"]);
    }
}

#[test]
fn what_is_meant_for_other_devices_of_the_line_is_ignored() {
    let mut bench = Bench::new(config());
    for other in [HdlcAddress::two(1, 18), HdlcAddress::two(2, 17), HdlcAddress::one(2), HdlcAddress::four(1, 18)] {
        bench.to = other.unwrap();
        bench.hear(Control::Snrm, &[]);
        bench.hear(Control::Disc, &[]);
        assert_eq!(bench.server.poll(), LinkOutput::WaitUntil(None));
    }
}

#[test]
fn whoever_did_not_connect_is_told_so() {
    let mut bench = Bench::new(config());
    bench.request(0, 0, &[0xc0]);
    bench.hear(ready(0), &[]);
    bench.hear_octet(0xff, false, &[]);
    assert_eq!(bench.said(), ["Dm F"; 3]);
    // Without the poll bit it is not our turn.
    bench.hear_octet(information(0, 0).encode(false), false, &[1]);
    // Another server's answer is no question.
    bench.hear(Control::Dm, &[]);
    assert_eq!(bench.said(), [""; 0]);
}

// Negative control: swap the two sides in `agreed`.
#[test]
fn parameters_are_negotiated_to_the_smaller() {
    let mut bench = Bench::new(HdlcConfig { information_transmit_max: 256, window_transmit: 4, ..config() });
    let proposed = LinkParameters {
        information_transmit_max: 2030,
        information_receive_max: 200,
        window_transmit: 7,
        window_receive: 7,
    };
    bench.hear(Control::Snrm, &proposed.encode());
    assert_eq!(bench.server.poll(), LinkOutput::Connected);
    let LinkOutput::Send(ua) = bench.server.poll() else { panic!() };
    let Scan::Frame { frame, .. } = scan(&ua) else { panic!() };
    let expected = LinkParameters {
        information_transmit_max: 200,
        information_receive_max: 128,
        window_transmit: 4,
        window_receive: 1,
    };
    assert_eq!(LinkParameters::decode(frame.information), Ok(expected));
}

// Negative control: answer a duplicate with nothing, or let `send` answer without a poll.
#[test]
fn a_repeated_request_gets_the_same_answer_and_reaches_the_owner_once() {
    let mut bench = Bench::connected(config());
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
    // Not yet answered: the acknowledgement is repeated, and the answer waits for the next poll.
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.said(), ["RR1 F"]);
    bench.server.send(bench.now, &[0xc4]).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.hear(ready(0), &[]);
    assert_eq!(bench.said(), ["I0/1 F"]);
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.said(), ["I0/1 F"]);
    bench.request(1, 1, &[0xc1]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc1]));
}

#[test]
fn a_gap_is_answered_with_what_is_expected() {
    let mut bench = Bench::new(HdlcConfig { window_receive: 3, ..config() });
    bench.hear(Control::Snrm, &LinkParameters { window_transmit: 3, ..LinkParameters::default() }.encode());
    assert_eq!(bench.server.poll(), LinkOutput::Connected);
    assert_eq!(bench.said(), ["Ua F"]);
    bench.hear_octet(information(0, 0).encode(false), true, &LLC_COMMAND);
    bench.hear_octet(information(2, 0).encode(true), false, &[2]);
    assert_eq!(bench.said(), ["RR1 F"]);
    bench.hear_octet(information(1, 0).encode(false), true, &[0xc0, 1]);
    bench.hear_octet(information(2, 0).encode(true), false, &[2]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0, 1, 2]));
}

#[test]
fn a_long_answer_goes_by_windows_from_where_the_client_is() {
    let mut bench = Bench::new(HdlcConfig { information_transmit_max: 32, window_transmit: 2, ..config() });
    bench.hear(Control::Snrm, &LinkParameters { window_receive: 2, ..LinkParameters::default() }.encode());
    assert_eq!(bench.server.poll(), LinkOutput::Connected);
    assert_eq!(bench.said(), ["Ua F"]);
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
    bench.server.send(bench.now, &[0xc4; 90]).unwrap();
    assert_eq!(bench.server.send(bench.now, &[0xc4]), Err(LinkError::NotReady));
    assert_eq!(bench.said(), ["I0/1+", "I1/1+ F"]);
    bench.hear(ready(1), &[]);
    assert_eq!(bench.said(), ["I1/1+", "I2/1 F"]);
    // A client that cannot take more is not sent more.
    bench.hear(Control::ReceiveNotReady { receive: Sequence::new(1) }, &[]);
    assert_eq!(bench.said(), ["RR1 F"]);
    bench.hear(ready(3), &[]);
    assert_eq!(bench.said(), ["RR1 F"]);
}

#[test]
fn what_makes_no_sense_is_rejected_and_ends_the_link() {
    for (control, information, reason) in [
        (0xff, vec![], "Frmr [ff, 00, 01] F"),
        (information(0, 0).encode(true), vec![0; 129], "Frmr [10, 00, 04] F"),
        (information(0, 5).encode(true), vec![1], "Frmr [b0, 00, 08] F"),
        (ready(2).encode(true), vec![], "Frmr [51, 00, 08] F"),
    ] {
        let mut bench = Bench::connected(config());
        bench.hear_octet(control, false, &information);
        assert_eq!(bench.said(), [reason]);
        assert_eq!(bench.server.client(), None);
        assert_eq!(bench.server.poll(), LinkOutput::Disconnected);
        bench.hear(ready(0), &[]);
        assert_eq!(bench.said(), ["Dm F"]);
    }
}

#[test]
fn an_endless_request_is_rejected() {
    let mut bench = Bench::connected(HdlcConfig { apdu_octets_max: 300, ..config() });
    for send in 0..2 {
        bench.hear_octet(information(send, 0).encode(true), true, &[0; 128]);
    }
    assert_eq!(bench.said(), ["RR1 F", "RR2 F"]);
    bench.hear_octet(information(2, 0).encode(true), true, &[0; 128]);
    assert_eq!(bench.said(), ["Frmr [14, 40, 04] F"]);
}

// Negative control: answer broadcasts as questions.
#[test]
fn a_broadcast_is_heard_and_never_answered() {
    let mut bench = Bench::new(config());
    bench.to = HdlcAddress::two(0x7f, 0x7f).unwrap();
    bench.hear_octet(Control::Ui.encode(false), false, &[0xe6, 0xe6, 0x00, 0xc1, 1]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc1, 1]));
    bench.hear(Control::Snrm, &[]);
    bench.hear(Control::Disc, &[]);
    assert_eq!(bench.server.poll(), LinkOutput::WaitUntil(None));
}

// Negative control: leave out the check of `drop_at` in `handle`.
#[test]
fn a_client_that_went_away_is_dropped() {
    let mut bench = Bench::connected(config());
    bench.wait(100_000);
    bench.hear(ready(0), &[]);
    assert_eq!(bench.said(), ["RR0 F"]);
    bench.wait(119_999);
    assert_eq!(bench.server.poll(), LinkOutput::WaitUntil(Some(Duration::from_secs(220))));
    bench.wait(1);
    assert_eq!(bench.server.poll(), LinkOutput::Disconnected);
    bench.hear(ready(0), &[]);
    assert_eq!(bench.said(), ["Dm F"]);
}

#[test]
fn a_repeated_snrm_is_the_same_link_but_a_later_one_is_new() {
    let mut bench = Bench::connected(config());
    bench.hear(Control::Snrm, &[]);
    assert_eq!(bench.said(), ["Ua F"]);
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
    bench.hear(Control::Snrm, &[]);
    assert_eq!(bench.server.poll(), LinkOutput::Disconnected);
    assert_eq!(bench.server.poll(), LinkOutput::Connected);
    assert_eq!(bench.said(), ["Ua F"]);
    bench.request(0, 0, &[0xc1]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc1]));
}

#[test]
fn a_second_client_is_refused_while_the_first_is_connected() {
    let mut bench = Bench::connected(config());
    bench.client = ClientAddress::new(1).unwrap();
    bench.hear(Control::Snrm, &[]);
    bench.hear(ready(0), &[]);
    assert_eq!(bench.said(), ["Dm F"; 2]);
    assert_eq!(bench.server.client(), Some(ClientAddress::PUBLIC));
}

// Negative control: leave out `OUTPUTS_MAX`.
#[test]
fn a_flood_of_polls_is_not_answered_with_a_flood() {
    let mut bench = Bench::connected(HdlcConfig { apdu_octets_max: 20_000, ..config() });
    bench.request(0, 0, &[0xc0]);
    assert_eq!(bench.server.poll(), LinkOutput::Apdu(vec![0xc0]));
    bench.server.send(bench.now, &[0xc4; 10_000]).unwrap();
    let mut poll = Vec::new();
    let (destination, source) = (bench.to, bench.client.into());
    let control = ready(0).encode(true);
    Frame { segmented: false, destination, source, control, information: &[] }.encode(&mut poll);
    bench.server.handle(bench.now, LinkInput::Received(&poll.repeat(10_000))).unwrap();
    assert!(bench.server.outputs.len() <= OUTPUTS_MAX, "{} outputs", bench.server.outputs.len());
}

// 100,000 mutations of what a client says: nothing panics, memory and output stay bounded, and the server can be connected
// to afterwards.
#[test]
fn mutated_requests_do_no_harm() {
    let mut random = Random::seeded(46);
    let mut bench = Bench::new(HdlcConfig { apdu_octets_max: 500, ..config() });
    for round in 0..100_000 {
        let mut stream = Vec::new();
        for index in 0..5 {
            let known =
                [Control::Snrm, information(0, 0), ready(0), Control::Ui, information(1, 0)][index].encode(true);
            let control = if random.chance(200) { random.draw() as u8 } else { known };
            let octets = random.below(60) as usize;
            let information = random.octets(octets);
            let destination = if random.chance(50) { HdlcAddress::two(0x7f, 0x7f).unwrap() } else { bench.to };
            let (segmented, source) = (random.chance(300), bench.client.into());
            Frame { segmented, destination, source, control, information: &information }.encode(&mut stream);
        }
        for _ in 0..random.below(4) {
            let at = random.below(stream.len() as u64) as usize;
            match random.below(3) {
                0 => stream[at] = random.draw() as u8,
                1 => drop(stream.remove(at)),
                _ => stream.insert(at, 0x7e),
            }
        }
        bench.now += Duration::from_millis(random.below(1_000));
        bench.server.handle(bench.now, LinkInput::Received(&stream)).unwrap();
        loop {
            match bench.server.poll() {
                LinkOutput::WaitUntil(_) => break,
                LinkOutput::Apdu(apdu) => {
                    assert!(apdu.len() <= 503, "round {round}");
                    // An owner that answers everything, broadcasts too.
                    drop(bench.server.send(bench.now, &[0xc4; 200]));
                }
                _ => {}
            }
        }
        assert!(bench.server.incoming.len() < 2_500, "round {round}");
    }
    bench.wait(500);
    bench.hear(Control::Disc, &[]);
    while !matches!(bench.server.poll(), LinkOutput::WaitUntil(_)) {}
    bench.hear(Control::Snrm, &[]);
    assert_eq!(bench.server.poll(), LinkOutput::Connected);
}
