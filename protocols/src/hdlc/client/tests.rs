use super::super::address::{ClientAddress, HdlcAddress};
use super::super::frame::{Scan, scan};
use super::super::pair::Random;
use super::super::transfer::LLC_RESPONSE;
use super::*;

/// A client, and a hand on the other end of the line.
struct Bench {
    client: HdlcClient,
    now: Duration,
    reply_from: HdlcAddress,
}

fn config() -> HdlcConfig {
    HdlcConfig {
        response_timeout_ms: 1_000,
        ..HdlcConfig::new(ClientAddress::PUBLIC, HdlcAddress::two(1, 17).unwrap())
    }
}

impl Bench {
    fn new(config: HdlcConfig) -> Self {
        Self { reply_from: config.server, client: HdlcClient::new(config), now: Duration::ZERO }
    }

    fn connected(config: HdlcConfig) -> Self {
        let mut bench = Self::new(config);
        bench.client.connect(bench.now);
        assert_eq!(bench.said(), ["Snrm"]);
        bench.reply(Control::Ua, &[]).unwrap();
        assert_eq!(bench.client.poll(), LinkOutput::Connected);
        bench
    }

    fn wait(&mut self, ms: u64) -> Result<(), LinkError> {
        self.now += Duration::from_millis(ms);
        self.client.handle(self.now, LinkInput::Tick)
    }

    /// A final answer.
    fn reply(&mut self, control: Control, information: &[u8]) -> Result<(), LinkError> {
        self.reply_with(control, true, false, information)
    }

    fn reply_with(
        &mut self,
        control: Control,
        is_final: bool,
        segmented: bool,
        information: &[u8],
    ) -> Result<(), LinkError> {
        let (destination, source) = (self.client.config.client.into(), self.reply_from);
        let mut out = Vec::new();
        Frame { segmented, destination, source, control: control.encode(is_final), information }.encode(&mut out);
        self.client.handle(self.now, LinkInput::Received(&out))
    }

    /// An answer of one segment with these numbers.
    fn answer(&mut self, send: u8, receive: u8, apdu: &[u8]) -> Result<(), LinkError> {
        self.reply(information(send, receive), &[&LLC_RESPONSE, apdu].concat())
    }

    /// The frames sent since the last look, in words: the last one of each transmission carries P.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(LinkOutput::Send(octets)) =
            self.client.outputs.pop_front_if(|output| matches!(output, LinkOutput::Send(_)))
        {
            let mut rest = &octets[..];
            while let Scan::Frame { frame, used } = scan(rest) {
                assert_eq!(frame.source, self.client.config.client.into());
                assert_eq!(frame.destination, self.client.config.server);
                said.push(match frame.control().unwrap() {
                    Control::Information { send, receive } => {
                        let (poll, more) =
                            (if frame.poll_final() { "P" } else { "" }, if frame.segmented { "+" } else { "" });
                        format!("I{send:?}/{receive:?}{poll}{more}")
                    }
                    Control::ReceiveReady { receive } => format!("RR{receive:?}"),
                    other => format!("{other:?}"),
                });
                rest = &rest[used..];
            }
            assert_eq!(rest, [0x7e]);
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
fn a_whole_conversation_takes_six_frames() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0, 1]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.answer(0, 1, &[0xc4, 1]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4, 1]));
    bench.client.disconnect(bench.now);
    assert_eq!(bench.said(), ["Disc"]);
    bench.reply(Control::Ua, &[]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Disconnected);
    assert_eq!(bench.client.poll(), LinkOutput::WaitUntil(None));
}

#[test]
fn the_wire_has_the_octets_that_the_standard_asks_for() {
    let server = HdlcAddress::four(1, 17).unwrap();
    let mut client = HdlcClient::new(HdlcConfig::new(ClientAddress::new(120).unwrap(), server));
    client.connect(Duration::ZERO);
    // As another maker's sender writes it: no information field, since nothing differs from the defaults.
    let snrm = [0x7e, 0xa0, 0x0a, 0x00, 0x02, 0x00, 0x23, 0xf1, 0x93, 0x23, 0x2e, 0x7e];
    assert_eq!(client.poll(), LinkOutput::Send(snrm.to_vec()));
}

// Negative control: take the greater instead of the smaller in `agreed`.
#[test]
fn what_was_negotiated_is_kept() {
    let proposed =
        HdlcConfig { information_transmit_max: 512, window_transmit: 7, information_receive_max: 512, ..config() };
    let mut bench = Bench::new(proposed);
    bench.client.connect(bench.now);
    let LinkOutput::Send(snrm) = bench.client.poll() else { panic!() };
    let Scan::Frame { frame, .. } = scan(&snrm) else { panic!() };
    let peer = LinkParameters::decode(frame.information).unwrap();
    assert_eq!((peer.information_transmit_max, peer.window_transmit, peer.window_receive), (512, 7, 1));
    // The server takes 50 octets and two frames, and offers to send more than was asked for.
    let offered = LinkParameters {
        information_transmit_max: 2030,
        information_receive_max: 50,
        window_transmit: 7,
        window_receive: 2,
    };
    bench.reply(Control::Ua, &offered.encode()).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Connected);
    bench.client.send(bench.now, &[0xc0; 120]).unwrap();
    assert_eq!(bench.said(), ["I0/0+", "I1/0P+"]);
    bench.reply(ready(2), &[]).unwrap();
    assert_eq!(bench.said(), ["I2/0P"]);
}

#[test]
fn a_server_that_says_nothing_of_parameters_gets_the_defaults() {
    for ua in [&[][..], &[0x81, 0x80, 0x40], &[0x99; 9]] {
        let mut bench = Bench::new(HdlcConfig { information_transmit_max: 2030, window_transmit: 7, ..config() });
        bench.client.connect(bench.now);
        assert_eq!(bench.said(), ["Snrm"]);
        bench.reply(Control::Ua, ua).unwrap();
        assert_eq!(bench.client.poll(), LinkOutput::Connected);
        bench.client.send(bench.now, &[0xc0; 200]).unwrap();
        assert_eq!(bench.said(), ["I0/0P+"]);
    }
}

// Negative control: compare addresses with `==` in `on_frame`.
#[test]
fn an_answer_in_another_address_form_is_taken() {
    for form in [HdlcAddress::one(1), HdlcAddress::two(1, 17), HdlcAddress::four(1, 17)] {
        let mut bench = Bench::new(config());
        bench.reply_from = form.unwrap();
        bench.client.connect(bench.now);
        assert_eq!(bench.said(), ["Snrm"]);
        bench.reply(Control::Ua, &[]).unwrap();
        assert_eq!(bench.client.poll(), LinkOutput::Connected);
    }
    let mut bench = Bench::new(config());
    bench.reply_from = HdlcAddress::two(1, 18).unwrap();
    bench.client.connect(bench.now);
    bench.reply(Control::Ua, &[]).unwrap();
    assert_eq!(bench.said(), ["Snrm"]);
    assert!(matches!(bench.client.poll(), LinkOutput::WaitUntil(Some(_))), "another meter's UA was taken");
}

#[test]
fn silence_is_met_with_repetition_and_then_given_up() {
    let mut bench = Bench::new(config());
    bench.client.connect(bench.now);
    for _ in 0..4 {
        assert_eq!(bench.said(), ["Snrm"]);
        bench.wait(999).unwrap();
        assert_eq!(bench.said(), [""; 0]);
        if let Err(error) = bench.wait(1) {
            assert_eq!(error, LinkError::Silent { attempts: 4, timeout_ms: 1_000 });
            assert_eq!(bench.now, Duration::from_secs(4));
            assert_eq!(bench.client.poll(), LinkOutput::WaitUntil(None));
            assert_eq!(bench.client.send(bench.now, &[0xc0]), Err(LinkError::NotReady));
            return;
        }
    }
    panic!("it went on");
}

// Negative control: let the time-out in `Polling` send RR only.
#[test]
fn a_lost_request_is_repeated() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.wait(1_000).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.answer(0, 1, &[0xc4]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4]));
}

// Negative control: leave out the `Arrival::Duplicate` arm's return.
#[test]
fn the_answer_to_a_repeated_request_counts_once() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    bench.wait(1_000).unwrap();
    assert_eq!(bench.said(), ["I0/0P", "I0/0P"]);
    bench.answer(0, 1, &[0xc4, 1]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4, 1]));
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I1/1P"]);
    bench.answer(0, 1, &[0xc4, 1]).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.answer(1, 2, &[0xc4, 2]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4, 2]));
}

#[test]
fn segments_are_asked_for_one_window_at_a_time() {
    let mut bench = Bench::connected(HdlcConfig { window_receive: 3, ..config() });
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.reply_with(information(0, 1), false, true, &LLC_RESPONSE).unwrap();
    bench.reply_with(information(1, 1), true, true, &[0xc4]).unwrap();
    assert_eq!(bench.said(), ["RR2"]);
    bench.reply_with(information(2, 1), true, false, &[9]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4, 9]));
}

// Negative control: take `is_gap` for false in `on_information`; it then waits for the response time-out.
#[test]
fn a_gap_in_a_window_is_reported_at_once() {
    let mut bench = Bench::new(HdlcConfig { window_receive: 3, ..config() });
    bench.client.connect(bench.now);
    let server = LinkParameters { window_transmit: 3, ..LinkParameters::default() };
    assert_eq!(bench.said(), ["Snrm"]);
    bench.reply(Control::Ua, &server.encode()).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Connected);
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.reply_with(information(1, 1), false, true, &[0xc4]).unwrap();
    bench.reply_with(information(2, 1), true, true, &[9]).unwrap();
    assert_eq!(bench.said(), ["RR0"]);
}

// Negative control: take Reject out of the arm of ReceiveReady.
#[test]
fn rr_and_rej_name_the_segment_from_which_to_repeat() {
    for control in [ready(1), Control::Reject { receive: Sequence::new(1) }] {
        let mut bench = Bench::new(HdlcConfig { window_transmit: 3, information_transmit_max: 32, ..config() });
        bench.client.connect(bench.now);
        assert_eq!(bench.said(), ["Snrm"]);
        let server = LinkParameters { window_receive: 3, ..LinkParameters::default() };
        bench.reply(Control::Ua, &server.encode()).unwrap();
        assert_eq!(bench.client.poll(), LinkOutput::Connected);
        bench.client.send(bench.now, &[0xc0; 90]).unwrap();
        assert_eq!(bench.said(), ["I0/0+", "I1/0+", "I2/0P"]);
        bench.reply(control, &[]).unwrap();
        assert_eq!(bench.said(), ["I1/0+", "I2/0P"]);
    }
}

#[test]
fn an_rr_for_an_earlier_poll_breeds_no_repetition() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.reply(ready(0), &[]).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.wait(1_000).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
}

// Negative control: treat RNR as RR.
#[test]
fn a_server_that_is_not_ready_is_asked_ever_less_often_until_the_bound() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    let busy = Control::ReceiveNotReady { receive: Sequence::new(0) };
    let mut polls = 0;
    let error = loop {
        if let Err(error) = bench.reply(busy, &[]) {
            break error;
        }
        let LinkOutput::WaitUntil(Some(at)) = bench.client.poll() else { panic!() };
        bench.wait(at.saturating_sub(bench.now).as_millis() as u64).unwrap();
        assert_eq!(bench.said(), ["RR0"]);
        polls += 1;
        assert!(polls < 100, "it went on");
    };
    assert_eq!(error, LinkError::Silent { attempts: polls, timeout_ms: 60_000 });
    assert!((25..45).contains(&polls), "{polls} polls");
}

#[test]
fn a_server_that_became_ready_gets_the_frame_again() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.reply(Control::ReceiveNotReady { receive: Sequence::new(0) }, &[]).unwrap();
    bench.wait(100).unwrap();
    assert_eq!(bench.said(), ["RR0"]);
    bench.reply(ready(0), &[]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
}

#[test]
fn the_end_of_a_link_has_its_reason() {
    for (control, expected) in [
        (Control::Dm, LinkError::Disconnected),
        (Control::Frmr, LinkError::FrameRejected),
        (ready(3), LinkError::Violation("a frame was acknowledged that was never sent")),
    ] {
        let mut bench = Bench::connected(config());
        bench.client.send(bench.now, &[0xc0]).unwrap();
        assert_eq!(bench.reply(control, &[]), Err(expected));
    }
    let mut bench = Bench::new(config());
    bench.client.connect(bench.now);
    assert_eq!(bench.reply(Control::Dm, &[]), Err(LinkError::Disconnected));
}

#[test]
fn dm_and_silence_end_a_disconnection_too() {
    let mut bench = Bench::connected(config());
    bench.client.disconnect(bench.now);
    assert_eq!(bench.said(), ["Disc"]);
    bench.reply(Control::Dm, &[]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Disconnected);

    let mut bench = Bench::connected(config());
    bench.client.disconnect(bench.now);
    for _ in 0..3 {
        bench.wait(1_000).unwrap();
    }
    assert_eq!(bench.said(), ["Disc"; 4]);
    bench.wait(1_000).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Disconnected);
}

#[test]
fn a_link_of_an_earlier_client_is_ended_before_connecting() {
    let mut bench = Bench::new(config());
    bench.client.disconnect(bench.now);
    assert_eq!(bench.said(), ["Disc"]);
    bench.reply(Control::Dm, &[]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Disconnected);
    bench.client.connect(bench.now);
    assert_eq!(bench.said(), ["Snrm"]);
    bench.reply(Control::Ua, &[]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Connected);
}

// Negative control: let `rest` set no deadline.
#[test]
fn an_idle_link_is_kept_alive() {
    let mut bench = Bench::connected(config());
    bench.wait(59_999).unwrap();
    assert_eq!(bench.said(), [""; 0]);
    bench.wait(1).unwrap();
    assert_eq!(bench.said(), ["RR0"]);
    // An APDU that comes up meanwhile waits for its turn.
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.client.send(bench.now, &[0xc0]), Err(LinkError::NotReady));
    assert_eq!(bench.said(), [""; 0]);
    bench.reply(ready(0), &[]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);

    let mut bench = Bench::connected(HdlcConfig { keep_alive_ms: None, ..config() });
    assert_eq!(bench.client.poll(), LinkOutput::WaitUntil(None));
    bench.wait(1_000_000).unwrap();
    assert_eq!(bench.said(), [""; 0]);
}

// Negative control: leave out the length check in `Reassembly::accept`.
#[test]
fn an_endless_answer_is_refused() {
    let mut bench = Bench::connected(HdlcConfig { apdu_octets_max: 1_000, ..config() });
    bench.client.send(bench.now, &[0xc0]).unwrap();
    for send in 0..9 {
        let result = bench.reply_with(information(send, 1), true, true, &[0; 120]);
        if let Err(error) = result {
            assert_eq!((error, send), (LinkError::TooLong { limit: 1_000 }, 8));
            return;
        }
    }
    panic!("it was taken");
}

#[test]
fn an_event_is_not_taken_for_the_answer() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.answer(0, 1, &[0xc2, 7]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc2, 7]));
    bench.wait(100).unwrap();
    assert_eq!(bench.said(), ["RR1"]);
    bench.answer(1, 1, &[0xc4]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4]));
}

#[test]
fn a_push_on_an_open_link_is_handed_on() {
    let mut bench = Bench::connected(config());
    bench.client.send(bench.now, &[0xc0]).unwrap();
    assert_eq!(bench.said(), ["I0/0P"]);
    bench.reply(Control::Ui, &[&LLC_RESPONSE[..], &[0x0f, 1]].concat()).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0x0f, 1]));
    bench.answer(0, 1, &[0xc4]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Apdu(vec![0xc4]));
}

// Two echoes as received in u9n/dlms-cosem#62, in pieces and with octets missing, and then the answer. The second one has
// a good header, and its length reaches into the answer.
// Negative control: on an error let `scan` skip the claimed length.
#[test]
fn an_answer_behind_a_broken_echo_is_heard() {
    let first = [
        &[0x7e, 0xa0, 0x20, 0x20, 0x41, 0x27, 0x93][..],
        &[0x93, 0x0c, 0x0c, 0x81, 0x80, 0x13, 0x05, 0x01, 0x80],
        &[0x00, 0x00, 0x00, 0x01, 0x08, 0x04, 0x00, 0x00, 0x00, 0x01, 0xb4, 0xf9],
    ];
    let second = [
        &[0x7e, 0xa0, 0x20, 0x20, 0x41, 0x27, 0x93, 0x0c, 0x0c, 0x81][..],
        &[0x80, 0x13, 0x05, 0x01, 0x80, 0x06],
        &[0x01, 0x08, 0x04, 0x00, 0x00, 0x00, 0x01, 0xb4, 0xf9],
    ];
    for echo in [first, second] {
        let (client, server) = (ClientAddress::new(19).unwrap(), HdlcAddress::two(16, 32).unwrap());
        let mut bench = Bench::new(HdlcConfig { client, server, ..config() });
        bench.client.connect(bench.now);
        for piece in echo {
            bench.client.handle(bench.now, LinkInput::Received(piece)).unwrap();
        }
        bench.reply(Control::Ua, &[]).unwrap();
        assert_eq!(bench.said(), ["Snrm"]);
        assert_eq!(bench.client.poll(), LinkOutput::Connected);
    }
}

// Negative control: let `Incoming::give_up_one` drop everything.
#[test]
fn an_answer_inside_a_far_too_long_frame_is_heard_after_the_inter_octet_timeout() {
    let mut bench = Bench::new(config());
    bench.client.connect(bench.now);
    assert_eq!(bench.said(), ["Snrm"]);
    let mut echo = Vec::new();
    let (destination, source) = (bench.client.config.server, bench.client.config.client.into());
    Frame { segmented: false, destination, source, control: 0x93, information: &[1; 200] }.encode(&mut echo);
    bench.client.handle(bench.now, LinkInput::Received(&echo[..100])).unwrap();
    bench.reply(Control::Ua, &[]).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::WaitUntil(Some(Duration::from_millis(400))));
    bench.wait(400).unwrap();
    assert_eq!(bench.client.poll(), LinkOutput::Connected);
}

// 100,000 mutations of what a server says: nothing panics, the memory stays bounded, and whatever happens an end is near.
#[test]
fn mutated_answers_do_no_harm() {
    let mut random = Random::seeded(62);
    for round in 0..100_000 {
        let mut bench = Bench::connected(HdlcConfig { apdu_octets_max: 500, ..config() });
        bench.client.send(bench.now, &[0xc0; 200]).unwrap();
        let mut stream = Vec::new();
        let frames = [
            (ready(1), false, vec![]),
            (information(0, 2), true, [&LLC_RESPONSE[..], &[0xc4; 40]].concat()),
            (Control::Ua, false, LinkParameters::default().encode()),
            (Control::Ui, true, [&LLC_RESPONSE[..], &[0x0f; 40]].concat()),
            (information(1, 2), false, vec![0x7e; 40]),
        ];
        let source = bench.reply_from;
        for (control, segmented, information) in &frames {
            let control = if random.chance(150) { random.draw() as u8 } else { control.encode(!random.chance(200)) };
            let destination = ClientAddress::PUBLIC.into();
            Frame { segmented: *segmented, destination, source, control, information }.encode(&mut stream);
        }
        for _ in 0..random.below(4) {
            let at = random.below(stream.len() as u64) as usize;
            match random.below(3) {
                0 => stream[at] = random.draw() as u8,
                1 => drop(stream.remove(at)),
                _ => stream.insert(at, 0x7e),
            }
        }
        let (first, second) = stream.split_at(random.below(stream.len() as u64) as usize);
        for part in [first, second] {
            bench.now += Duration::from_millis(random.below(500));
            if bench.client.handle(bench.now, LinkInput::Received(part)).is_err() {
                break;
            }
        }
        let (kept, outputs) = (bench.client.incoming.len(), bench.client.outputs.len());
        assert!(kept <= stream.len() && outputs < 20, "round {round}: {kept} octets, {outputs} outputs");
        let is_over = (0..40).any(|_| {
            while !matches!(bench.client.poll(), LinkOutput::WaitUntil(_)) {}
            bench.wait(2_000).is_err()
        });
        let has_ended = matches!(bench.client.state, State::Idle | State::Failed);
        assert!(is_over || has_ended, "round {round}: {:?}", bench.client.state);
    }
}
