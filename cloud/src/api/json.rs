//! Readings as JSON, and decimals as text.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use jiff::tz::TimeZone;
use protocols::metering::{Kind, Quantity, Reading, Series, UtcMillis};
use serde_json::{Value, json};

use super::params::local;
use crate::store::StoredReading;

/// Consumption is personal data: nobody on the way keeps it.
pub fn answer(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(value)
}

/// Every digit the meter delivered, without an exponent as far as that stays readable.
pub fn decimal(quantity: Quantity) -> String {
    match quantity.scaler {
        1..=30 if quantity.mantissa != 0 => {
            format!("{}{}", quantity.mantissa, "0".repeat(usize::from(quantity.scaler.unsigned_abs())))
        }
        1..=30 => "0".to_owned(),
        _ => quantity.decimal(),
    }
}

/// The nearest double.
pub fn double(quantity: Quantity) -> f64 {
    // A float's own reader rounds once; multiplying by a power of ten would round twice.
    format!("{}e{}", quantity.mantissa, quantity.scaler).parse().unwrap_or(f64::NAN)
}

/// The start of the period that ends at the instant.
pub fn started_at(series: &Series, captured_at: UtcMillis) -> Option<UtcMillis> {
    let period_ms = i64::from(series.period_s) * 1000;
    (series.kind.has_period() && period_ms > 0).then(|| captured_at.plus_ms(-period_ms))
}

pub fn reading_json(reading: &StoredReading, zone: &TimeZone) -> Value {
    let instant = |at: Option<UtcMillis>| at.map(|at| at.to_string());
    let started_at = started_at(&reading.series, reading.captured_at);
    let mut value = json!({
        "captured_at": reading.captured_at.to_string(),
        "captured_at_local": local(reading.captured_at, zone),
        "nth": reading.nth,
        "value": decimal(reading.quantity),
        "value_double": double(reading.quantity),
        "unit": reading.quantity.unit.to_string(),
        "quality": reading.quality.to_string(),
        "read_at": reading.read_at.to_string(),
        "gateway": reading.gateway.as_str(),
    });
    if let Some(started_at) = started_at {
        value["started_at"] = json!(started_at.to_string());
        value["started_at_local"] = json!(local(started_at, zone));
    }
    if reading.series.kind == Kind::Maximum {
        value["occurred_at"] = json!(instant(reading.occurred_at));
    }
    value
}

/// A reading of the log, with its series: what the live stream carries.
pub fn live_json(reading: &Reading) -> Value {
    let series = &reading.series;
    json!({
        "meter": series.meter.as_str(),
        "code": series.code.to_string(),
        "kind": series.kind.name(),
        "period_s": series.period_s,
        "started_at": started_at(series, reading.captured_at).map(|at| at.to_string()),
        "captured_at": reading.captured_at.to_string(),
        "nth": reading.nth,
        "value": decimal(reading.quantity),
        "value_double": double(reading.quantity),
        "unit": reading.quantity.unit.to_string(),
        "quality": reading.quality.to_string(),
        "read_at": reading.read_at.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocols::metering::Unit;

    fn quantity(mantissa: i64, scaler: i8) -> Quantity {
        Quantity::new(mantissa, scaler, Unit::WATT_HOUR)
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (mantissa, scaler, text) in [
            (12340, -3, "12.340"),
            (-5, -1, "-0.5"),
            (12, 3, "12000"),
            (0, 3, "0"),
            (i64::MIN, 0, "-9223372036854775808"),
            (-1, 2, "-100"),
        ] {
            assert_eq!(decimal(quantity(mantissa, scaler)), text);
        }
    }

    proptest! {
        #[test]
        fn decimal_and_double_mean_the_quantity(mantissa: i64, scaler in -30i8..30) {
            let quantity = quantity(mantissa, scaler);
            let text = decimal(quantity);
            prop_assert_eq!(text.parse::<f64>(), Ok(double(quantity)));
            if let Ok(back) = Quantity::from_decimal(&text, 0, Unit::WATT_HOUR) {
                prop_assert!(back.same_value(quantity));
            } else {
                prop_assert!(scaler > 0, "only zeros added by the scaler may be too many for a mantissa");
            }
        }
    }
}
