//! What a gateway's settings say of the simulator's meters.

use serde_json::Value;

/// The rate at which meters of IEC 62056-21 are called: as fast as an optical head can be. As shipped it is 300.
pub const CALLED_BAUD: u32 = 9600;
/// A meter of IEC 62056-21 has one load profile.
const CALLED_READS: &str =
    "[[meter.read]]\nsource = \"profile\"\nevery_s = 3\nkinds = { \"1-0:1.29.0\" = \"interval\" }\n";

/// The gateway's sections for one meter that is asked, from the simulator's line on it; nothing for those that push. A meter on HDLC
/// belongs to the line `rs485`, one of IEC 62056-21 to `loop`; `reads` are the `[[meter.read]]` sections of DLMS.
pub fn meter_toml(endpoint: &Value, password: &str, reads: &str) -> Option<String> {
    let meter = endpoint["meter"].as_str()?;
    let name = meter.replace(':', "-");
    let client = || Some(format!("client = {}\n", endpoint["client"].as_u64()?));
    let (line, protocol, place, reads) = match endpoint["protocol"].as_str()? {
        "dlms-tcp" => {
            let line = format!("[[line]]\nname = \"{name}\"\ntcp = \"{}\"\n", endpoint["address"].as_str()?);
            let place = format!("line = \"{name}\"\n{}server = {}\n", client()?, endpoint["wport"].as_u64()?);
            (line, "dlms-wrapper", place, reads)
        }
        "dlms-hdlc" => {
            let (server, physical) = (endpoint["logical_device"].as_u64()?, endpoint["hdlc_address"].as_u64()?);
            let place = format!("line = \"rs485\"\n{}server = {server}\nphysical = {physical}\n", client()?);
            (String::new(), "dlms-hdlc", place, reads)
        }
        "iec62056-21" => {
            let address = endpoint["device_address"].as_str()?;
            let place = format!("line = \"loop\"\naddress = \"{address}\"\ninitial_baud = {CALLED_BAUD}\n");
            (String::new(), "iec62056-21", place, CALLED_READS)
        }
        _ => return Some(String::new()),
    };
    Some(format!(
        "{line}[[meter]]\nname = \"{name}\"\nserial = \"{meter}\"\nprotocol = \"{protocol}\"\n{place}\
         password_file = \"{password}\"\nclock_check = \"off\"\n{reads}"
    ))
}
