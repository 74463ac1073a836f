//! Who a meter is: its server id as people write it.

use crate::metering::MeterId;

/// The identity of a meter by its server id and, where that alone names no maker, by the maker that the value list names.
///
/// | server id | becomes |
/// | --- | --- |
/// | DIN 43863-5, `0a 01 44 5a 47 00 03 9e 20 54` | as on its label: `1DZG0060694612` |
/// | text, `30 32 32 38 30 38 31 36`, maker EMH | `EMH:02280816` |
/// | anything else, as of EDL21 meters and of M-Bus | hexadecimal digits, as on its label: `06454D4801027156CD45` |
///
/// `None` when it is empty or nothing but zeros.
pub fn meter_id(server_id: &[u8], maker: Option<&[u8]>) -> Option<MeterId> {
    if server_id.iter().all(|&octet| octet == 0) {
        return None;
    }
    if let Some(number) = identification_number(server_id) {
        return MeterId::from_device(number.as_bytes());
    }
    if server_id.iter().all(u8::is_ascii_graphic) {
        let maker = maker.map(<[u8]>::trim_ascii).filter(|maker| !maker.is_empty());
        return MeterId::from_device(&match maker {
            Some(maker) => [maker, b":", server_id].concat(),
            None => server_id.to_vec(),
        });
    }
    MeterId::from_device(hexadecimal(server_id).as_bytes())
}

/// The identification number of DIN 43863-5: medium, maker, production block, eight digits.
fn identification_number(server_id: &[u8]) -> Option<String> {
    let &[0x09 | 0x0a, medium @ 0..=0x0f, a, b, c, block, s1, s2, s3, s4] = server_id else { return None };
    let serial = u32::from_be_bytes([s1, s2, s3, s4]);
    let is_sound = [a, b, c].iter().all(u8::is_ascii_uppercase) && serial <= 99_999_999;
    let [a, b, c] = [a, b, c].map(char::from);
    is_sound.then(|| format!("{medium:X}{a}{b}{c}{block:02X}{serial:08}"))
}

/// Upper-case digits.
pub(crate) fn hexadecimal(octets: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |number: u8| DIGITS.get(usize::from(number)).copied().unwrap_or_default();
    octets.iter().flat_map(|octet| [octet >> 4, octet & 0x0f]).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(server_id: &[u8], maker: Option<&[u8]>) -> Option<String> {
        meter_id(server_id, maker).map(|meter| meter.to_string())
    }

    #[test]
    fn server_ids_are_written_as_on_the_label() {
        let dzg = [0x0a, 0x01, b'D', b'Z', b'G', 0x00, 0x03, 0x9e, 0x20, 0x54];
        assert_eq!(id(&dzg, Some(b"DZG")).as_deref(), Some("1DZG0060694612"));
        // EasyMeter prints this and sends it as text under 1-0:0.0.0: the block is hexadecimal, the serial number is not.
        let easymeter = [0x09, 0x01, b'E', b'S', b'Y', 0x11, 0x03, 0xb5, 0x99, 0xa5];
        assert_eq!(id(&easymeter, None).as_deref(), Some("1ESY1162232997"));
        let edl21 = [0x06, b'E', b'M', b'H', 0x01, 0x02, 0x71, 0x56, 0xcd, 0x45];
        assert_eq!(id(&edl21, Some(b"EMH")).as_deref(), Some("06454D4801027156CD45"));
        let mbus = [0x01, 0xa8, 0x15, 0x98, 0x64, 0x80, 0x02, 0x01, 0x02];
        assert_eq!(id(&mbus, None).as_deref(), Some("01A815986480020102"));
    }

    #[test]
    fn a_text_is_preceded_by_its_maker() {
        assert_eq!(id(b"1001185", Some(b"HAGER")).as_deref(), Some("HAGER:1001185"));
        assert_eq!(id(b"1001185", Some(b" ")).as_deref(), Some("1001185"));
        assert_eq!(id(b"1001185", None).as_deref(), Some("1001185"));
    }

    #[test]
    fn what_is_no_identification_number_is_written_as_octets() {
        let mut serial_too_long = [0x0a, 0x01, b'D', b'Z', b'G', 0x00, 0x05, 0xf5, 0xe1, 0x00];
        assert_eq!(id(&serial_too_long, None).as_deref(), Some("0A01445A470005F5E100"));
        serial_too_long[9] = 0xff;
        serial_too_long[8] = 0xe0;
        assert_eq!(id(&serial_too_long, None).as_deref(), Some("1DZG0099999999"));
        let no_letters = [0x0a, 0x01, b'D', b'z', b'G', 0x00, 0x00, 0x00, 0x00, 0x01];
        assert_eq!(id(&no_letters, None).as_deref(), Some("0A01447A470000000001"));
    }

    #[test]
    fn nothing_and_zeros_are_nobody() {
        assert_eq!(id(&[], Some(b"EMH")), None);
        assert_eq!(id(&[0; 10], Some(b"EMH")), None);
    }
}
