//! A fleet of virtual meters on the stage, and the gateway's sections that read them.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::stage::Stage;

const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(20);

/// How many meters of which protocol, all fed by a real household's consumption.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub cad: usize,
    pub dlms_tcp: usize,
    /// On one line.
    pub dlms_hdlc: usize,
    /// One port at most, with a gas meter behind it.
    pub p1: usize,
    /// Meter time passes so many times faster.
    pub speed: u32,
    /// What the profiles hold already at the start.
    pub history_days: f64,
}

impl Fleet {
    pub fn meters(&self) -> usize {
        self.cad + self.dlms_tcp + self.dlms_hdlc + self.p1
    }

    /// Starts the fleet and writes down for the gateway where each meter is.
    pub fn start(&self, stage: &mut Stage) -> anyhow::Result<()> {
        let Self { cad, dlms_tcp, dlms_hdlc, p1, speed, history_days } = *self;
        let folder = stage.folder().to_owned();
        let path = |name: &str| folder.join(name).display().to_string();
        let password = path("meter-password");
        std::fs::write(&password, "demo-reader")?;
        let (rs485, p1_port) = (path("rs485"), path("p1"));
        let profile = "profile = { capture_period_s = 900, columns = [\"import-register\", \"import-interval\"] }";
        let groups = [
            (cad, "protocol = \"cad\"\nsource = \"uci\"\ninterval_ms = 1000\n".to_owned()),
            (
                dlms_tcp,
                format!(
                    "protocol = \"dlms-tcp\"\nsource = \"uci\"\nlisten = \"127.0.0.1:0\"\npassword_file = \"{password}\"\n{profile}\n"
                ),
            ),
            (
                dlms_hdlc,
                format!(
                    "protocol = \"dlms-hdlc\"\nsource = \"uci\"\nline = \"pty\"\npath = \"{rs485}\"\npassword_file = \"{password}\"\n{profile}\n"
                ),
            ),
            (p1, format!("protocol = \"p1\"\nline = \"pty\"\npath = \"{p1_port}\"\ndsmr = \"5.0\"\ngas = true\n")),
        ];
        let groups = groups.iter().filter(|(count, _)| *count > 0);
        let groups: Vec<String> =
            groups.map(|(count, group)| format!("[[meters]]\ncount = {count}\n{group}")).collect();
        let fleet = format!(
            "seed = 1\nspeed = {speed}.0\nhistory_days = {history_days:?}\ntruth = \"{}\"\n[mqtt]\nbroker = \"127.0.0.1:{}\"\n{}",
            stage.truth().display(),
            stage.broker_port(),
            groups.concat(),
        );
        let config = path("fleet.toml");
        std::fs::write(&config, fleet)?;
        stage.start_simulator(&["fleet", "--config", &config, "--json"])?;
        let mut toml = Vec::new();
        if cad > 0 {
            toml.push(format!("[[feed]]\nname = \"cad\"\nport = {}\ncadence_s = {speed}\n", stage.broker_port()));
        }
        if dlms_hdlc > 0 {
            toml.push(format!("[[line]]\nname = \"rs485\"\nserial = \"{rs485}\"\n"));
        }
        if p1 > 0 {
            toml.push(format!(
                "[[port]]\nname = \"p1\"\nserial_port = \"{p1_port}\"\nevery_s = 1\nregisters_every_s = 1\n"
            ));
        }
        for _ in 0..self.meters() {
            let endpoint = stage.simulator_line(ENDPOINT_TIMEOUT)?;
            toml.push(meter_toml(&endpoint, &password).with_context(|| format!("no endpoint: {endpoint}"))?);
        }
        stage.meters_toml = toml.concat();
        Ok(())
    }
}

/// The gateway's sections for one DLMS meter; nothing for the others, which push.
fn meter_toml(endpoint: &Value, password: &str) -> Option<String> {
    let meter = endpoint["meter"].as_str()?;
    let name = meter.replace(':', "-");
    let (line, protocol, place) = match endpoint["protocol"].as_str()? {
        "dlms-tcp" => {
            let line = format!("[[line]]\nname = \"{name}\"\ntcp = \"{}\"\n", endpoint["address"].as_str()?);
            (line, "dlms-wrapper", format!("line = \"{name}\"\nserver = {}\n", endpoint["wport"].as_u64()?))
        }
        "dlms-hdlc" => {
            let (server, physical) = (endpoint["logical_device"].as_u64()?, endpoint["hdlc_address"].as_u64()?);
            (String::new(), "dlms-hdlc", format!("line = \"rs485\"\nserver = {server}\nphysical = {physical}\n"))
        }
        _ => return Some(String::new()),
    };
    Some(format!(
        "{line}[[meter]]\nname = \"{name}\"\nserial = \"{meter}\"\nprotocol = \"{protocol}\"\n{place}client = {}\n\
         password_file = \"{password}\"\nclock_check = \"off\"\n[[meter.read]]\nsource = \"profile\"\nprofile = \"1-0:99.1.0\"\n\
         every_s = 2\nkinds = {{ \"1-0:1.29.0\" = \"interval\" }}\n[[meter.read]]\nsource = \"profile\"\n\
         profile = \"1-0:99.2.0\"\nevery_s = 5\nkind = \"billing\"\n",
        endpoint["client"].as_u64()?,
    ))
}
