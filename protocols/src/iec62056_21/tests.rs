//! Reader against meters over a line that echoes, damages, loses and delays.

use std::time::Duration;

use super::pair::{Faults, Meter, Pair};
use super::*;
use crate::metering::{MeterId, Quantity, Unit, UtcMillis};

const LINES: &[u8] = b"F.F(00000000)\r\n0.0.0(12345678)\r\n1.8.0(012345.678*kWh)\r\n1.6.0(02.589*kW)(2601311215)\r\n";
const REGISTER: &[u8] = b"1.8.0(012345.678*kWh)";

/// A meter with a read-out, one register, and a day of a profile.
struct Table {
    password: Option<Password>,
}

fn at(text: &str) -> UtcMillis {
    text.parse().unwrap()
}

fn kilo(mantissa: i64) -> Quantity {
    Quantity::new(mantissa, 0, Unit::WATT)
}

fn profile() -> Vec<u8> {
    let header = ProfileHeader {
        address: "P.01",
        first: at("2026-10-24T22:15:00Z"),
        status: 0,
        period_minutes: 15,
        channels: &[("1.5.0", Layout::POWER), ("2.5.0", Layout::POWER)],
    };
    let rows: Vec<_> = (0..96).map(|row| vec![Some(kilo(row * 7)), Some(kilo(row))]).collect();
    LinesBuilder::new(MeterClock::CET, StampForm::Zst13).profile(&header, &rows).unwrap().finish()
}

impl MeterData for Table {
    fn read_out(&mut self, _mode: u8) -> Vec<u8> {
        LINES.to_vec()
    }

    fn read(&mut self, request: &ReadRequest) -> Option<Vec<u8>> {
        match request.address() {
            "1.8.0" => Some(REGISTER.to_vec()),
            "0.9.1" => Some(b"(121500)".to_vec()),
            "P.01" => Some(profile()),
            _ => None,
        }
    }

    fn challenge(&mut self) -> Vec<u8> {
        b"4711".to_vec()
    }

    fn admits(&mut self, password: &Password) -> bool {
        self.password.as_ref() == Some(password)
    }
}

fn identification(manufacturer: &str, baud: u8, enhanced: &[u8]) -> Identification {
    Identification { manufacturer: manufacturer.into(), baud, enhanced: enhanced.to_vec(), model: "METERPOST".into() }
}

fn server_config(baud: u8) -> ServerConfig {
    ServerConfig::new(DeviceAddress::new("12345678").unwrap(), identification("SIM", baud, b"2"))
}

fn client_config() -> ClientConfig {
    ClientConfig::new(DeviceAddress::new("12345678").unwrap())
}

fn meter(config: ServerConfig) -> Meter {
    (Server::new(config), Box::new(Table { password: Some(Password::plain("00000000").unwrap()) }))
}

fn line(baud: Baud, config: &ClientConfig) -> LineSettings {
    let framing = if config.masked_parity { Framing::EightNone } else { Framing::SevenEven };
    LineSettings { baud, framing }
}

fn pair(client: ClientConfig, server: ServerConfig, faults: Faults, seed: u64) -> Pair {
    let initial = line(client.initial_baud, &client);
    Pair::new(Client::new(client), vec![meter(server)], initial, faults, seed)
}

fn read_out(pair: &mut Pair) -> Result<DataBlock, SessionError> {
    pair.client.sign_on(pair.now, Goal::Readout)?;
    pair.run(&mut |_, _, event| Ok(matches!(event, ClientEvent::ReadOut(_))))?;
    match pair.events.last() {
        Some(ClientEvent::ReadOut(block)) => Ok(block.clone()),
        other => panic!("{other:?}"),
    }
}

/// Signs on, logs in, reads a register twice and the profile once, and signs off. Answers in their order.
fn converse(pair: &mut Pair, level: ReadLevel) -> Result<Vec<ClientEvent>, SessionError> {
    pair.client.sign_on(pair.now, Goal::Programming)?;
    let reads =
        [(ReadLevel::R1, "1.8.0", ""), (ReadLevel::R1, "0.9.1", ""), (level, "P.01", "0261025000000;0261026000000")];
    let mut reads = reads.into_iter();
    let mut answers = Vec::new();
    pair.run(&mut |client, now, event| {
        match event {
            ClientEvent::Programming { challenge } => {
                assert_eq!(challenge, b"4711");
                client.log_in(now, &Password::plain("00000000").unwrap())?;
                return Ok(false);
            }
            ClientEvent::SignedOff => return Ok(true),
            ClientEvent::Identified(_) => return Ok(false),
            _ => answers.push(event.clone()),
        }
        match reads.next() {
            Some((level, address, argument)) => {
                client.read(now, &ReadRequest::new(level, address, argument).unwrap())?;
            }
            None => client.sign_off(now)?,
        }
        Ok(false)
    })?;
    Ok(answers)
}

fn answers(quality: crate::metering::Quality, baud: u8) -> Vec<ClientEvent> {
    let identification = Some(identification("SIM", baud, b"2"));
    let block = |content: &[u8]| {
        ClientEvent::Answered(DataBlock { identification: identification.clone(), content: content.to_vec(), quality })
    };
    vec![ClientEvent::LoggedIn, block(REGISTER), block(b"0.9.1(121500)"), block(&profile())]
}

fn content(event: &ClientEvent) -> &[u8] {
    match event {
        ClientEvent::Answered(block) => &block.content,
        _ => b"",
    }
}

fn contents(events: &[ClientEvent]) -> Vec<&[u8]> {
    events.iter().map(content).collect()
}

const GOOD: crate::metering::Quality = crate::metering::Quality::GOOD;

#[test]
fn a_meter_is_read_out_at_the_rate_that_it_offers() {
    for (digit, baud) in Baud::ALL.map(|baud| (baud.digit(), baud)) {
        let mut pair = pair(client_config(), server_config(digit), Faults::default(), 1);
        let block = read_out(&mut pair).unwrap();
        assert_eq!(block.content, [LINES, b"!\r\n"].concat());
        let initial = line(Baud::B300, &client_config());
        let select = [b'\x06', b'0', digit, b'0', b'\r', b'\n'];
        assert_eq!(pair.sent, [(initial, b"/?12345678!\r\n".to_vec()), (initial, select.to_vec())], "{baud:?}");
        let readout = Readout::decode(&block, &Settings::default(), at("2026-11-23T00:00:00Z")).unwrap();
        assert_eq!((readout.meter.as_str(), readout.problems.len(), readout.readings.len()), ("SIM:12345678", 0, 2));
    }
}

#[test]
fn modes_a_and_b_read_out_by_themselves() {
    for baud in [b'#', b'A', b'E', b'F'] {
        for manufacturer in ["SIM", "SIm"] {
            let mut config = server_config(baud);
            config.identification.manufacturer = manufacturer.into();
            let mut pair = pair(client_config(), config, Faults::default(), 1);
            assert_eq!(read_out(&mut pair).unwrap().content, [LINES, b"!\r\n"].concat());
            assert_eq!(pair.sent.len(), 1, "{}", char::from(baud));
        }
    }
}

#[test]
fn a_meter_that_is_too_fast_for_the_line_is_read_at_the_initial_rate() {
    let config = ClientConfig { baud_max: Baud::B4800, ..client_config() };
    let mut pair = pair(config, server_config(b'5'), Faults::default(), 1);
    read_out(&mut pair).unwrap();
    assert_eq!(pair.sent[1].1, b"\x06000\r\n");
}

#[test]
fn registers_and_profiles_are_read_in_one_block_and_in_many() {
    for level in [ReadLevel::R5, ReadLevel::R6, ReadLevel::R3] {
        for manufacturer in ["SIM", "SIm"] {
            let mut config = ServerConfig { password_needed: true, ..server_config(b'5') };
            config.identification.manufacturer = manufacturer.into();
            let mut pair = pair(client_config(), config, Faults::default(), 1);
            let mut expected = answers(GOOD, b'5');
            for event in &mut expected {
                if let ClientEvent::Answered(DataBlock { identification: Some(identification), .. }) = event {
                    identification.manufacturer = manufacturer.into();
                }
            }
            assert_eq!(converse(&mut pair, level), Ok(expected), "{level:?}");
            let events: Vec<_> = pair.server_events.iter().map(|(_, event)| *event).collect();
            assert_eq!(events, [ServerEvent::SignedOn(Goal::Programming), ServerEvent::LoggedIn]);
        }
    }
    let profile = Profile::decode(
        &DataBlock { identification: None, content: profile(), quality: GOOD },
        &Settings::default(),
        at("2026-11-23T00:00:00Z"),
    );
    assert_eq!((profile.problems.len(), profile.readings.len()), (0, 192));
    // The day on which summer time ends: stepped in UTC.
    assert_eq!(profile.readings[191].captured_at, at("2026-10-25T22:00:00Z"));
}

#[test]
fn a_meter_in_programming_mode_hears_the_break() {
    let mut pair = pair(client_config(), server_config(b'5'), Faults::default(), 1);
    converse(&mut pair, ReadLevel::R5).unwrap();
    pair.client.sign_on(pair.now, Goal::Readout).unwrap();
    let before = pair.now;
    pair.run(&mut |_, _, event| Ok(matches!(event, ClientEvent::ReadOut(_)))).unwrap();
    assert!(pair.now.saturating_sub(before) < Duration::from_secs(10), "{:?}", pair.now.saturating_sub(before));
    assert!(pair.server_events.iter().any(|(_, event)| *event == ServerEvent::SignedOff));
}

// Negative control: emit `HdlcReady` with the settings of before.
#[test]
fn mode_e_leaves_the_line_to_hdlc() {
    use crate::hdlc::{ClientAddress, HdlcAddress, HdlcClient, HdlcConfig, HdlcServer};
    use crate::link::{Link, LinkInput, LinkOutput};

    for (confirms_hdlc, hdlc_unconfirmed) in [(true, false), (false, true)] {
        let mut config = client_config();
        config.quirks.hdlc_unconfirmed = hdlc_unconfirmed;
        let server = ServerConfig { confirms_hdlc, ..server_config(b'5') };
        let mut pair = pair(config, server, Faults::default(), 1);
        pair.client.sign_on(pair.now, Goal::Hdlc).unwrap();
        pair.run(&mut |_, _, event| Ok(matches!(event, ClientEvent::HdlcReady(_)))).unwrap();
        let ready = LineSettings { baud: Baud::B9600, framing: Framing::EightNone };
        assert_eq!(pair.events.last(), Some(&ClientEvent::HdlcReady(ready)));
        assert_eq!(pair.server_events.last(), Some(&(0, ServerEvent::HdlcReady(ready))));
        assert_eq!(pair.sent[1].1, b"\x06252\r\n");
        assert_eq!(pair.client.poll(), Output::WaitUntil(None));

        let config = HdlcConfig {
            octet_time_us: ready.octet_time_us(),
            ..HdlcConfig::new(ClientAddress::PUBLIC, HdlcAddress::two(1, 17).unwrap())
        };
        let (mut reader, mut meter) = (HdlcClient::new(config.clone()), HdlcServer::new(config));
        reader.connect(pair.now);
        let LinkOutput::Send(snrm) = reader.poll() else { panic!() };
        meter.handle(pair.now, LinkInput::Received(&snrm)).unwrap();
        assert_eq!(meter.poll(), LinkOutput::Connected);
    }
}

#[test]
fn a_meter_without_hdlc_says_so_or_reads_out() {
    let mut config = server_config(b'5');
    config.identification.enhanced.clear();
    let mut plain = pair(client_config(), config.clone(), Faults::default(), 1);
    plain.client.sign_on(plain.now, Goal::Hdlc).unwrap();
    assert_eq!(plain.run(&mut |_, _, _| Ok(false)), Err(SessionError::NotOffered { goal: Goal::Hdlc }));
    assert_eq!(plain.sent.len(), 1, "nothing was selected");
    // As if it were offered; the rate that the meter offers is that of the call, so that its read-out is heard.
    let mut client = client_config();
    client.quirks.hdlc_unannounced = true;
    config.identification.baud = b'0';
    let mut asked = pair(client, config, Faults::default(), 1);
    asked.client.sign_on(asked.now, Goal::Hdlc).unwrap();
    assert_eq!(asked.run(&mut |_, _, _| Ok(false)), Err(SessionError::NotOffered { goal: Goal::Hdlc }));
    assert_eq!(asked.sent.len(), 2);
}

#[test]
fn several_meters_of_a_line_are_read_by_their_addresses() {
    let addresses = ["11", "22", "33"];
    let meters = addresses.map(|address| {
        let mut config = server_config(b'5');
        config.address = DeviceAddress::new(address).unwrap();
        config.identification.model = address.into();
        meter(config)
    });
    let initial = line(Baud::B300, &client_config());
    let mut pair = Pair::new(Client::new(client_config()), meters.into(), initial, Faults::default(), 1);
    for address in ["22", "0011", "33"] {
        let config = ClientConfig::new(DeviceAddress::new(address).unwrap());
        pair.client = Client::new(config);
        let block = read_out(&mut pair).unwrap();
        assert_eq!(block.identification.unwrap().model, address.trim_start_matches('0'));
    }
    pair.client = Client::new(ClientConfig::new(DeviceAddress::new("44").unwrap()));
    assert!(matches!(read_out(&mut pair), Err(SessionError::Silent { attempts: 4, .. })));
}

// Negative control: leave `unmask` out of `receive`.
#[test]
fn parity_may_be_left_to_us_on_either_side() {
    for (client_masks, server_masks) in [(true, true), (true, false), (false, true)] {
        let client = ClientConfig { masked_parity: client_masks, ..client_config() };
        let server = ServerConfig { masked_parity: server_masks, ..server_config(b'5') };
        let mut pair = pair(client, server, Faults::default(), 1);
        assert_eq!(converse(&mut pair, ReadLevel::R6), Ok(answers(GOOD, b'5')));
        assert_eq!(pair.client.parity_errors(), 0);
    }
}

#[test]
fn wrong_parity_is_counted_and_asked_for_again() {
    let client = ClientConfig { masked_parity: true, ..client_config() };
    let mut pair = pair(client, server_config(b'5'), Faults::default(), 1);
    let mut left = 1;
    pair.tamper = Box::new(move |octets| {
        if octets.first() == Some(&(super::message::STX | 0x80)) && left > 0 {
            left -= 1;
            octets[10] ^= 0x80;
        }
        true
    });
    assert_eq!(read_out(&mut pair).unwrap().content, [LINES, b"!\r\n"].concat());
    assert_eq!((pair.client.parity_errors(), pair.sent.len()), (1, 3), "one NAK");
    assert_eq!(pair.sent[2].1, [0x95]);
}

// Negative control: take mode E's confirmation without the echo filter.
#[test]
fn an_echoing_line_changes_nothing() {
    let faults = Faults { is_echoing: true, is_fragmented: true, ..Faults::default() };
    let client = ClientConfig { echo: true, ..client_config() };
    let server = ServerConfig { echo: true, ..server_config(b'5') };
    let mut talk = pair(client.clone(), server.clone(), faults, 7);
    assert_eq!(converse(&mut talk, ReadLevel::R6), Ok(answers(GOOD, b'5')));
    let silent = ServerConfig { confirms_hdlc: false, ..server };
    let mut hdlc = pair(client, silent, faults, 7);
    hdlc.client.sign_on(hdlc.now, Goal::Hdlc).unwrap();
    let result = hdlc.run(&mut |_, _, event| Ok(matches!(event, ClientEvent::HdlcReady(_))));
    assert!(
        matches!(result, Err(SessionError::Silent { .. })),
        "our own echo was taken for a confirmation: {result:?}"
    );
}

#[test]
fn a_dead_line_is_given_up() {
    for goal in [Goal::Readout, Goal::Programming, Goal::Hdlc] {
        let mut pair = pair(client_config(), server_config(b'5'), Faults { lost: 1000, ..Faults::default() }, 1);
        let before = pair.now;
        pair.client.sign_on(pair.now, goal).unwrap();
        let result = pair.run(&mut |_, _, _| Ok(false));
        assert_eq!(result, Err(SessionError::Silent { attempts: 4, timeout_ms: 2_500 }));
        assert_eq!(pair.sent.len(), 4 + Baud::ALL.len());
        // Thirteen octets at 300 baud and a time-out, four times; and a break at each rate.
        let took = pair.now.saturating_sub(before);
        assert!((Duration::from_secs(12)..Duration::from_secs(14)).contains(&took), "{took:?}");
    }
}

#[test]
fn a_meter_that_always_checks_wrongly_is_given_up_or_believed() {
    let spoil = || {
        Box::new(|octets: &mut Vec<u8>| {
            if octets.first() == Some(&(super::message::STX | 0x80)) {
                let last = octets.len() - 1;
                octets[last] ^= 0x03;
            }
            true
        })
    };
    let mut strict = pair(client_config(), server_config(b'5'), Faults::default(), 1);
    strict.tamper = spoil();
    assert_eq!(read_out(&mut strict), Err(SessionError::Damaged { attempts: 4 }));
    let mut config = client_config();
    config.quirks.accept_invalid_bcc = true;
    let mut lenient = pair(config, server_config(b'5'), Faults::default(), 1);
    lenient.tamper = spoil();
    let block = read_out(&mut lenient).unwrap();
    assert_eq!(block.quality, crate::metering::Quality::CRC_INVALID);
}

#[test]
fn a_meter_that_stays_at_its_rate_is_a_quirk() {
    for (ignores_rate, is_read) in [(false, false), (true, true)] {
        let mut config = client_config();
        config.quirks.ignores_rate = ignores_rate;
        let mut pair = pair(config, server_config(b'5'), Faults::default(), 1);
        // Whatever the meter does, its port stays as it is.
        pair.is_meter_stuck = true;
        match read_out(&mut pair) {
            Ok(block) => assert!(is_read && block.content == [LINES, b"!\r\n"].concat()),
            Err(error) => {
                assert!(!is_read && matches!(error, SessionError::Silent { .. } | SessionError::Damaged { .. }));
            }
        }
    }
}

#[test]
fn a_wrong_password_ends_the_session_and_is_not_tried_again() {
    let mut pair = pair(client_config(), server_config(b'5'), Faults::default(), 1);
    pair.client.sign_on(pair.now, Goal::Programming).unwrap();
    let result = pair.run(&mut |client, now, event| {
        if let ClientEvent::Programming { .. } = event {
            client.log_in(now, &Password::plain("1").unwrap())?;
        }
        Ok(false)
    });
    assert_eq!(result, Err(SessionError::PasswordRefused));
    let passwords = pair.sent.iter().filter(|(_, octets)| octets.starts_with(b"\x01P1")).count();
    assert_eq!(passwords, 1);
    assert!(pair.server_events.contains(&(0, ServerEvent::PasswordRefused)));
}

#[test]
fn what_a_meter_does_not_have_is_refused_and_the_session_goes_on() {
    let mut pair = pair(client_config(), server_config(b'5'), Faults::default(), 1);
    pair.client.sign_on(pair.now, Goal::Programming).unwrap();
    let mut refused = Vec::new();
    pair.run(&mut |client, now, event| {
        match event {
            ClientEvent::Programming { .. } => {
                client.read(now, &ReadRequest::register(ReadLevel::R1, "99.99").unwrap())?;
            }
            ClientEvent::Refused { reason } => {
                refused.push(reason.clone());
                client.read(now, &ReadRequest::register(ReadLevel::R1, "1.8.0").unwrap())?;
            }
            ClientEvent::Answered(_) => return Ok(true),
            _ => {}
        }
        Ok(false)
    })
    .unwrap();
    assert_eq!(refused, ["(ER01)"]);
}

#[test]
fn a_sleeping_meter_is_woken() {
    let config = ClientConfig { wake_up_ms: Some(2_200), ..client_config() };
    let mut pair = pair(config, server_config(b'5'), Faults::default(), 1);
    read_out(&mut pair).unwrap();
    assert_eq!(pair.sent[0].1, [0; 66]);
    assert_eq!(pair.sent[1].1, b"/?12345678!\r\n");
}

/// All single faults: each call ends with what the meter said or with an error, in bounded time, and most calls get through.
// Negative control: say NAK after any damage in `AwaitAnswer`.
#[test]
fn whatever_the_line_does_nothing_wrong_is_read() {
    let each = |per_mille| {
        let quiet = Faults { is_fragmented: true, ..Faults::default() };
        [
            Faults { lost: per_mille, ..quiet },
            Faults { flipped: per_mille, ..quiet },
            Faults { cut: per_mille, ..quiet },
            Faults { dropped: per_mille, ..quiet },
            Faults { inserted: per_mille, ..quiet },
            Faults { noise: per_mille, ..quiet },
            Faults { late: per_mille, ..quiet },
        ]
    };
    let (mut read, mut failed, mut failed_rarely) = (0, 0, 0);
    for (kind, faults) in each(60).into_iter().chain(each(250)).enumerate() {
        for seed in 0..40 {
            let level = if seed % 2 == 0 { ReadLevel::R5 } else { ReadLevel::R6 };
            let masked_parity = seed % 3 == 0;
            let client = ClientConfig { masked_parity, ..client_config() };
            // Shorter than the reader's patience, so that a meter left alone is back for the next call.
            let server = ServerConfig { inactivity_timeout_ms: 10_000, ..server_config(b'5') };
            let mut pair = pair(client, server, faults, seed * 100 + kind as u64);
            match converse(&mut pair, level) {
                Ok(found) if found.iter().any(|event| matches!(event, ClientEvent::Refused { .. })) => failed += 1,
                Ok(found) => {
                    // Identifications have no check.
                    assert_eq!(contents(&found), contents(&answers(GOOD, b'5')), "faults {kind}, seed {seed}");
                    read += 1;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    failed += 1;
                    failed_rarely += u32::from(kind < 7);
                }
            }
            assert!(pair.now < Duration::from_secs(1_000 + 400), "faults {kind}, seed {seed}: {:?}", pair.now);
        }
    }
    // Of 560 calls half met a fault in every sixteenth transmission, half in every fourth.
    let found = format!("{read} read, {failed} failed, {failed_rarely} of them with rare faults");
    println!("{found}");
    assert!(read > 300 && failed_rarely <= 28 && failed > failed_rarely, "{found}");
}

#[test]
fn read_outs_survive_the_same_faults() {
    let faults = Faults {
        lost: 20,
        flipped: 20,
        cut: 20,
        dropped: 20,
        inserted: 20,
        noise: 20,
        is_fragmented: true,
        ..Faults::default()
    };
    let (mut read, mut failed) = (0, 0);
    for seed in 0..200 {
        let mut server = server_config(if seed % 5 == 0 { b'E' } else { b'5' });
        server.partial_readout = seed % 2 == 0;
        server.block_octets = 40;
        let mut pair = pair(client_config(), server, faults, seed);
        match read_out(&mut pair) {
            Ok(block) => {
                assert_eq!(block.content, [LINES, b"!\r\n"].concat(), "seed {seed}");
                read += 1;
            }
            Err(_) => failed += 1,
        }
        assert!(pair.now < Duration::from_secs(1_000 + 300), "seed {seed}: {:?}", pair.now);
    }
    assert!(read > 150, "{read} read, {failed} failed");
}

#[test]
fn a_push_is_read_like_a_read_out() {
    let mut octets = Vec::new();
    encode_push(&mut octets, &identification("SIM", b'3', b""), LINES);
    let PushScan::Push { push, used } = scan_push(&octets) else { panic!() };
    assert_eq!(used, octets.len());
    let block = push.into_block(false).unwrap();
    let readout = Readout::decode(&block, &Settings::default(), at("2026-11-23T00:00:00Z")).unwrap();
    assert_eq!(readout.meter, MeterId::new("SIM:12345678").unwrap());
    assert!(readout.readings.iter().all(|one| one.quality == crate::metering::Quality::UNAUTHENTICATED));
}
