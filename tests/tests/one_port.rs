//! Is a serial port on which meters speak different protocols read by turn, and on when its adapter was pulled out and plugged in again?

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use demo::meters::{CALLED_BAUD, LOAD_PROFILE};
use firmware_sim::speak::line::{Listener, Medium};
use tests::system::{
    CATCH_UP_TIMEOUT, Fleet, everything_arrives, metric, stage, start_groups, start_hdlc_over_tcp, until, until_logged,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const LOAD: &str = "speed = 1200.0\nhistory_days = 0.5";

/// An adapter at whose far end all of these meters hang: each hears what the gateway says, and the gateway what any of them does. Its stable
/// name is a link, as udev makes it; each time that it is plugged in the system has another name for it.
struct Adapter(JoinHandle<()>);

impl Adapter {
    async fn plug_in(link: &Path, meters: &[SocketAddr]) -> Self {
        let mut port = Listener::open(&Medium::Pty).await.unwrap();
        drop(std::fs::remove_file(link));
        std::os::unix::fs::symlink(port.address().unwrap(), link).unwrap();
        let (mut heard, mut said) = tokio::io::split(port.accept().await.unwrap());
        let (answers, mut answer) = tokio::sync::mpsc::channel::<Vec<u8>>(64);
        let mut wires = Vec::new();
        for meter in meters {
            let (mut from_meter, to_meter) = TcpStream::connect(meter).await.unwrap().into_split();
            wires.push(to_meter);
            let answers = answers.clone();
            tokio::spawn(async move {
                let mut octets = [0; 1_024];
                while let Ok(count @ 1..) = from_meter.read(&mut octets).await {
                    if answers.send(octets[..count].to_vec()).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self(tokio::spawn(async move {
            // While it lives the port does.
            let _port = port;
            let mut octets = [0; 1_024];
            loop {
                tokio::select! {
                    Ok(count) = heard.read(&mut octets) => {
                        for wire in &mut wires {
                            wire.write_all(&octets[..count]).await.unwrap();
                        }
                    }
                    Some(octets) = answer.recv() => said.write_all(&octets).await.unwrap(),
                    else => return,
                }
            }
        }))
    }

    async fn pull_out(self, link: &Path) {
        self.0.abort();
        drop(self.0.await);
        std::fs::remove_file(link).unwrap();
    }
}

fn address_of(fleet: &Fleet) -> SocketAddr {
    fleet.endpoints[0]["address"].as_str().unwrap().parse().unwrap()
}

/// Control, seen to fail: do not open a port again that was not there (`Running::cannot_open`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_protocols_share_a_port_that_vanishes_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = stage(folder.path()).await.unwrap();
    let hdlc = start_hdlc_over_tcp(&mut stage, 1, 2, LOAD).unwrap();
    let group = format!(
        "[[meters]]\ncount = 1\nfirst_number = 11\nprotocol = \"iec62056-21\"\ninitial_baud = {CALLED_BAUD}\nbaud = 19200\n\
         line = \"tcp\"\nlisten = \"127.0.0.1:0\"\npassword_file = \"{}\"\n{LOAD_PROFILE}",
        hdlc.password
    );
    let called = start_groups(&mut stage, 11, 1, LOAD, &group).unwrap();
    let called = Fleet { password: hdlc.password.clone(), ..called };
    let (link, meters) = (folder.path().join("usb-adapter"), [address_of(&hdlc), address_of(&called)]);
    // Its own section names a line of its own.
    let own = called.toml().unwrap();
    let (_, meter) = own.split_once("[[meter]]").unwrap();
    let name = called.endpoints[0]["meter"].as_str().unwrap().replace(':', "-");
    let meter = meter.replace(&format!("line = \"{name}\""), "line = \"rs485\"");
    let line = format!("[[line]]\nname = \"rs485\"\nserial = \"{}\"\n", link.display());
    stage.meters_toml = format!("{line}{}[[meter]]{meter}", hdlc.toml().unwrap());
    stage.start_cloud().unwrap();
    stage.start_gateway().unwrap();
    let open_errors = async || metric(stage.gateway_address(), "gateway_line_open_errors_total").await;
    for rows in [100, 250] {
        let before = open_errors().await.unwrap();
        let is_missed = async || Ok(open_errors().await? > before);
        until("the port is missed", CATCH_UP_TIMEOUT, is_missed).await.unwrap();
        // Only now: processes inherit the far end of a port.
        let adapter = Adapter::plug_in(&link, &meters).await;
        until_logged(&stage, rows).await.unwrap();
        adapter.pull_out(&link).await;
    }
    let _adapter = Adapter::plug_in(&link, &meters).await;
    stage.freeze_simulator().unwrap();
    let mut all = hdlc.captured().unwrap();
    all.extend(called.captured().unwrap());
    // A meter that was cut off in the middle is asked again after a minute.
    tokio::time::sleep(Duration::from_secs(30)).await;
    everything_arrives(&stage, &all).await.unwrap();
}
