//! OBIS codes as meters of IEC 62056-21 write them.

use protocols::metering::ObisCode;

/// `1.8.0`, `1.8.0*01`, `C.1.0`, `F.F`, `P.01`; in full `1-0:1.8.0*255`.
pub(super) fn address(ObisCode([a, b, c, d, e, f]): ObisCode, is_full: bool) -> String {
    let short = match (c, d) {
        (96, _) => format!("C.{d}.{e}"),
        (97, 97) => "F.F".to_owned(),
        (97, _) => format!("F.{d}"),
        (98, _) => format!("L.{d:02}"),
        (99, _) => format!("P.{d:02}"),
        _ => format!("{c}.{d}.{e}"),
    };
    match (is_full, f) {
        (true, 255) => format!("{a}-{b}:{short}*255"),
        (true, _) => format!("{a}-{b}:{short}*{f:02}"),
        (false, 255) => short,
        (false, _) => format!("{short}*{f:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_short_or_in_full() {
        for (code, short, full) in [
            ("1-0:1.8.0", "1.8.0", "1-0:1.8.0*255"),
            ("1-1:1.8.1*3", "1.8.1*03", "1-1:1.8.1*03"),
            ("0-0:96.1.0", "C.1.0", "0-0:C.1.0*255"),
            ("0-0:97.97.0", "F.F", "0-0:F.F*255"),
            ("1-0:99.1.0", "P.01", "1-0:P.01*255"),
            ("0-0:99.98.0", "P.98", "0-0:P.98*255"),
        ] {
            let code = code.parse().unwrap();
            assert_eq!((&*address(code, false), &*address(code, true)), (short, full));
        }
    }
}
