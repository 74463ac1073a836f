//! What the commands other than `run` do.

mod read;

pub use read::read;

use std::io::Write;

use anyhow::Context;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Checked;
use crate::outbox::{Outbox, OutboxSettings, Resubmitted};
use crate::run;

fn open(checked: &Checked) -> anyhow::Result<Outbox> {
    let path = run::outbox_path(checked);
    anyhow::ensure!(
        path.exists(),
        "there is no outbox at {}\nhint: the gateway has not run with these settings",
        path.display()
    );
    let settings: OutboxSettings = run::outbox_settings(checked);
    Ok(Outbox::open(&path, settings, Box::new(run::random_u64))
        .with_context(|| format!("cannot open {}", path.display()))?
        .0)
}

pub fn inspect(checked: &Checked, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let outbox = open(checked)?;
    let (usage, unsettled, refused) = (outbox.usage()?, outbox.unsettled()?, outbox.refused()?);
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
        writeln!(out, "{}", serde_json::json!({ "usage": usage, "batches": all }))?;
        return Ok(());
    }
    writeln!(out, "rows not sealed   {}", usage.rows_unsealed)?;
    writeln!(out, "rows held         {}", usage.rows_held)?;
    writeln!(out, "bytes in use      {} of {}", usage.used_bytes, usage.bytes_max)?;
    writeln!(out, "repeated, dropped {}, {}", usage.repeated, usage.dropped)?;
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

/// False when something is damaged.
pub fn verify(checked: &Checked, out: &mut impl Write) -> anyhow::Result<bool> {
    let (batches, rows, damage) = open(checked)?.verify()?;
    for line in &damage {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{batches} batches and {rows} rows checked, {} damaged", damage.len())?;
    Ok(damage.is_empty())
}

pub fn export(checked: &Checked, out: &mut impl Write) -> anyhow::Result<()> {
    open(checked)?.export(|line| writeln!(out, "{line}"))
}

pub fn resubmit(checked: &Checked, batch: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let _lock = run::lock(checked)?;
    let parsed = batch
        .split_once('/')
        .and_then(|(incarnation, seq)| Some((u64::from_str_radix(incarnation, 16).ok()?, seq.parse().ok()?)));
    let Some((incarnation, seq)) = parsed else {
        anyhow::bail!("{batch:?} is no batch\nhint: give it as `outbox inspect` prints it, like 00c0ffee00c0ffee/17");
    };
    let mut outbox = open(checked)?;
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

/// Asks the running gateway.
pub async fn status(checked: &Checked, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    use http_body_util::{BodyExt, Empty};
    let listen = checked.config.http.listen;
    let asked = async {
        let stream = tokio::net::TcpStream::connect(listen).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(connection.await) });
        let request =
            hyper::Request::get("/status").header("host", listen.to_string()).body(Empty::<bytes::Bytes>::new())?;
        anyhow::Ok(sender.send_request(request).await?.into_body().collect().await?.to_bytes())
    };
    let body = asked
        .await
        .with_context(|| format!("no gateway answers at {listen}\nhint: is it running with these settings?"))?;
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
        "outbox     {} rows not sealed, {} batches on their way, {} refused",
        outbox["rows_unsealed"], outbox["batches_unsettled"], outbox["batches_refused"]
    )?;
    writeln!(out, "{:<24} {:<10} {:<15} {:<22} cause", "meter", "protocol", "state", "last read")?;
    for meter in status["meters"].as_array().into_iter().flatten() {
        let last = meter["last_read_at"].as_str().unwrap_or("never");
        let fields = [&meter["name"], &meter["protocol"], &meter["state"], &meter["cause"]].map(text);
        writeln!(out, "{:<24} {:<10} {:<15} {last:<22} {}", fields[0], fields[1], fields[2], fields[3])?;
    }
    Ok(())
}
