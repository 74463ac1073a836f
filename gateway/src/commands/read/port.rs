//! A port: waits for the next telegram and prints it. Of wireless M-Bus, the sections that would name the meters heard meanwhile.

use std::io::Write;

use protocols::metering::UtcMillis;
use tokio::time::Instant;

use super::{HINT_BUSY, ReadOptions};
use crate::clock::{Clock as _, SystemClock};
use crate::config::metering::{PortSettings, PushProtocol};
use crate::link::{self, LinkLost};
use crate::push::{Found, Part, Stranger, Telegram, hearing};

const RECEIVE_OCTETS: usize = 4096;

pub(super) async fn hear(port: &PortSettings, options: &ReadOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let is_asked = !options.obis.is_empty() || options.object_list || options.profile.is_some();
    anyhow::ensure!(!is_asked, "{} is a port: its meter is not asked\nhint: leave codes and profiles out", port.name);
    anyhow::ensure!(
        !options.trace,
        "{} is a port: there is no conversation to show\nhint: leave --trace out",
        port.name
    );
    let medium = link::medium(&port.medium);
    let mut link = match medium.open().await {
        Ok(link) => link,
        Err(error) => anyhow::bail!("port {}: {error}\n{HINT_BUSY}", port.name),
    };
    let (clock, mut hearing) = (SystemClock::new(), hearing(port));
    let lost = |lost: LinkLost| anyhow::anyhow!("port {}: {lost}", port.name);
    let first = hearing.start();
    if !first.is_empty() {
        link.send(&first).await.map_err(lost)?;
    }
    // A meter does not hear that we have what nobody stores.
    let is_receiver = matches!(port.protocol, PushProtocol::Wmbus { .. });
    let deadline = Instant::now() + port.silent_after;
    let mut octets = vec![0; RECEIVE_OCTETS];
    let (mut count, mut last, mut strangers) = (0, None, 0);
    while let Ok(received) = tokio::time::timeout_at(deadline, link.receive(&mut octets)).await {
        let received = received.map_err(lost)?;
        count += received;
        for found in hearing.hear(&mut octets[..received], clock.wall()) {
            match found {
                Found::Telegram(telegram) => return print(port, &telegram, clock.wall(), options.json, out),
                Found::Refused(refusal) | Found::RefusedOf(_, refusal) => last = Some(refusal),
                Found::Answer(octets) if is_receiver => link.send(&octets).await.map_err(lost)?,
                Found::Stranger(stranger) => {
                    strangers += 1;
                    writeln!(out, "{}", unnamed(port, &stranger, options.json))?;
                }
                _ => {}
            }
        }
    }
    let (name, period_s) = (&port.name, port.silent_after.as_secs());
    if let Some(refusal) = last {
        anyhow::bail!("port {name}: {}\nhint: {}", refusal.text, refusal.trouble.hint());
    }
    if strangers > 0 {
        return Ok(());
    }
    let trouble = if count > 0 { crate::push::Trouble::Frame } else { crate::push::Trouble::Silence };
    anyhow::bail!("port {name}: {count} octets and no telegram in {period_s} s\nhint: {}", trouble.hint())
}

/// A meter that no section names: the section that would.
fn unnamed(port: &PortSettings, stranger: &Stranger, json: bool) -> String {
    let (address, is_enciphered) = (stranger.address, stranger.is_enciphered);
    if json {
        let object =
            serde_json::json!({ "port": &*port.name, "address": address.to_string(), "encrypted": is_enciphered });
        return object.to_string();
    }
    stranger.section(&port.name)
}

fn print(
    port: &PortSettings,
    telegram: &Telegram,
    received_at: UtcMillis,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if json {
        let parts: Vec<_> = telegram.parts.iter().map(|part| object(part, received_at)).collect();
        return Ok(writeln!(
            out,
            "{}",
            serde_json::json!({ "port": &*port.name, "meters": parts, "problems": telegram.problems })
        )?);
    }
    writeln!(out, "{:<22} {}", "port", port.name)?;
    for part in &telegram.parts {
        writeln!(out, "{:<22} {}", "identity", part.meter)?;
        if let Some(expected) = port.serial.as_ref().filter(|serial| part.is_main && **serial != part.meter) {
            writeln!(out, "{:<22} {expected}", "expected instead")?;
        }
        if let Some(clock) = part.clock {
            writeln!(out, "{:<22} {clock} ({:+} s)", "clock", clock.since(received_at) / 1000)?;
        }
        for reading in &part.readings {
            let (code, value) = (reading.code.to_string(), reading.quantity.decimal());
            writeln!(out, "{code:<22} {value:>16} {}", reading.quantity.unit)?;
        }
    }
    for problem in &telegram.problems {
        writeln!(out, "{:<22} {problem}", "not readable")?;
    }
    Ok(())
}

fn object(part: &Part, received_at: UtcMillis) -> serde_json::Value {
    let values = part.readings.iter().map(|reading| {
        serde_json::json!({
            "code": reading.code.to_string(), "kind": reading.kind.name(), "captured_at": reading.captured_at.to_string(),
            "value": reading.quantity.decimal(), "unit": reading.quantity.unit.to_string(),
        })
    });
    serde_json::json!({
        "meter": part.meter.as_str(),
        "clock_offset_ms": part.clock.map(|clock| clock.since(received_at)),
        "values": values.collect::<Vec<_>>(),
    })
}
