//! What does a gateway say of a meter or a line that cannot be read, and is anything lost by the time it can?
//!
//! Each test asserts the words, the advice, the metric, and that all of it arrives in the end.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use demo::proxy::{Flow, Proxy};
use demo::stage::Stage;
use gateway::config::metering::{MediumSettings, Parity};
use tests::hostile::{state_of, told};
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, Truth, command, everything_arrives, metric, serial_toml, stage, start_dlms, start_serial,
    until, until_logged,
};

const LOAD: &str = "speed = 1200.0\nhistory_days = 0.5";

fn name_of(fleet: &Fleet, place: usize) -> String {
    fleet.endpoints[place]["meter"].as_str().unwrap().replace(':', "-")
}

async fn until_state(stage: &Stage, meter: &str, wanted: (&str, &str)) {
    let is_so = async || {
        let (state, cause) = state_of(stage, meter).await?;
        Ok(state == wanted.0 && cause.contains(wanted.1))
    };
    until(&format!("{meter} is {wanted:?}"), CATCH_UP_TIMEOUT, is_so).await.unwrap();
}

async fn until_counted(stage: &Stage, name: &str, least: u64) {
    let is_so = async || Ok(metric(stage.gateway_address(), name).await? >= least);
    until(&format!("{name} is {least}"), CATCH_UP_TIMEOUT, is_so).await.unwrap();
}

/// Writes what the settings are by now, and has them read: a meter whose section has changed is read at once.
fn reload(stage: &mut Stage, meters_toml: String) {
    stage.meters_toml = meters_toml;
    stage.write_gateway_config(&stage.gateway_toml()).unwrap();
    stage.reload_gateway().unwrap();
}

async fn all_of_it_arrives(stage: &Stage, truth: &Truth) {
    everything_arrives(stage, truth).await.unwrap();
}

/// Negative control: leave the advice out of `TalkError::text`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_named_by_its_file_and_when_it_is_right_nothing_is_missing() {
    const WRONG: &str = "not-the-secret";
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, LOAD).unwrap();
    let wrong = folder.path().join("other-password").display().to_string();
    std::fs::write(&wrong, WRONG).unwrap();
    let meters = fleet.toml().unwrap().replacen(&fleet.password, &wrong, 1);
    stage.meters_toml = meters.clone();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let meter = name_of(&fleet, 0);
    let advice = ": is password_file of its section right?";
    until_state(&stage, &meter, ("refusing", advice)).await;
    // The other one is read meanwhile.
    until_logged(&stage, 50).await.unwrap();
    let failed = metric(stage.gateway_address(), "gateway_meter_reads_failed_total").await.unwrap();
    assert_eq!(failed, 1, "tried once: the next wrong password may lock the meter");
    let warned = told(&stage, &["WARN", &format!("meter={meter}"), advice]).unwrap();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(!stage.gateway_log().unwrap().contains(WRONG));
    std::fs::write(&wrong, "reader").unwrap();
    reload(&mut stage, meters);
    until_state(&stage, &meter, ("ok", "")).await;
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &fleet.captured().unwrap()).await;
}

/// What the meters of the HDLC line captured: a P1 port says what it says whether anybody listens or not.
fn of_the_line(fleet: &Fleet) -> Truth {
    let on_line =
        |meter: &str| fleet.endpoints.iter().any(|one| one["meter"] == meter && one["protocol"] == "dlms-hdlc");
    fleet.captured().unwrap().into_iter().filter(|((meter, ..), _)| on_line(meter)).collect()
}

fn line_alone(stage: &Stage, fleet: &Fleet) -> String {
    let on_it = fleet.endpoints.iter().filter(|endpoint| endpoint["protocol"] == "dlms-hdlc").cloned().collect();
    serial_toml(stage) + &Fleet { endpoints: on_it, ..fleet.clone() }.toml().unwrap()
}

/// Negative controls: take a port that is not there for any other error (`SerialMedium::open`); leave the metric out of
/// `Running::cannot_open`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_does_not_exist_is_named_and_opened_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    // Who is on the line is known from a simulator that ran before; its port went with it.
    let fleet = start_serial(&mut stage, 1, 2, LOAD).unwrap();
    stage.stop_last_simulator().unwrap();
    stage.meters_toml = line_alone(&stage, &fleet);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let port = folder.path().join("rs485").display().to_string();
    until_counted(&stage, "gateway_line_open_errors_total", 2).await;
    let advice = "is it plugged in, and its name right?";
    let warned = told(&stage, &["WARN", "line=rs485", &format!("there is no {port}: ")]).unwrap();
    assert!(!warned.is_empty(), "{}", stage.gateway_log().unwrap());
    for place in 0..2 {
        until_state(&stage, &name_of(&fleet, place), ("silent", &format!("there is no {port}: "))).await;
    }
    // Where no stable names are, there is nothing better to advise.
    let has_names = std::fs::read_dir("/dev/serial/by-id").is_ok_and(|mut names| names.next().is_some());
    assert!(has_names || warned[0].contains(advice), "{warned:?}");
    let fleet = start_serial(&mut stage, 1, 2, LOAD).unwrap();
    until_logged(&stage, 50).await.unwrap();
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &of_the_line(&fleet)).await;
}

/// Negative control: take a port in use for one that is not there (`SerialMedium::open`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_another_program_holds_is_named_with_it_and_opened_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_serial(&mut stage, 1, 2, LOAD).unwrap();
    let path = folder.path().join("rs485");
    let settings = MediumSettings::Serial {
        path: path.clone(),
        baud: 9600,
        data_bits: 8,
        parity: Parity::None,
        stop_bits: 1,
        rts_on_send: None,
    };
    let Ok(held) = gateway::link::medium(&settings).open().await else { panic!("the port is not free") };
    stage.meters_toml = line_alone(&stage, &fleet);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_counted(&stage, "gateway_line_open_errors_total", 2).await;
    let cause = format!("{} is in use by another program: ", path.display());
    let holder = format!("(process {})", std::process::id());
    for place in 0..2 {
        until_state(&stage, &name_of(&fleet, place), ("silent", &cause)).await;
        until_state(&stage, &name_of(&fleet, place), ("silent", &holder)).await;
    }
    let warned = told(&stage, &["WARN", "line=rs485", &cause, &holder]).unwrap();
    assert!(!warned.is_empty(), "{}", stage.gateway_log().unwrap());
    drop(held);
    until_logged(&stage, 50).await.unwrap();
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &of_the_line(&fleet)).await;
}

/// Negative control: leave the metric out of `Running::turn`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_off_is_counted_and_read_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let mut fleet = start_dlms(&mut stage, 1, 2, LOAD).unwrap();
    let wire = Proxy::start(&[fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap()]).await.unwrap();
    fleet.endpoints[0]["address"] = wire.address().to_string().into();
    stage.meters_toml = fleet.toml().unwrap();
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let meter = name_of(&fleet, 0);
    until_state(&stage, &meter, ("ok", "")).await;
    assert_eq!(metric(stage.gateway_address(), "gateway_lines_lost_total").await.unwrap(), 0);
    wire.set(Flow::Down);
    until_counted(&stage, "gateway_lines_lost_total", 1).await;
    until_state(&stage, &meter, ("silent", "the line failed: ")).await;
    let warned = told(&stage, &["WARN", &format!("meter={meter}"), "could not be read", "the line failed"]).unwrap();
    assert_eq!(warned.len(), 1, "{warned:?}");
    wire.set(Flow::Up);
    // It would be asked again in a minute; a meter whose section has changed is asked at once.
    let other = "clock_check = \"off\"\nmetering_point = \"DE1\"\n";
    let meters = stage.meters_toml.replace("clock_check = \"off\"\n", other);
    reload(&mut stage, meters);
    until_state(&stage, &meter, ("ok", "")).await;
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &fleet.captured().unwrap()).await;
}

/// Negative controls: leave the metric out of `Session::refused`; say it in each session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_a_meter_refuses_is_named_once_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, LOAD).unwrap();
    let refused = "[[meter.read]]\nsource = \"registers\"\ncodes = [\"1-0:99.99.0\"]\nevery_s = 1\n";
    let mut meters = fleet.part(&[0]).toml().unwrap();
    meters.push_str(refused);
    meters.push_str(&fleet.part(&[1]).toml().unwrap());
    stage.meters_toml = meters;
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let meter = name_of(&fleet, 0);
    until_state(&stage, &meter, ("refusing", "1-0:99.99.0: ")).await;
    until_counted(&stage, "gateway_objects_refused_total", 3).await;
    let warned = told(&stage, &["WARN", &format!("meter={meter}"), "the meter refuses"]).unwrap();
    let hint = "hint=\"are codes and profile of its section right, and may its client read them?\"";
    assert!(warned.len() == 1 && warned[0].contains("1-0:99.99.0") && warned[0].contains(hint), "{warned:?}");
    // It is well but for that.
    assert_eq!(metric(stage.gateway_address(), "gateway_meter_reads_failed_total").await.unwrap(), 0);
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &fleet.captured().unwrap()).await;
}

/// Negative controls: leave the claims out of `check_lines`, of the medium and of the address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_in_which_two_sections_are_one_meter_are_refused_and_what_runs_reads_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let fleet = start_dlms(&mut stage, 1, 2, LOAD).unwrap();
    let right = fleet.toml().unwrap();
    stage.meters_toml.clone_from(&right);
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    until_logged(&stage, 20).await.unwrap();
    let [first, second] = [0, 1].map(|place| name_of(&fleet, place));
    let address = fleet.endpoints[0]["address"].as_str().unwrap();
    let hdlc = |name: &str, rest: &str| {
        format!("[[meter]]\nname = \"{name}\"\nline = \"bus\"\nprotocol = \"dlms-hdlc\"\nphysical = 17\n{rest}")
    };
    let mistakes = [
        (
            right.replace(fleet.endpoints[1]["address"].as_str().unwrap(), address),
            format!("line \"{second}\": {address} is the endpoint of line \"{first}\" already\nhint: put all meters"),
        ),
        (
            format!("{right}[[line]]\nname = \"bus\"\nserial = \"/dev/none\"\n{}{}", hdlc("a", ""), hdlc("b", "address_octets = 4\n")),
            "meter \"b\": meter \"a\" has the same address, 1/17, which is 1/17 (4 octets) in another form on line \"bus\"\nhint: "
                .to_owned(),
        ),
    ];
    for (count, (toml, words)) in (1..).zip(mistakes) {
        reload(&mut stage, toml);
        let (code, out, error) = command(&stage, &["check-config"]).unwrap();
        assert!(code == Some(1) && out.is_empty() && error.contains(&words), "{code:?} {out} {error}");
        let told = async || Ok(told(&stage, &["ERROR", "stay as they were"])?.len() == count);
        until("the mistake is told", CATCH_UP_TIMEOUT, told).await.unwrap();
        assert!(stage.gateway_log().unwrap().contains(&words), "{}", stage.gateway_log().unwrap());
    }
    stage.freeze_simulator().unwrap();
    all_of_it_arrives(&stage, &fleet.captured().unwrap()).await;
}
