//! What a gateway's settings say of the simulator's meters, and a fleet of those that there is one of each.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The rate at which meters of IEC 62056-21 are called: as fast as an optical head can be. As shipped it is 300.
pub const CALLED_BAUD: u32 = 9600;
const MBUS_BAUD: u32 = 9600;
/// A load profile with a register and an interval, and no other: all that such a meter captures is read.
pub const LOAD_PROFILE: &str = "profile = { capture_period_s = 900, columns = [\"import-register\", \"import-interval\"], \
                                daily_depth_entries = 0, monthly_depth_entries = 0 }\n";
const CALLED_READS: &str =
    "[[meter.read]]\nsource = \"profile\"\nevery_s = 3\nkinds = { \"1-0:1.29.0\" = \"interval\" }\n";
const POLLED_READS: &str = "[[meter.read]]\nsource = \"readout\"\nevery_s = 3\n";

/// Meters of [`each`].
pub const EACH: usize = 9;
/// For people.
pub const EACH_NAMES: &str = "one of SML, D0, IEC 62056-21, DLMS with high level security, DLMS pushes and P1, both ciphered, two of M-Bus, and one by radio";

/// The simulator's groups of one meter for each protocol and protection; each on a pty in `folder`, the secured one behind TCP and
/// with this `profile`, and the receiver of wireless M-Bus behind TCP.
pub fn each(folder: &Path, password: &str, profile: &str) -> String {
    let pty = |name: &str| format!("line = \"pty\"\npath = \"{}\"\n", folder.join(name).display());
    let groups = [
        format!("protocol = \"sml\"\n{}", pty("sml")),
        // A reader stamps by arrival: two within a second would be thinned out.
        format!("protocol = \"d0\"\ninterval_ms = 3000\n{}", pty("d0")),
        format!(
            "protocol = \"iec62056-21\"\ninitial_baud = {CALLED_BAUD}\nbaud = 19200\npassword_file = \"{password}\"\n{}{LOAD_PROFILE}",
            pty("loop")
        ),
        format!("protocol = \"dlms-tcp\"\n{profile}[meters.security]\n"),
        format!("protocol = \"dlms-push\"\nframing = \"mbus\"\nencrypted = true\n{}", pty("push")),
        format!("protocol = \"p1\"\nencrypted = true\n{}", pty("ciphered")),
        format!("protocol = \"mbus\"\nmedium = \"heat\"\nencrypted = true\nbaud = {MBUS_BAUD}\n{}", pty("heat")),
        format!("protocol = \"mbus\"\nmedium = \"water\"\nbaud = {MBUS_BAUD}\n{}", pty("water")),
        // A reader stamps by arrival, too.
        "protocol = \"wmbus\"\nmedium = \"warm-water\"\nencrypted = true\ninterval_ms = 3000\n".to_owned(),
    ];
    groups.map(|group| format!("[[meters]]\ncount = 1\n{group}")).concat()
}

/// The gateway's sections for one meter that is not a CAD, from the simulator's line on it. A meter on HDLC belongs to the line `rs485`,
/// which is somebody else's to write; others have a line or port of their own. `reads` are the `[[meter.read]]` sections of DLMS. Keys
/// go into files beside the password.
pub fn meter_toml(endpoint: &Value, password: &str, reads: &str) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let missing = || format!("no endpoint: {endpoint}");
    let meter = text(&endpoint["meter"]).with_context(missing)?;
    let name = meter.replace(':', "-");
    let folder = Path::new(password).parent().unwrap_or(Path::new(""));
    let key = |setting: &str, key: &Value| match key.as_str() {
        Some(digits) => key_file(folder, &name, setting, digits),
        None => Ok(String::new()),
    };
    let medium = |of_serial: &str| match (text(&endpoint["address"]), text(&endpoint["path"])) {
        (Some(address), _) => Ok(format!("tcp = \"{address}\"\n")),
        (None, Some(path)) => Ok(format!("{of_serial} = \"{path}\"\n")),
        (None, None) => Err(anyhow::anyhow!(missing())),
    };
    let number = |key: &str| endpoint[key].as_u64().with_context(missing);
    let line = |settings: &str| anyhow::Ok(format!("[[line]]\nname = \"{name}\"\n{}{settings}", medium("serial")?));
    let section = |line: String, protocol: &str, place: &str, serial: &str, reads: &str| {
        format!(
            "{line}[[meter]]\nname = \"{name}\"\nserial = \"{serial}\"\nprotocol = \"{protocol}\"\n{place}clock_check = \"off\"\n{reads}"
        )
    };
    let port = |protocol: &str, settings: &str| {
        let medium = medium("serial_port")?;
        anyhow::Ok(format!(
            "[[port]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n{medium}{settings}every_s = 1\nregisters_every_s = 1\n\
             clock_check = \"off\"\n"
        ))
    };
    let own_keys = || {
        let encryption = key("encryption_key_file", &endpoint["encryption_key"])?;
        anyhow::Ok(encryption + &key("authentication_key_file", &endpoint["authentication_key"])?)
    };
    match endpoint["protocol"].as_str().with_context(missing)? {
        "dlms-tcp" => {
            let proof = proof(&endpoint["security"], password, key).with_context(missing)?;
            let (client, server) = (number("client")?, number("wport")?);
            let place = format!("line = \"{name}\"\nclient = {client}\nserver = {server}\n{proof}");
            Ok(section(line("")?, "dlms-wrapper", &place, &meter, reads))
        }
        "dlms-hdlc" => {
            let (client, server, physical) = (number("client")?, number("logical_device")?, number("hdlc_address")?);
            let place = format!(
                "line = \"rs485\"\nclient = {client}\nserver = {server}\nphysical = {physical}\npassword_file = \"{password}\"\n"
            );
            Ok(section(String::new(), "dlms-hdlc", &place, &meter, reads))
        }
        "iec62056-21" => {
            let address = text(&endpoint["device_address"]).with_context(missing)?;
            let place = format!(
                "line = \"{name}\"\naddress = \"{address}\"\ninitial_baud = {CALLED_BAUD}\npassword_file = \"{password}\"\n"
            );
            Ok(section(line("")?, "iec62056-21", &place, &meter, CALLED_READS))
        }
        "mbus" => {
            let (address, serial) = (number("primary_address")?, text(&endpoint["identity"]).with_context(missing)?);
            let place = format!("line = \"{name}\"\naddress = \"{address}\"\n{}", own_keys()?);
            let line = line(&format!("baud = {}\nparity = \"even\"\n", number("baud")?))?;
            Ok(section(line, "mbus", &place, &serial, POLLED_READS))
        }
        "wmbus" => Ok(heard_by_radio(endpoint, &name, &medium("serial_port")?, &own_keys()?)),
        "dlms-push" => port("dlms", &format!("framing = \"mbus\"\n{}", own_keys()?)),
        protocol @ ("p1" | "sml" | "d0") => port(protocol, &own_keys()?),
        _ => Ok(String::new()),
    }
}

/// A receiver, and the meter that it hears.
fn heard_by_radio(endpoint: &Value, name: &str, medium: &str, keys: &str) -> String {
    let (address, receiver) = (&endpoint["identity"], &endpoint["receiver"]);
    format!(
        "[[port]]\nname = \"{name}-radio\"\nprotocol = \"wmbus\"\nreceiver = {receiver}\n{medium}every_s = 1\nregisters_every_s = 1\n\
         [[meter]]\nname = \"{name}\"\nprotocol = \"wmbus\"\nport = \"{name}-radio\"\naddress = {address}\n{keys}clock_check = \"off\"\n"
    )
}

/// Who reads, by the password, or by the keys of a secured meter.
fn proof(
    security: &Value,
    password: &str,
    key: impl Fn(&str, &Value) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    if security.is_null() {
        return Ok(format!("password_file = \"{password}\"\n"));
    }
    let text = |key: &str| security[key].as_str().with_context(|| format!("no {key}"));
    let mut lines = format!(
        "authentication = \"{}\"\nsecurity_suite = {}\nmeter_title = \"{}\"\n",
        text("authentication")?,
        security["security_suite"],
        text("meter_title")?,
    );
    for setting in ["ciphering", "signing"] {
        lines += &security[setting].as_str().map_or(String::new(), |value| format!("{setting} = \"{value}\"\n"));
    }
    for told in [
        "encryption_key",
        "authentication_key",
        "key_encrypting_key",
        "signing_key",
        "meter_public_key",
        "agreement_key",
        "meter_agreement_key",
    ] {
        lines += &key(&format!("{told}_file"), &security[told])?;
    }
    Ok(lines)
}

/// Writes a key or a password where nobody else reads it, and answers the setting that names it.
pub fn key_file(folder: &Path, meter: &str, setting: &str, digits: &str) -> anyhow::Result<String> {
    let path = folder.join(format!("{meter}.{setting}"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(digits.as_bytes())?;
    Ok(format!("{setting} = \"{}\"\n", path.display()))
}
