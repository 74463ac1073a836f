//! The client against meters that are scripted octet by octet.

use super::*;
use crate::dlms::acse::Password;
use crate::dlms::apdu::{DataAccessResult, ExceptionService, ExceptionState, GetResponse, write_results};
use crate::dlms::conformance::Conformance;
use crate::dlms::pair::{APDU, CLOCK, Dice, DummyLink, ENERGY, FAREWELL, SERIAL};
use crate::dlms::security::{Challenge, HighLevel, ProtectionError};
use proptest::prelude::*;

const AARE: &str = "6129a109060760857405080101a203020100a305a103020100be10040e0800065f1f04000038 1f01f40007";
const BOOT: Duration = Duration::from_secs(50);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(octet).collect()
}

/// The answers of a meter to one APDU; an empty one is the meter closing the link.
type Script<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>;

struct Bench {
    session: ClientSession<DummyLink>,
    now: Duration,
    events: Vec<ClientEvent>,
    sent: Vec<Vec<u8>>,
}

impl Bench {
    fn new(config: ClientConfig) -> Self {
        let mut session = ClientSession::new(DummyLink::default(), config);
        session.associate(BOOT).unwrap();
        Self { session, now: BOOT, events: Vec::new(), sent: Vec::new() }
    }

    /// Runs until the session ends or rests.
    fn run(&mut self, script: Script<'_>) -> Result<(), ClientError> {
        let mut incoming: VecDeque<Vec<u8>> = VecDeque::new();
        for _ in 0..300_000 {
            let deadline = loop {
                match self.session.poll() {
                    ClientOutput::Send(message) => {
                        if let [APDU, apdu @ ..] = message.as_slice() {
                            self.sent.push(apdu.to_vec());
                            incoming.extend(script(apdu));
                        }
                    }
                    ClientOutput::Event(event) => self.events.push(event),
                    ClientOutput::WaitUntil(deadline) => break deadline,
                }
            };
            let (message, input);
            if let Some(apdu) = incoming.pop_front() {
                message = if apdu.is_empty() { vec![FAREWELL] } else { [&[APDU], apdu.as_slice()].concat() };
                input = LinkInput::Received(&message);
            } else if let Some(deadline) = deadline {
                self.now = self.now.max(deadline);
                input = LinkInput::Tick;
            } else {
                return Ok(());
            }
            match self.session.handle(self.now, input) {
                // What was on the way when the session ended.
                Err(ClientError::Ended) => return Ok(()),
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        panic!("no end");
    }

    /// Reads [`ENERGY`] from an associated meter that answers GETs by `script`.
    fn read(config: ClientConfig, mut script: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> (Self, Result<(), ClientError>) {
        let mut bench = Self::new(config);
        bench.session.get(bench.now, ENERGY, None).unwrap();
        let result = bench.run(&mut |apdu| if apdu[0] == 0x60 { vec![hex(AARE)] } else { script(apdu) });
        (bench, result)
    }

    fn last(&self) -> &ClientEvent {
        self.events.last().expect("no event")
    }
}

/// Answers the invocation of `request`.
fn normal(request: &[u8], data: &[u8]) -> Vec<u8> {
    [&[0xc4, 0x01, request[2], 0x00], data].concat()
}

fn block(request: &[u8], last: bool, number: u32, data: &[u8]) -> Vec<u8> {
    GetResponse::Block { invoke: InvokeId(request[2]), last, number, result: Ok(data) }.encode()
}

const VALUE: [u8; 5] = [0x06, 0x00, 0xbc, 0x61, 0x4e];

fn is_value(event: &ClientEvent) -> bool {
    matches!(event, ClientEvent::Value { value, .. } if *value == Value { data: VALUE.to_vec(), surplus: 0 })
}

#[test]
fn the_octets_on_the_wire_are_those_of_the_books() {
    let proposed = Conformance::from_octets([0x00, 0x7e, 0x1f]);
    let config = ClientConfig {
        authentication: Authentication::Low(Password::new("12345678")),
        proposed,
        max_receive_pdu_size: 1_200,
        ..ClientConfig::default()
    };
    let (mut bench, result) = Bench::read(config, |request| match request[0] {
        0xc0 => vec![normal(request, &VALUE)],
        _ => vec![hex("6303800100")],
    });
    assert_eq!(result, Ok(()));
    bench.session.release(bench.now).unwrap();
    bench.run(&mut |_| vec![hex("6303800100")]).unwrap();
    let wire = [
        "6036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738be10040e01000000065f1f0400007e1f04b0",
        "c0014100030100010800ff0200",
        "6203800100",
    ];
    assert_eq!(bench.sent, wire.map(hex));
    let ClientEvent::Associated(negotiated) = bench.events[0] else { panic!("{:?}", bench.events) };
    assert_eq!(negotiated.conformance.octets(), [0x00, 0x38, 0x1f]);
    assert_eq!(negotiated.server_max_receive_pdu_size, 500);
    assert!(is_value(&bench.events[1]));
    assert_eq!(bench.events[2..], [ClientEvent::Released]);
}

#[test]
fn a_refusal_without_user_information_is_understood() {
    let mut bench = Bench::new(ClientConfig::default());
    let result = bench.run(&mut |_| vec![hex("6117a109060760857405080101a203020102a305a10302010d")]);
    let rejected = ClientError::Rejected {
        result: AssociationResult::RejectedTransient,
        diagnostic: Diagnostic::AUTHENTICATION_FAILURE,
        service_error: None,
    };
    assert_eq!(result, Err(rejected));
}

#[test]
fn every_way_to_refuse_an_association_is_a_refusal() {
    for (answer, text) in [
        (
            "611fa109060760857405080101a203020101a305a103020101be0604040e010601",
            "meter refused the association: no reason given (rejected permanently)",
        ),
        // Accepted by ACSE, refused by Initiate.
        (
            "611fa109060760857405080101a203020100a305a103020100be0604040e010603",
            "meter refused the association: no diagnostic (accepted)",
        ),
        // "Accepted" under the condition of a proof that was not proposed.
        (
            "6117a109060760857405080101a203020100a305a10302010e",
            "meter refused the association: authentication required (accepted)",
        ),
        ("d80101", "meter refused the association with an exception: service not allowed: operation not possible"),
        ("0e010604", "meter refused the association: no diagnostic (rejected permanently)"),
    ] {
        let mut bench = Bench::new(ClientConfig::default());
        let error = bench.run(&mut |_| vec![hex(answer)]).unwrap_err();
        assert!(error.is_refusal());
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_meter_that_hangs_up_is_told_from_one_that_refuses() {
    let mut bench = Bench::new(ClientConfig::default());
    let error = bench.run(&mut |_| vec![Vec::new()]).unwrap_err();
    assert_eq!(error, ClientError::Closed { stage: Stage::Associating });
    assert!(!error.is_refusal());
    let (_, result) = Bench::read(ClientConfig::default(), |_| vec![Vec::new()]);
    assert_eq!(result, Err(ClientError::Closed { stage: Stage::Reading }));
}

#[test]
fn an_aare_that_is_none_or_says_nothing_ends_the_session() {
    for answer in ["6129a1", "6117a109060760857405080101a203020100a305a103020100"] {
        let mut bench = Bench::new(ClientConfig::default());
        assert!(matches!(bench.run(&mut |_| vec![hex(answer)]), Err(ClientError::Acse(_))), "{answer}");
    }
    // User-information that is neither InitiateResponse nor ConfirmedServiceError.
    let mut bench = Bench::new(ClientConfig::default());
    let strange = "611fa109060760857405080101a203020100a305a103020100be060404ff010601";
    assert!(matches!(bench.run(&mut |_| vec![hex(strange)]), Err(ClientError::Malformed(_))));
    // A ciphered InitiateResponse.
    let mut bench = Bench::new(ClientConfig::default());
    let ciphered = "611fa109060760857405080101a203020100a305a103020100be06040428020000";
    let expected = ClientError::Protection(ProtectionError::Ciphered { tag: 0x28 });
    assert_eq!(bench.run(&mut |_| vec![hex(ciphered)]), Err(expected));
}

#[test]
fn a_notification_between_request_and_answer_is_an_event_of_its_own() {
    let push = hex("0f00000001 00 0600bc614e");
    let (bench, result) = Bench::read(ClientConfig::default(), |request| {
        vec![push.clone(), hex("c2 00 0003 0100010800ff 02 0600000001"), normal(request, &VALUE)]
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bench.events[1], ClientEvent::Notification(push));
    assert!(matches!(bench.events[2], ClientEvent::Notification(_)));
    assert!(is_value(bench.last()));
}

#[test]
fn an_answer_to_another_invocation_is_passed_over() {
    let (bench, result) = Bench::read(ClientConfig::default(), |request| {
        let mut late = normal(request, &[0x11, 0x01]);
        late[2] ^= 0x05;
        // The priority bit may differ.
        let mut right = normal(request, &VALUE);
        right[2] |= 0x80;
        vec![late, right]
    });
    assert_eq!(result, Ok(()));
    assert_eq!(bench.events[1], ClientEvent::Ignored(Ignored::InvokeId { expected: 1, found: 4 }));
    assert!(is_value(&bench.events[2]));
}

#[test]
fn only_answers_to_another_invocation_are_no_answer() {
    let (bench, result) = Bench::read(ClientConfig::default(), |request| {
        let mut late = normal(request, &VALUE);
        late[2] ^= 0x01;
        vec![late]
    });
    assert_eq!(result, Err(ClientError::Silent { stage: Stage::Reading, attempts: 1, timeout_ms: 75_000 }));
    assert_eq!(bench.now, BOOT + ClientConfig::RESPONSE_TIMEOUT);
}

#[test]
fn what_nobody_asked_for_is_passed_over() {
    let (bench, result) = Bench::read(ClientConfig::default(), |request| {
        let strange = [hex("6303800100"), hex("c501410000"), hex("cc0530000000 01ab"), hex(AARE)];
        strange.into_iter().chain([normal(request, &VALUE), normal(request, &VALUE), hex("d80101")]).collect()
    });
    assert_eq!(result, Ok(()));
    let ignored: Vec<_> = bench.events.iter().filter(|event| matches!(event, ClientEvent::Ignored(_))).collect();
    assert_eq!(
        ignored,
        [
            &ClientEvent::Ignored(Ignored::Tag(0x63)),
            &ClientEvent::Ignored(Ignored::Tag(0xc5)),
            &ClientEvent::Ignored(Ignored::Protection(ProtectionError::Ciphered { tag: 0xcc })),
            &ClientEvent::Ignored(Ignored::Tag(0x61)),
            &ClientEvent::Ignored(Ignored::Tag(0xc4)),
            &ClientEvent::Ignored(Ignored::Tag(0xd8)),
        ]
    );
    assert_eq!(bench.events.iter().filter(|event| is_value(event)).count(), 1);
}

#[test]
fn exceptions_and_service_errors_answer_the_request_and_the_session_goes_on() {
    let mut bench = Bench::new(ClientConfig::default());
    for attribute in [ENERGY, CLOCK, SERIAL] {
        bench.session.get(bench.now, attribute, None).unwrap();
    }
    let mut answers = vec![hex("0e050502"), hex("d80103")];
    bench
        .run(&mut |apdu| match apdu[0] {
            0x60 => vec![hex(AARE)],
            _ => vec![answers.pop().unwrap_or_else(|| normal(apdu, &VALUE))],
        })
        .unwrap();
    let exception = ExceptionResponse::new(ExceptionState::ServiceNotAllowed, ExceptionService::OtherReason);
    assert!(
        matches!(&bench.events[1], ClientEvent::Failed { error: ReadError::Exception(found), .. } if *found == exception)
    );
    assert!(
        matches!(&bench.events[2], ClientEvent::Failed { error: ReadError::ServiceError(found), .. } if found.kind == 5)
    );
    assert!(is_value(&bench.events[3]));
}

#[test]
fn octets_behind_a_complete_value_are_dropped_and_noted() {
    let (bench, _) =
        Bench::read(ClientConfig::default(), |request| vec![normal(request, &[&VALUE[..], &VALUE].concat())]);
    assert!(
        matches!(bench.last(), ClientEvent::Value { value, .. } if *value == Value { data: VALUE.to_vec(), surplus: 5 })
    );
}

#[test]
fn an_answer_that_is_no_value_costs_only_its_request() {
    for torn in
        [&[][..], &[0x06, 0x00], &[0x0b], &[0x01, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x09, 0x83, 0xff, 0xff, 0xff]]
    {
        let mut bench = Bench::new(ClientConfig::default());
        bench.session.get(bench.now, CLOCK, None).unwrap();
        bench.session.get(bench.now, ENERGY, None).unwrap();
        let mut first = true;
        let mut script = |apdu: &[u8]| match apdu[0] {
            0x60 => vec![hex(AARE)],
            _ => vec![normal(apdu, if std::mem::take(&mut first) { torn } else { &VALUE })],
        };
        assert_eq!(bench.run(&mut script), Ok(()));
        assert!(matches!(&bench.events[1], ClientEvent::Failed { error: ReadError::Unreadable(_), .. }), "{torn:02x?}");
        assert!(is_value(&bench.events[2]));
    }
}

#[test]
fn a_get_response_that_cannot_be_decoded_ends_the_session() {
    for torn in ["c4", "c401", "c40141", "c4014102", "c404410000", "c40241000000", "c4024100000000010084ffffffff"] {
        let (_, result) = Bench::read(ClientConfig::default(), |_| vec![hex(torn)]);
        assert!(matches!(result, Err(ClientError::Malformed(_))), "{torn}: {result:?}");
    }
}

#[test]
fn duplicate_blocks_are_taken_once() {
    let (bench, result) = Bench::read(ClientConfig::default(), |request| match request[1] {
        1 => vec![block(request, false, 1, &VALUE[..2]), block(request, false, 1, &VALUE[..2])],
        _ if request[6] == 1 => vec![block(request, false, 2, &VALUE[2..3]), block(request, false, 1, &VALUE[..2])],
        _ => vec![block(request, true, 3, &VALUE[3..])],
    });
    // The second copy of block 1 behind block 2 is out of order, not a repetition of the last one.
    assert_eq!(result, Err(ClientError::BlockOrder { target: ENERGY.into(), expected: 3, found: 1 }));
    assert_eq!(bench.events[1], ClientEvent::Ignored(Ignored::DuplicateBlock(1)));

    let (bench, result) = Bench::read(ClientConfig::default(), |request| match request[1] {
        1 => vec![block(request, false, 1, &VALUE[..2]), block(request, false, 1, &VALUE[..2])],
        _ => vec![block(request, true, 2, &VALUE[2..])],
    });
    assert_eq!(result, Ok(()));
    assert!(is_value(bench.last()));
    assert_eq!(bench.sent.len(), 3, "a duplicate block was acknowledged again");
}

#[test]
fn a_block_that_is_skipped_or_begins_elsewhere_ends_the_session() {
    let (_, result) = Bench::read(ClientConfig::default(), |request| vec![block(request, false, 2, &VALUE)]);
    assert_eq!(result, Err(ClientError::BlockOrder { target: ENERGY.into(), expected: 1, found: 2 }));
    let (_, result) = Bench::read(ClientConfig::default(), |request| match request[1] {
        1 => vec![block(request, false, 1, &VALUE)],
        _ => vec![block(request, false, 3, &VALUE)],
    });
    assert_eq!(result, Err(ClientError::BlockOrder { target: ENERGY.into(), expected: 2, found: 3 }));
}

#[test]
fn a_whole_answer_within_a_block_transfer_ends_the_session() {
    let (_, result) = Bench::read(ClientConfig::default(), |request| match request[1] {
        1 => vec![block(request, false, 1, &VALUE)],
        _ => vec![normal(request, &VALUE)],
    });
    assert!(matches!(result, Err(ClientError::Malformed(_))));
}

#[test]
fn a_meter_may_abort_a_block_transfer() {
    for choice in [1, 2] {
        let (bench, result) = Bench::read(ClientConfig::default(), |request| {
            if request[1] == 1 {
                return vec![block(request, false, 1, &VALUE)];
            }
            let result = Err(DataAccessResult::LongGetAborted);
            let invoke = InvokeId(request[2]);
            vec![match choice {
                1 => GetResponse::Normal { invoke, result }.encode(),
                _ => GetResponse::Block { invoke, last: true, number: 2, result }.encode(),
            }]
        });
        assert_eq!(result, Ok(()));
        let refused = ReadError::Refused(DataAccessResult::LongGetAborted);
        assert!(matches!(bench.last(), ClientEvent::Failed { error, .. } if *error == refused));
    }
}

#[test]
fn endless_blocks_end_with_an_error_of_their_own() {
    let endless = |data: &'static [u8]| {
        let mut number = 0;
        move |request: &[u8]| {
            number += 1;
            vec![block(request, false, number, data)]
        }
    };
    let (bench, result) = Bench::read(ClientConfig::default(), endless(&[]));
    assert_eq!(result, Err(ClientError::EndlessBlocks { target: ENERGY.into(), limit: Limits::BLOCKS_MAX }));
    assert_eq!(bench.sent.len(), 2 + Limits::BLOCKS_MAX as usize);

    let limits = Limits { value_bytes_max: 10_000, ..Limits::default() };
    let (bench, result) = Bench::read(ClientConfig { limits, ..ClientConfig::default() }, endless(&[0x5a; 3_000]));
    assert_eq!(result, Err(ClientError::ValueTooLong { target: ENERGY.into(), limit: 10_000 }));
    assert_eq!(bench.sent.len(), 5);
}

#[test]
fn the_size_limit_counts_all_values_of_a_list() {
    let limits = Limits { value_bytes_max: 5_000, ..Limits::default() };
    let mut bench = Bench::new(ClientConfig { limits, list_length_max: 1, ..ClientConfig::default() });
    bench.session.get_list(bench.now, vec![Selected::whole(ENERGY); 10]).unwrap();
    let value = [&[0x09, 0x82, 0x07, 0xd0][..], &[0; 2_000]].concat();
    let result = bench.run(&mut |apdu| if apdu[0] == 0x60 { vec![hex(AARE)] } else { vec![normal(apdu, &value)] });
    assert_eq!(result, Err(ClientError::ValueTooLong { target: ENERGY.into(), limit: 5_000 }));
}

/// An AARE that grants multiple references too.
fn generous() -> Vec<u8> {
    let mut apdu = hex(AARE);
    let conformance = apdu.len() - 7;
    apdu[conformance..conformance + 3].copy_from_slice(&ClientConfig::PROPOSED.octets());
    apdu
}

/// What a meter makes of a request.
type Answer<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;

#[test]
fn a_list_that_the_meter_cannot_answer_is_asked_for_one_by_one() {
    let invoke = |apdu: &[u8]| InvokeId(apdu[2]);
    let answers: Vec<(&str, Answer<'_>)> = vec![
        ("exception", Box::new(|_| hex("d80102"))),
        ("service error", Box::new(|_| hex("0e050502"))),
        ("one result for all", Box::new(|apdu| [&[0xc4, 0x01, apdu[2]][..], &[0x01, 0xfa]].concat())),
        ("one value for all", Box::new(|apdu| normal(apdu, &VALUE))),
        (
            "too few results",
            Box::new(|apdu| {
                let results = write_results(&[Ok(VALUE.to_vec())]);
                GetResponse::WithList { invoke: invoke(apdu), results: &results }.encode()
            }),
        ),
        (
            "a torn result",
            Box::new(|apdu| {
                GetResponse::WithList { invoke: invoke(apdu), results: &[0x02, 0x00, 0x06, 0x00] }.encode()
            }),
        ),
        (
            "an aborted block",
            Box::new(|apdu| {
                let result = Err(DataAccessResult::LongGetAborted);
                GetResponse::Block { invoke: invoke(apdu), last: true, number: 1, result }.encode()
            }),
        ),
    ];
    for (what, answer) in answers {
        let mut bench = Bench::new(ClientConfig::default());
        bench.session.get_list(bench.now, vec![Selected::whole(ENERGY), Selected::whole(CLOCK)]).unwrap();
        let mut script = |apdu: &[u8]| match (apdu[0], apdu[1]) {
            (0x60, _) => vec![generous()],
            (0xc0, 3) => vec![answer(apdu)],
            _ => vec![normal(apdu, &VALUE)],
        };
        assert_eq!(bench.run(&mut script), Ok(()), "{what}");
        let ClientEvent::Values { results, .. } = bench.last() else { panic!("{what}: {:?}", bench.events) };
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|result| result.as_ref().is_ok_and(|value| value.data == VALUE)), "{what}");
        assert_eq!(bench.sent.len(), 4, "{what}");
    }
}

#[test]
fn a_silent_meter_is_asked_as_often_as_configured() {
    let config = ClientConfig { attempts: 3, response_timeout: Duration::from_secs(5), ..ClientConfig::default() };
    let (bench, result) = Bench::read(config, |_| Vec::new());
    assert_eq!(result, Err(ClientError::Silent { stage: Stage::Reading, attempts: 3, timeout_ms: 5_000 }));
    assert_eq!(bench.now, BOOT + Duration::from_secs(15));
    assert_eq!(bench.sent[1..], [bench.sent[1].clone(), bench.sent[1].clone(), bench.sent[1].clone()]);
}

#[test]
fn an_abort_asks_and_waits_for_nothing() {
    let mut bench = Bench::new(ClientConfig::default());
    bench.session.get(bench.now, ENERGY, None).unwrap();
    bench.session.abort(bench.now).unwrap();
    assert_eq!(bench.run(&mut |_| Vec::new()), Ok(()));
    assert_eq!(bench.events, [ClientEvent::Released]);
    assert_eq!(bench.session.get(bench.now, ENERGY, None), Err(ClientError::Ended));
    assert_eq!(bench.session.release(bench.now), Err(ClientError::Ended));
}

#[test]
fn a_session_that_never_began_is_released_at_once() {
    let mut session = ClientSession::new(DummyLink::default(), ClientConfig::default());
    session.release(BOOT).unwrap();
    assert_eq!(session.poll(), ClientOutput::Event(ClientEvent::Released));
    assert_eq!(session.poll(), ClientOutput::WaitUntil(None));
}

#[test]
fn a_hostile_meter_neither_panics_nor_keeps_the_client_for_ever() {
    for seed in 1..2_000 {
        let mut dice = Dice::new(seed);
        let limits = Limits { value_bytes_max: 4_000, blocks_max: 40 };
        let config = ClientConfig { attempts: 2, limits, ..ClientConfig::default() };
        let mut bench = Bench::new(config);
        for attribute in [ENERGY, CLOCK] {
            bench.session.get(bench.now, attribute, None).unwrap();
        }
        bench.session.get_list(bench.now, vec![Selected::whole(ENERGY); 5]).unwrap();
        bench.session.release(bench.now).unwrap();
        let mut number = 0;
        let result = bench.run(&mut |apdu| {
            number += 1;
            let mut honest = match apdu[0] {
                0x60 => generous(),
                0xc0 => block(apdu, dice.roll(2) == 0, number, &VALUE),
                _ => hex("6303800100"),
            };
            (0..dice.roll(3))
                .map(|_| {
                    match dice.roll(4) {
                        0 => return (0..dice.roll(60)).map(|_| dice.roll(256) as u8).collect(),
                        1 => {
                            let at = dice.roll(honest.len() as u64) as usize;
                            honest[at] = dice.roll(256) as u8;
                        }
                        _ => {}
                    }
                    honest.clone()
                })
                .collect()
        });
        assert!(result.is_err() || bench.events.last() == Some(&ClientEvent::Released), "seed {seed}: {result:?}");
    }
}

proptest! {
    #[test]
    fn no_answer_to_an_aarq_panics(answer in proptest::collection::vec(any::<u8>(), 1..80), tag in prop_oneof![Just(0x61u8), Just(0xd8), Just(0x0e), any::<u8>()]) {
        let mut bench = Bench::new(ClientConfig::default());
        let mut answer = answer;
        answer[0] = tag;
        prop_assert!(bench.run(&mut |_| vec![answer.clone()]).is_err());
    }

    #[test]
    fn no_answer_to_a_get_panics(answer in proptest::collection::vec(any::<u8>(), 0..80), choice in 0u8..5) {
        let (bench, result) = Bench::read(ClientConfig::default(), |request| {
            vec![[&[0xc4, choice, request[2]], answer.as_slice()].concat()]
        });
        let is_answered = matches!(bench.last(), ClientEvent::Value { .. } | ClientEvent::Failed { .. });
        prop_assert!(result.is_err() || is_answered);
    }
}

/// A client of high level security whose meter answers the AARQ so.
fn proving(aare: &[u8]) -> ClientError {
    let challenge = Challenge::new(*b"K56iVagY").unwrap();
    let authentication = Authentication::High { how: HighLevel::Md5(Password::new("secret")), challenge };
    let mut bench = Bench::new(ClientConfig { authentication, ..ClientConfig::default() });
    bench.run(&mut |_| vec![aare.to_vec()]).unwrap_err()
}

// Negative control: take an AARE without a challenge for an association.
#[test]
fn a_meter_that_does_without_proofs_is_left() {
    let unproven = ClientError::Unproven { source: ProtectionError::Proof };
    // Neither mechanism nor challenge, as if low level security had been asked for.
    assert_eq!(proving(&hex(AARE)), unproven);
    for (mechanism, value) in [
        // Another mechanism.
        ("01", "503677524a323146"),
        // Our own challenge: it would be answered with the proof that we want to see.
        ("03", "4b35366956616759"),
        // Seven octets, which somebody might have seen before.
        ("03", "50367752 4a3231"),
    ] {
        let value: String = value.split(' ').collect();
        let length = value.len() / 2;
        let fields = format!(
            "a109060760857405080101 a203020100 a305a10302010e 88020780 890760857405080 2{mechanism} \
             aa{:02x}80{length:02x}{value} be10040e0800065f1f0400003c1f01f40007",
            length + 2
        );
        let fields = hex(&fields);
        let aare = [&[0x61, fields.len() as u8], &fields[..]].concat();
        assert_eq!(proving(&aare), unproven, "{mechanism} {value}");
    }
}
