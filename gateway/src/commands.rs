//! What the commands other than `run` do.

mod change;
pub mod decode;
mod profiles;
mod read;

pub use change::{
    CalendarOptions, ImageOptions, KeysOptions, SwitchTo, WriteOptions, calendar, clock, image, keys, switch, write,
};
pub use profiles::profiles;
pub use read::{ReadOptions, read};

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use protocols::metering::MeterId;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Checked;
use crate::http;
use crate::outbox::{Outbox, OutboxSettings, Resubmitted};
use crate::run;

/// Where the outbox lies, if there is one: a command makes none.
fn existing(checked: &Checked) -> anyhow::Result<PathBuf> {
    let path = run::outbox_path(checked);
    anyhow::ensure!(
        path.exists(),
        "there is no outbox at {}\nhint: the gateway has not run with these settings",
        path.display()
    );
    Ok(path)
}

/// For changing it: the gateway must be stopped, and `_lock` held.
fn open(checked: &Checked, _lock: &std::fs::File) -> anyhow::Result<Outbox> {
    let path = existing(checked)?;
    let settings: OutboxSettings = run::outbox_settings(checked);
    let opened = Outbox::open(&path, settings, Box::new(run::random_u64));
    Ok(opened.map_err(|source| run::StartError::Outbox { path, source })?.0)
}

/// For looking into it, whether the gateway runs or not.
fn look_into(checked: &Checked) -> anyhow::Result<Outbox> {
    let path = existing(checked)?;
    let opened = Outbox::look_into(&path, run::outbox_settings(checked));
    Ok(opened.map_err(|source| run::StartError::Outbox { path, source })?)
}

pub fn inspect(checked: &Checked, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let outbox = look_into(checked)?;
    let (usage, unsettled, refused) = (outbox.usage()?, outbox.unsettled()?, outbox.refused()?);
    let held = outbox.held_identities()?;
    let name = |id: &protocols::uplink::BatchId| format!("{:016x}/{}", id.incarnation, id.seq);
    if json {
        let batch = |sealed: &crate::outbox::SealedBatch, reason: Option<&str>| {
            serde_json::json!({
                "batch": name(&sealed.id), "sealed_at": sealed.sealed_at.to_string(), "readings": sealed.readings,
                "events": sealed.events, "bytes": sealed.bytes, "refused": reason,
            })
        };
        let batches = unsettled.iter().map(|sealed| batch(sealed, None));
        let refused = refused.iter().map(|refused| batch(&refused.sealed, Some(&refused.reason)));
        let all: Vec<_> = batches.chain(refused).collect();
        writeln!(out, "{}", serde_json::json!({ "usage": usage, "batches": all, "held": held_json(&held) }))?;
        return Ok(());
    }
    writeln!(out, "rows not sealed   {}", usage.rows_unsealed)?;
    writeln!(out, "rows held         {}", usage.rows_held)?;
    if usage.rows_damaged > 0 {
        writeln!(out, "rows damaged      {}", usage.rows_damaged)?;
    }
    writeln!(out, "bytes in use      {} of {} ({})", usage.used_bytes, usage.bytes_max, usage.level.name())?;
    writeln!(out, "repeated, dropped {}, {}", usage.repeated, usage.dropped)?;
    writeln!(out, "refused, gone     {}", usage.refused_dropped)?;
    for (meter, rows) in &held {
        writeln!(out, "held        {meter}  {rows} rows, for `outbox accept {meter}`")?;
    }
    for sealed in &unsettled {
        writeln!(out, "on its way  {}  {} readings, sealed {}", name(&sealed.id), sealed.readings, sealed.sealed_at)?;
    }
    for refused in &refused {
        writeln!(
            out,
            "refused     {}  {} readings: {}",
            name(&refused.sealed.id),
            refused.sealed.readings,
            refused.reason
        )?;
    }
    Ok(())
}

fn held_json(held: &std::collections::BTreeMap<MeterId, u64>) -> serde_json::Value {
    held.iter().map(|(meter, rows)| (meter.to_string(), serde_json::Value::from(*rows))).collect()
}

/// False when something is damaged.
pub fn verify(checked: &Checked, out: &mut impl Write) -> anyhow::Result<bool> {
    let (batches, rows, damage) = look_into(checked)?.verify()?;
    for line in &damage {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{batches} batches and {rows} rows checked, {} damaged", damage.len())?;
    Ok(damage.is_empty())
}

pub fn export(checked: &Checked, out: &mut impl Write) -> anyhow::Result<()> {
    look_into(checked)?.export(|line| writeln!(out, "{line}"))
}

pub fn resubmit(checked: &Checked, batch: &str, out: &mut impl Write) -> anyhow::Result<()> {
    existing(checked)?;
    let lock = run::lock(checked)?;
    let parsed = batch
        .split_once('/')
        .and_then(|(incarnation, seq)| Some((u64::from_str_radix(incarnation, 16).ok()?, seq.parse().ok()?)));
    let Some((incarnation, seq)) = parsed else {
        anyhow::bail!("{batch:?} is no batch\nhint: give it as `outbox inspect` prints it, like 00c0ffee00c0ffee/17");
    };
    let mut outbox = open(checked, &lock)?;
    let now = SystemClock::new().wall();
    match outbox.transaction(|outbox| outbox.resubmit(incarnation, seq, now))? {
        Resubmitted::Unknown => {
            anyhow::bail!("there is no refused batch {batch}\nhint: `outbox inspect` lists them");
        }
        Resubmitted::Empty => writeln!(out, "{batch} has no row that can be sent")?,
        Resubmitted::Sealed(sealed) => {
            let (incarnation, seq) = (sealed.id.incarnation, sealed.id.seq);
            writeln!(out, "{batch} is sealed anew as {incarnation:016x}/{seq}, and goes out when the gateway runs")?;
        }
    }
    Ok(())
}

/// Releases what is held under an identity: in the running gateway, or in the file when none runs.
pub async fn accept(checked: &Checked, meter: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let hint = "hint: give the identity that was found, as `status` shows it";
    let meter = MeterId::new(meter).map_err(|error| anyhow::anyhow!("{error}\n{hint}"))?;
    existing(checked)?;
    let (released, held) = match run::lock(checked) {
        Ok(lock) => {
            let mut outbox = open(checked, &lock)?;
            let released = outbox.transaction(|outbox| outbox.accept(&meter))?;
            (released, outbox.held_identities()?.into_keys().map(|id| id.to_string()).collect())
        }
        Err(run::StartError::Locked { .. }) => accept_running(checked, &meter).await?,
        Err(error) => return Err(error.into()),
    };
    if released == 0 {
        let held: Vec<String> = held;
        let hint = if held.is_empty() { "no meter is held".to_owned() } else { format!("held: {}", held.join(", ")) };
        anyhow::bail!("nothing is held of {meter}\nhint: {hint}");
    }
    writeln!(out, "{released} rows of {meter} are released and will be delivered")?;
    writeln!(out, "set serial = \"{meter}\" in its section: what is read under it is held until then")?;
    Ok(())
}

async fn accept_running(checked: &Checked, meter: &MeterId) -> anyhow::Result<(u64, Vec<String>)> {
    #[derive(serde::Deserialize)]
    struct Accepted {
        released: u64,
        held: Vec<String>,
    }
    let path = format!("{}{meter}", http::ACCEPT_PATH);
    let (status, body) = ask(checked, hyper::Method::POST, &path).await?;
    anyhow::ensure!(status.is_success(), "the gateway answers {status}: {}", String::from_utf8_lossy(&body));
    let Accepted { released, held } = serde_json::from_slice(&body).context("the gateway's answer is no JSON")?;
    Ok((released, held))
}

/// Asks the running gateway.
async fn ask(
    checked: &Checked,
    method: hyper::Method,
    path: &str,
) -> anyhow::Result<(hyper::StatusCode, bytes::Bytes)> {
    use http_body_util::{BodyExt, Empty};
    let listen = checked.config.http.listen;
    let asked = async {
        let stream = tokio::net::TcpStream::connect(listen).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let request = hyper::Request::builder().method(method).uri(path);
        let request = request.header("host", listen.to_string()).header(http::COMMAND_HEADER, "1");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    asked.await.with_context(|| format!("no gateway answers at {listen}\nhint: is it running with these settings?"))
}

pub async fn status(checked: &Checked, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (_, body) = ask(checked, hyper::Method::GET, "/status").await?;
    let status: serde_json::Value = serde_json::from_slice(&body).context("the gateway's answer is no JSON")?;
    if json {
        writeln!(out, "{status}")?;
        return Ok(());
    }
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let outbox = &status["outbox"];
    writeln!(out, "gateway    {}", text(&status["gateway"]))?;
    writeln!(out, "uplink     {}", if status["connected"] == true { "connected" } else { "not connected" })?;
    writeln!(
        out,
        "outbox     {}: {} rows not sealed, {} held, {} batches on their way, {} refused",
        text(&outbox["level"]),
        outbox["rows_unsealed"],
        outbox["rows_held"],
        outbox["batches_unsettled"],
        outbox["batches_refused"]
    )?;
    writeln!(out, "{:<24} {:<10} {:<15} {:<22} cause", "meter", "protocol", "state", "last read")?;
    for meter in status["meters"].as_array().into_iter().flatten() {
        let last = meter["last_read_at"].as_str().unwrap_or("never");
        let fields = [&meter["name"], &meter["protocol"], &meter["state"], &meter["cause"]].map(text);
        writeln!(out, "{:<24} {:<10} {:<15} {last:<22} {}", fields[0], fields[1], fields[2], fields[3])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
