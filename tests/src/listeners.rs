//! Meters that go to a listener of the gateway, and the ports that listen.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use demo::stage::Stage;
use serde_json::Value;

use crate::system::{CATCH_UP_TIMEOUT, Fleet, until};

pub const SPEED: &str = "speed = 600.0\nhistory_days = 0.1";
/// Ten entries a second by the wall clock.
const PROFILE: &str = "zone = \"CET\"\nprofile = { capture_period_s = 60, depth_entries = 20000, \
                       columns = [\"import-register\", \"export-register\"], daily_depth_entries = 0, monthly_depth_entries = 0 }\n";
/// Between two looks, in which a meter says what it has.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Ports that are free: TCP, TCP, UDP.
pub fn free_ports() -> anyhow::Result<[u16; 3]> {
    let tcp = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    Ok([tcp[0].local_addr()?.port(), tcp[1].local_addr()?.port(), udp.local_addr()?.port()])
}

/// Settings that name files with these keys, for both sides.
pub fn keys(stage: &Stage, [encryption, authentication]: [u8; 2]) -> anyhow::Result<String> {
    let file = |name: &str, octet: u8| {
        let path = stage.folder().join(name);
        std::fs::write(&path, format!("{octet:02x}").repeat(16))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        anyhow::Ok(format!("{name}_file = \"{}\"\n", path.display()))
    };
    Ok(file("encryption_key", encryption)? + &file("authentication_key", authentication)?)
}

/// The gateway's section; `listens` is `tcp_listen` or `udp_listen`.
pub fn port_toml(name: &str, listens: &str, port: u16, rest: &str) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\nprotocol = \"dlms\"\n{listens} = \"127.0.0.1:{port}\"\n{rest}every_s = 1\n\
         registers_every_s = 60\nclock_check = \"off\"\n"
    )
}

/// The simulator's group of `count` meters that go to a port.
pub fn meters_toml(count: u32, port: u16, rest: &str) -> String {
    format!("[[meters]]\ncount = {count}\nprotocol = \"dlms-notify\"\npush_to = \"127.0.0.1:{port}\"\n{rest}{PROFILE}")
}

/// Readings in the truth, meter by meter.
pub fn told_by_meter(fleet: &Fleet) -> anyhow::Result<Vec<usize>> {
    let truth = fleet.captured()?;
    let of = |endpoint: &Value| truth.keys().filter(|(meter, ..)| endpoint["meter"] == meter.as_str()).count();
    Ok(fleet.endpoints.iter().map(of).collect())
}

/// Once their clocks stand still: until all meters of the fleet have told the same entries, and tell no more.
pub async fn until_pushed(fleet: &Fleet) -> anyhow::Result<()> {
    let mut told = Vec::new();
    let is_pushed = async || {
        let now = told_by_meter(fleet)?;
        let before = std::mem::replace(&mut told, now.clone());
        tokio::time::sleep(LOOK_AFTER).await;
        Ok(now == before && now.iter().all(|count| *count == now[0]))
    };
    until("everything pushed", 2 * CATCH_UP_TIMEOUT, is_pushed).await
}
