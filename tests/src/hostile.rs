//! What the tests of hostile meters share: where such meters listen, how much memory a gateway may take, and what it says of itself.

use std::net::SocketAddr;

use anyhow::Context;
use demo::stage::Stage;
use tokio::net::{TcpListener, TcpStream};

/// Most of it is what any gateway has; a buffer without a bound takes as much in a second.
pub const RSS_KB_MAX: u64 = 150_000;

/// The most memory that the gateway has had at once.
pub fn peak_rss_kb(stage: &Stage) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.gateway_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Listens where a gateway takes it for meters, and serves each that connects. Either side hanging up ends it.
pub async fn listen<Served>(serve: impl Fn(TcpStream) -> Served + Send + 'static) -> anyhow::Result<SocketAddr>
where
    Served: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let served = serve(client);
            tokio::spawn(async move { drop(served.await) });
        }
    });
    Ok(address)
}

/// State and cause of a meter, by its name in the settings or in the inventory; both empty while it is not in the status, as just
/// after a start.
pub async fn state_of(stage: &Stage, name: &str) -> anyhow::Result<(String, String)> {
    let status = stage.gateway_status().await?;
    let meters = status["meters"].as_array().context("no list of meters")?;
    let meter = meters.iter().find(|meter| meter["name"] == name);
    let text = |key: &str| meter.and_then(|meter| meter[key].as_str()).unwrap_or_default().to_owned();
    Ok((text("state"), text("cause")))
}

/// Lines of the gateway's log that hold all of `words`.
pub fn told(stage: &Stage, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let log = stage.gateway_log()?;
    Ok(log.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect())
}
