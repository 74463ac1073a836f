//! What a gateway's settings say of the simulator's meters.

use serde_json::Value;

/// The gateway's sections for one meter that is asked, from the simulator's line on it; nothing for those that push. A meter on
/// HDLC belongs to the line `rs485`; `reads` are its `[[meter.read]]` sections.
pub fn meter_toml(endpoint: &Value, password: &str, reads: &str) -> Option<String> {
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
         password_file = \"{password}\"\nclock_check = \"off\"\n{reads}",
        endpoint["client"].as_u64()?,
    ))
}
