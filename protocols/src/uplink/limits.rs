//! What either side accepts of the other, each with its reason.

/// MQTT packets stay small enough for any broker's default.
pub const REF_BYTES_MAX: usize = 8 * 1024;
/// Status names every incarnation of 400 days; a gateway that restarts ten times a day stays below this.
pub const STATUS_BYTES_MAX: usize = 256 * 1024;
pub const RECEIPT_BYTES_MAX: usize = 64 * 1024;
/// One PUT on a slow mobile link still ends within a minute.
pub const PAYLOAD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bounds what one payload can cost a worker in memory.
pub const UNCOMPRESSED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Real meter data compresses up to some 30:1; beyond this it is a bomb.
pub const RATIO_MAX: u64 = 200;
/// Below this many uncompressed bytes the ratio says nothing: a batch of one constant series compresses without end.
pub const RATIO_FREE_BYTES: u64 = 64 * 1024;
/// Ours nest five deep.
pub const CBOR_DEPTH_MAX: usize = 16;
/// Readings, and likewise events, of one batch.
pub const READINGS_MAX: usize = 50_000;
/// Distinct (meter, UTC day) of one batch: what one batch can cost the store in partitions.
pub const METER_DAYS_MAX: usize = 10_000;
/// Meters of one inventory.
pub const METERS_MAX: usize = 100_000;
/// Series that an inventory expects of one meter.
pub const EXPECTED_OF_METER_MAX: usize = 1_000;
/// And of all its meters together: a few bytes of the message are some 200 in memory each.
pub const EXPECTED_MAX: usize = 200_000;
/// Bytes of one text of an inventory.
pub const INVENTORY_TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of one event's raw value; of one text likewise.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// No meter reading is older than this (2000-01-01T00:00:00Z): an instant before it is a wrong clock.
pub const CAPTURED_AT_MIN: crate::metering::UtcMillis = crate::metering::UtcMillis(946_684_800_000);
/// How far ahead of the cloud's time a reading may be dated.
pub const CAPTURED_AHEAD_MS_MAX: i64 = 12 * 3_600_000;
/// How far after the arrival of its ref a batch may claim to have been sealed: later claims count as this.
pub const SEALED_AHEAD_MS_MAX: i64 = 5 * 60_000;
/// Points of one question for ranges held: 69 days of minutes, 2.8 years of quarter hours.
pub const HELD_POINTS_MAX: u64 = 100_000;
/// Ranges of one answer, the newest: what it does not name is read from the meter again.
pub const HELD_RANGES_MAX: usize = 128;
