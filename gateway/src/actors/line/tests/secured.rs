//! Secured meters on a line, honest and hostile.

use std::path::Path;

use protocols::dlms::security::{Key, KeySet, KeyTransport, Level, SecuritySuite, Signing, SystemTitle, Wrapping};
use protocols::uplink::GatewayId;

use super::*;
use crate::config::security::Validity;
use crate::outbox::{OutboxHandle, OutboxSettings};
use crate::reading::testing::secured::{BodySecurity, Files, Hostility, SUITES, TITLE};

const ALL: Level = Level::AUTHENTICATED_ENCRYPTED;

impl World {
    fn secured(&self, name: &str, security: BodySecurity) -> SharedBody {
        let body = self.body(name, 1);
        body.lock().unwrap().security = Some(security);
        body
    }
}

fn gmac() -> BodySecurity {
    BodySecurity::new("gmac", SecuritySuite::Suite0, ALL)
}

fn security<T>(body: &SharedBody, look: impl FnOnce(&mut BodySecurity) -> T) -> T {
    look(body.lock().unwrap().security.as_mut().unwrap())
}

/// Every mechanism and suite, with policies and wrappers in turn: sections, and the meters that they are of.
fn all_kinds(files: &Files) -> Vec<(String, BodySecurity)> {
    let policies =
        [("authenticated-encrypted", ALL), ("authenticated", Level::AUTHENTICATED), ("encrypted", Level::ENCRYPTED)];
    let mut kinds = Vec::new();
    for suite in SUITES {
        for authentication in ["low", "manufacturer", "md5", "sha1", "gmac", "sha256", "ecdsa"] {
            if authentication == "ecdsa" && suite == SecuritySuite::Suite0 {
                continue;
            }
            let (policy, level) = policies[kinds.len() % 3];
            let wrappings: &[&str] = if level.encrypted {
                &["global", "dedicated", "general-global", "general-dedicated"]
            } else {
                &["global", "general-global"]
            };
            let wrapping = wrappings[kinds.len() % wrappings.len()];
            let section = files.section(authentication, suite);
            let section = format!("{section}security_policy = {policy:?}\nciphering = {wrapping:?}\n");
            let mut security = BodySecurity::new(authentication, suite, level);
            if wrapping.starts_with("general") {
                security.config.wrapping = Wrapping::General;
            }
            // All share their keys here, so each needs a title of its own.
            security.config.title = SystemTitle([b'S', b'I', b'M', 0, 0, 0, 1, kinds.len() as u8]);
            kinds.push((section, security));
        }
    }
    kinds
}

fn assert_all_read(world: &World, bodies: &[SharedBody]) {
    for body in bodies {
        assert_complete(&stored(&world.outbox), body);
        assert_eq!(security(body, |security| security.counter_errors), 0);
    }
    let counts = [Metric::ReadsFailed, Metric::ProtectionErrors].map(|metric| world.session.metrics.value(metric));
    assert_eq!(counts, [0, 0]);
}

/// Sections, and the meters that they are of, each behind a wPort of its own.
async fn read_over_the_wrapper(kinds: Vec<(String, BodySecurity)>) {
    let text: String =
        (1..).zip(&kinds).map(|(server, (section, _))| meter(&format!("m{server}"), server, section)).collect();
    let world = World::new(&text);
    let named = (1..).zip(kinds).map(|(nth, (_, security))| world.secured(&format!("SIM{nth:04}"), security));
    let bodies: Vec<SharedBody> = named.collect();
    let roles: Vec<(u16, Role)> = (1..).zip(bodies.iter().cloned().map(Role::Meter)).collect();
    world.run_for(host(&roles), Duration::from_secs(300)).await;
    assert_all_read(&world, &bodies);
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_and_suite_is_read_over_the_wrapper() {
    let files = Files::new();
    let kinds = all_kinds(&files);
    assert_eq!(kinds.len(), 20);
    read_over_the_wrapper(kinds).await;
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_and_suite_is_read_over_hdlc() {
    let files = Files::new();
    let kinds = all_kinds(&files);
    let section = |physical: u16, section: &str| {
        let hdlc = format!("protocol = \"dlms-hdlc\"\nphysical = {physical}\n{section}");
        meter(&format!("m{physical}"), 1, &hdlc)
    };
    let text: String = (17..).zip(&kinds).map(|(physical, (text, _))| section(physical, text)).collect();
    let world = World::new(&text);
    let named = (1..).zip(kinds).map(|(nth, (_, security))| world.secured(&format!("SIM{nth:04}"), security));
    let bodies: Vec<SharedBody> = named.collect();
    let (medium, mut opened) = MemoryMedium::new("memory", true);
    let on_line: Vec<_> = (17..).map(|lower| HdlcAddress::two(1, lower).unwrap()).zip(bodies.iter().cloned()).collect();
    tokio::spawn(async move { serve_hdlc(opened.recv().await.unwrap(), on_line).await });
    world.run_for(Arc::new(medium), Duration::from_secs(600)).await;
    assert_all_read(&world, &bodies);
}

/// Every kind of key that general-ciphering brings or names, and every place of a signature: sections, and the meters that they are of.
fn all_transports(files: &Files) -> Vec<(String, BodySecurity)> {
    let transports = [
        ("identified", KeyTransport::Identified),
        ("wrapped", KeyTransport::Wrapped),
        ("one-pass", KeyTransport::OnePass),
        ("static-unified", KeyTransport::StaticUnified),
    ];
    let signings = [("", None), ("inside", Some(Signing::Inside)), ("outside", Some(Signing::Outside))];
    let mut kinds = Vec::new();
    for suite in SUITES {
        for (ciphering, transport) in transports {
            for (signs, signing) in signings {
                let has_pairs = matches!(transport, KeyTransport::OnePass | KeyTransport::StaticUnified);
                if suite == SecuritySuite::Suite0 && (has_pairs || signing.is_some()) {
                    continue;
                }
                let section = files.section("gmac", suite) + &files.transport(ciphering, signs, suite);
                let mut security = BodySecurity::new("gmac", suite, ALL).under(transport, signing);
                security.config.title = SystemTitle([b'S', b'I', b'M', 0, 0, 0, 2, kinds.len() as u8]);
                kinds.push((section, security));
            }
        }
    }
    kinds
}

/// Control, seen to fail: draw no key to be wrapped, or no ephemeral pair, in `Counters::prepare`.
#[tokio::test(start_paused = true)]
async fn meters_are_read_under_every_kind_of_key_and_with_signatures() {
    let files = Files::new();
    let kinds = all_transports(&files);
    assert_eq!(kinds.len(), 2 + 12 + 12);
    read_over_the_wrapper(kinds).await;
}

/// Whatever the meter is and does, less than the settings say is not taken: keys of another kind, no signature, no ciphering.
///
/// Control, seen to fail: leave `signing` of the settings out.
#[tokio::test(start_paused = true)]
async fn a_meter_that_protects_otherwise_than_configured_is_refused() {
    let (files, suite) = (Files::new(), SecuritySuite::Suite1);
    let section = |signing| files.section("gmac", suite) + &files.transport("static-unified", signing, suite);
    let under = |transport, signing| BodySecurity::new("gmac", suite, ALL).under(transport, signing);
    let unsigned = under(KeyTransport::StaticUnified, None);
    let global = BodySecurity::new("gmac", suite, ALL);
    let one_pass = under(KeyTransport::OnePass, None);
    let mut downgrading = under(KeyTransport::StaticUnified, None);
    downgrading.hostility = Hostility::Downgrade;
    for (signing, security) in [("inside", unsigned), ("", global), ("", one_pass), ("", downgrading)] {
        let world = World::new(&meter("bad", 1, &section(signing)));
        let bad = world.secured("SIM0001", security);
        world.run_for(host(&[(1, Role::Meter(bad))]), Duration::from_secs(60)).await;
        assert!(stored(&world.outbox).is_empty());
        assert_eq!(world.session.metrics.value(Metric::ReadsDone), 0);
    }
}

/// What a meter has said under agreed keys is not taken again after a restart, though nobody says it under a global key.
///
/// Control, seen to fail: keep counters of `KeySet::GlobalUnicast` only, in `conclude`.
#[tokio::test(start_paused = true)]
async fn counters_under_agreed_keys_outlive_a_restart() {
    let (files, suite) = (Files::new(), SecuritySuite::Suite1);
    for (ciphering, transport, keys) in
        [("one-pass", KeyTransport::OnePass, KeySet::Agreed), ("wrapped", KeyTransport::Wrapped, KeySet::Wrapped)]
    {
        let section = files.section("gmac", suite) + &files.transport(ciphering, "", suite);
        let world = World::new(&meter("m", 1, &section));
        let body = world.secured("SIM0001", BodySecurity::new("gmac", suite, ALL).under(transport, None));
        world.run_for(host(&[(1, Role::Meter(body.clone()))]), Duration::from_secs(60)).await;
        let settings = world.plan.meters[0].security.cipher.as_ref().unwrap();
        let key = match keys {
            KeySet::Agreed => settings.config.transport.agreement_fingerprint().unwrap(),
            _ => settings.config.transport.key_encrypting.as_ref().unwrap().fingerprint(),
        };
        let kept = world.outbox.lock().unwrap().counters(key).unwrap();
        assert!(matches!(kept[..], [(TITLE, next)] if next > 2), "{ciphering}: {kept:?}");
        assert!(security(&body, |security| security.received.greatest(keys, settings.config.title).is_some()));
    }
}

/// Control, seen to fail for each: leave `not_accepted` out of the talk; take `Title` for no wrong identity.
#[tokio::test(start_paused = true)]
async fn what_is_forged_replayed_or_said_in_clear_is_refused_and_the_line_goes_on() {
    let files = Files::new();
    let section = files.section("gmac", SecuritySuite::Suite0);
    let titled = format!("{section}meter_title = \"53494d0000000001\"\n");
    let text = [meter("bad", 1, &titled), meter("good", 2, &section)];
    let other = SystemTitle(*b"SIM\x00\x00\x00\x00\x02");
    for (hostility, title, state, cause) in [
        (
            Hostility::WrongTag,
            TITLE,
            MeterState::Refusing,
            "what was answered is not accepted: the authentication tag is wrong",
        ),
        (Hostility::Replay, TITLE, MeterState::Refusing, "what was answered is not accepted: invocation counter "),
        (Hostility::Downgrade, TITLE, MeterState::Refusing, "APDU with tag 0xc4 is not ciphered, the association is"),
        (Hostility::None, SystemTitle(*b"XXX\x00\x00\x00\x00\x02"), MeterState::WrongIdentity, "was expected"),
    ] {
        let world = World::new(&text.concat());
        let (bad, good) = (world.secured("SIM0001", gmac()), world.secured("SIM0002", gmac()));
        security(&good, |security| security.config.title = other);
        let roles = [(1, Role::Meter(bad.clone())), (2, Role::Meter(good.clone()))];
        if hostility == Hostility::Replay {
            world.run_for(host(&roles), Duration::from_secs(20)).await;
        }
        let before = stored(&world.outbox).keys().filter(|(.., what)| what.starts_with("SIM0001")).count();
        security(&bad, |security| {
            (security.hostility, security.config.title) = (hostility, title);
        });
        world.run_for(host(&roles), Duration::from_secs(1_000)).await;
        let after = stored(&world.outbox).keys().filter(|(.., what)| what.starts_with("SIM0001")).count();
        assert_eq!(after, before, "{hostility:?}: something of it was taken");
        assert_complete(&stored(&world.outbox), &good);
        let entry = world.entry("bad");
        assert!(
            entry.state == state && entry.cause.contains(cause),
            "{hostility:?}: {}: {}",
            entry.state.name(),
            entry.cause
        );
        assert_eq!(world.entry("good").state, MeterState::Ok);
        assert!(world.session.metrics.value(Metric::ProtectionErrors) > 0);
        // It is read once it is itself again.
        security(&bad, |security| {
            (security.hostility, security.config.title) = (Hostility::None, TITLE);
        });
        world.run_for(host(&roles), Duration::from_secs(20)).await;
        assert_complete(&stored(&world.outbox), &bad);
    }
}

/// Control, seen to fail: leave `check` out of `associate`.
#[tokio::test(start_paused = true)]
async fn a_meter_whose_certificate_has_expired_says_so_and_the_others_are_read() {
    let files = Files::new();
    let section = files.section("gmac", SecuritySuite::Suite0);
    let titled = format!("{section}meter_title = \"53494d0000000001\"\n");
    let mut world = World::new(&[meter("bad", 1, &titled), meter("good", 2, &section)].concat());
    let (bad, good) = (world.secured("SIM0001", gmac()), world.secured("SIM0002", gmac()));
    security(&good, |security| security.config.title = SystemTitle(*b"SIM\x00\x00\x00\x00\x02"));
    let settings = Arc::make_mut(&mut world.plan.meters[0]);
    let expired = Validity { from: T0.plus_ms(-2_000), to: T0.plus_ms(-1_000) };
    settings.security.cipher.as_mut().unwrap().certificate = Some(expired);
    let roles = [(1, Role::Meter(bad)), (2, Role::Meter(good.clone()))];
    world.run_for(host(&roles), Duration::from_secs(60)).await;
    assert!(!stored(&world.outbox).keys().any(|(.., what)| what.starts_with("SIM0001")));
    assert_complete(&stored(&world.outbox), &good);
    let entry = world.entry("bad");
    assert!(entry.state == MeterState::Refusing && entry.cause.contains("expired at"), "{}", entry.cause);
}

/// A change of keys was cut short, and nobody knows which of the two keys the meter has.
///
/// Control, seen to fail: leave the second `associate_under` out.
#[tokio::test(start_paused = true)]
async fn a_meter_is_read_under_whichever_of_two_keys_it_has() {
    for (file, has_new) in [("encryption0", true), ("encryption0", false), ("authentication0", true), ("master0", true)]
    {
        let files = Files::new();
        files.write(&format!("{file}.next"), &"5e".repeat(16));
        let suite = SecuritySuite::Suite0;
        let section = files.section("gmac", suite) + &files.transport("wrapped", "", suite);
        let world = World::new(&meter("m", 1, &section));
        let body = world.secured("SIM0001", BodySecurity::new("gmac", suite, ALL).under(KeyTransport::Wrapped, None));
        let new = Some(Key::from([0x5e; 16]));
        security(&body, |security| match file {
            _ if !has_new => {}
            "encryption0" => security.config.keys.unicast = new,
            "authentication0" => security.config.keys.authentication = new,
            _ => security.config.transport.key_encrypting = new,
        });
        world.run_for(host(&[(1, Role::Meter(body.clone()))]), Duration::from_secs(2_000)).await;
        assert_complete(&stored(&world.outbox), &body);
        assert_eq!(world.entry("m").state, MeterState::Ok, "{file}");
        assert!(world.session.metrics.value(Metric::ReadsDone) > 2, "{file}: read again");
        assert_eq!(world.session.metrics.value(Metric::ReadsFailed), 0, "{file}");
    }
}

/// What a process finds that is started over the same file.
fn life(path: &Path, text: &str) -> World {
    let settings = OutboxSettings::new(GatewayId::new("gw-1").unwrap());
    let (outbox, shared) = OutboxHandle::inline(Outbox::open(path, settings, Box::new(|| 1)).unwrap().0);
    let (session, _) = parts(&TokioClock::shared(T0));
    World::over((SessionParts { outbox, ..session }, shared), text)
}

/// The meter's own counter is not asked for, and time stands nearly still: only the outbox knows what was used.
///
/// Control, seen to fail: reserve without noting it.
#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_uses_no_counter_twice() {
    let files = Files::new();
    let section = format!("{}counter_from_meter = \"off\"\n", files.section("gmac", SecuritySuite::Suite0));
    let path = files.path("outbox.db");
    let body = life(&path, &meter("m", 1, &section)).secured("SIM0001", gmac());
    let roles = [(1, Role::Meter(body.clone()))];
    for life_ms in 0..40 {
        let world = life(&path, &meter("m", 1, &section));
        world.run_for(host(&roles), Duration::from_millis(life_ms * 7)).await;
    }
    assert_eq!(security(&body, |security| security.counter_errors), 0);
    assert!(body.lock().unwrap().associations > 20);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_has_seen_greater_counters_is_followed_whether_it_says_so_or_hangs_up() {
    let files = Files::new();
    for (extra, hostility, failures) in
        [("counter_from_meter = \"off\"\n", Hostility::None, 0), ("", Hostility::SilentCounterError, 1)]
    {
        let text = meter("m", 1, &format!("{}{extra}", files.section("gmac", SecuritySuite::Suite0)));
        let world = World::new(&text);
        let body = world.secured("SIM0001", gmac());
        let roles = [(1, Role::Meter(body.clone()))];
        // Somebody else uses the key after the first session.
        let (seen, mut jumped) = (body.clone(), 0);
        let jump = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            jumped = security(&seen, |security| {
                security.hostility = hostility;
                let (keys, title, counter) = security.received.iter().next().unwrap();
                assert_eq!(keys, KeySet::GlobalUnicast);
                security.received.remember(keys, title, counter + 1_000_000).unwrap();
                counter + 1_000_000
            });
        };
        tokio::join!(world.run_for(host(&roles), Duration::from_secs(2_000)), jump);
        let (counter, errors) = security(&body, |security| (security.counter(), security.counter_errors));
        assert!(counter > jumped, "{extra}: {counter} after {jumped}");
        assert_eq!((errors, world.session.metrics.value(Metric::ReadsFailed)), (1, failures), "{extra}");
        assert_eq!(world.entry("m").state, MeterState::Ok);
    }
}

/// Controls, seen to fail: believe every counter; begin at 0 where nothing is known.
#[tokio::test(start_paused = true)]
async fn nobody_uses_up_a_key_by_lying_and_nothing_is_said_on_a_guess() {
    let files = Files::new();
    let section = files.section("gmac", SecuritySuite::Suite0);
    let world = World::new(&meter("m", 1, &section));
    let body = world.secured("SIM0001", gmac());
    security(&body, |security| security.told = Some(u32::MAX - 5));
    let roles = [(1, Role::Meter(body.clone()))];
    world.run_for(host(&roles), Duration::from_secs(10)).await;
    let entry = world.entry("m");
    assert!(entry.cause.contains("which leaves too few: its key has to be changed"), "{}", entry.cause);
    assert_eq!(security(&body, |security| security.received.iter().count()), 0, "something was said under the key");
    security(&body, |security| security.told = None);
    world.run_for(host(&roles), Duration::from_secs(10)).await;
    assert_complete(&stored(&world.outbox), &body);

    let (mut session, outbox) = parts(&TokioClock::shared(T0));
    session.trust = crate::trust::ClockTrust::new(session.clock.clone(), 1);
    let world = World::over((session, outbox), &meter("m", 1, &format!("{section}counter_from_meter = \"off\"\n")));
    let body = world.secured("SIM0001", gmac());
    world.run_for(host(&[(1, Role::Meter(body.clone()))]), Duration::from_secs(10)).await;
    let entry = world.entry("m");
    assert!(entry.cause.starts_with("no invocation counter is known to be unused"), "{}", entry.cause);
    assert_eq!(body.lock().unwrap().associations, 0);
}
