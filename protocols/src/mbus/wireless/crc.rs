//! CRC-16 of EN 13757-4: polynomial 3D65, started with 0, complemented.

pub(crate) fn crc16(octets: &[u8]) -> u16 {
    let step = |crc: u16, octet: &u8| {
        (0..8).fold(crc ^ u16::from(*octet) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x3d65 })
    };
    !octets.iter().fold(0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_comes_out() {
        assert_eq!(crc16(b"123456789"), 0xc2b7);
    }
}
