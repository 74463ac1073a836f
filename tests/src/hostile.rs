//! What the tests of hostile meters share: how much memory a gateway may take, and what it says of itself.

use anyhow::Context;
use demo::stage::{Stage, http_body};

/// Most of it is what any gateway has; a buffer without a bound takes as much in a second.
pub const RSS_KB_MAX: u64 = 150_000;

/// The most memory that the gateway has had at once.
pub fn peak_rss_kb(stage: &Stage) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.gateway_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// One of the gateway's metrics.
pub async fn metric(stage: &Stage, name: &str) -> anyhow::Result<u64> {
    let metrics = http_body(stage.gateway_address(), "/metrics").await?;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("there is no metric {name}"))?.parse()?)
}

/// State and cause of a meter, by its name in the settings or in the inventory.
pub async fn state_of(stage: &Stage, name: &str) -> anyhow::Result<(String, String)> {
    let status = stage.gateway_status().await?;
    let meters = status["meters"].as_array().context("no list of meters")?;
    let meter = meters.iter().find(|meter| meter["name"] == name).with_context(|| format!("no meter {name}"))?;
    let text = |key: &str| meter[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("cause")))
}

/// Lines of the gateway's log that hold all of `words`.
pub fn told(stage: &Stage, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let log = stage.gateway_log()?;
    Ok(log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect())
}
