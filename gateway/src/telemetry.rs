//! Every metric of the gateway, by name, and the log's set-up. Consumption is personal data: no values, no meter ids here.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Prometheus metrics; the help text is the documentation.
macro_rules! metrics {
    ($($name:ident, $kind:literal, $text:literal, $help:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $($name),+ }

        const METRICS: &[(Metric, &str, &str, &str)] = &[$((Metric::$name, $kind, $text, $help)),+];
    };
}

metrics! {
    ReadingsStored, "counter", "gateway_readings_stored_total", "Readings and events stored in the outbox";
    ReadingsRepeated, "counter", "gateway_readings_repeated_total", "Readings that said nothing new and were not stored";
    StoreErrors, "counter", "gateway_store_errors_total", "Stores that the outbox did not take";
    DiskErrors, "counter", "gateway_outbox_disk_errors_total", "Seals and receipts that the disk did not take, or a damaged outbox";
    TelegramsRefused, "counter", "gateway_telegrams_refused_total", "Pushed telegrams of which nothing could be used";
    TelegramsCrcInvalid, "counter", "gateway_telegrams_crc_invalid_total", "Telegrams at ports refused since their CRC was wrong or missing";
    TelegramsUnverified, "counter", "gateway_telegrams_unverified_total", "Encrypted telegrams refused since they are not what their meter sent, or less protected than set";
    TelegramsReplayed, "counter", "gateway_telegrams_replayed_total", "Encrypted telegrams refused since their invocation counter has not risen";
    PushesConfirmed, "counter", "gateway_pushes_confirmed_total", "Pushes of meters that were told that they are stored";
    PushesUnconfirmed, "counter", "gateway_pushes_unconfirmed_total", "Pushes that are stored and whose meters could not be told, for want of a key, a counter or the time, or as nobody can verify them";
    PushesRepeated, "counter", "gateway_pushes_repeated_total", "Encrypted pushes that came again, octet for octet, since their meter had not heard that they are stored";
    FieldProblems, "counter", "gateway_field_problems_total", "Values of telegrams that could not be used";
    ReadsDone, "counter", "gateway_meter_reads_total", "Sessions that read what was due";
    ReadsFailed, "counter", "gateway_meter_reads_failed_total", "Sessions that ended with an error";
    BackfillChunks, "counter", "gateway_backfill_chunks_total", "Chunks of missing profile ranges that were read";
    HeldAnswers, "counter", "gateway_held_answers_total", "Answers of the cloud which part of a profile it holds";
    HeldErrors, "counter", "gateway_held_errors_total", "Such questions that were not answered";
    HeldReadsStopped, "counter", "gateway_held_reads_stopped_total", "Reads left out since what is held of unexpected meters fills its part of the outbox";
    OptionalSkipped, "counter", "gateway_optional_reads_skipped_total", "Values left out while the outbox was nearly full";
    LineBusyMs, "counter", "gateway_line_busy_milliseconds_total", "Time for which meters had their lines, all lines together: of one line, 1,000 a second are all of it";
    LinePauses, "counter", "gateway_line_pauses_total", "Pauses of 10 s in which a line asked no meter since the outbox was full";
    ObjectsRefused, "counter", "gateway_objects_refused_total", "Objects that meters refused";
    ClocksSet, "counter", "gateway_clocks_set_total", "Clocks of meters that were set";
    ClocksNotSet, "counter", "gateway_clocks_not_set_total", "Clocks of meters that were to be set and were not: refused, or cut short";
    ClocksBeyond, "counter", "gateway_clocks_beyond_total", "Sessions with a meter whose clock is off by more than is set without a person";
    ProtectionErrors, "counter", "gateway_protection_errors_total", "Answers of meters that were not accepted: forged, replayed, of somebody else, protected too little";
    ConnectionsDropped, "counter", "gateway_connections_dropped_total", "Connections at listeners that were hung up on: to make room for others, or because a frame did not end";
    LineOpenErrors, "counter", "gateway_line_open_errors_total", "Lines and ports that could not be opened";
    LinesLost, "counter", "gateway_lines_lost_total", "Lines and ports that failed while open";
    TelegramsRead, "counter", "gateway_telegrams_total", "Telegrams taken at ports: P1, SML, D0, DLMS, wireless M-Bus";
    TelegramsRepeated, "counter", "gateway_telegrams_repeated_total", "Telegrams of wireless M-Bus that were heard before and not stored again";
    TelegramsIgnored, "counter", "gateway_telegrams_ignored_total", "Telegrams of wireless M-Bus that are of meters without a section here, or hold no values";
    PortNoise, "counter", "gateway_port_noise_total", "Pieces between telegrams at ports that are none, damaged frames of the radio among them";
    BatchesSealed, "counter", "gateway_batches_sealed_total", "Batches sealed";
    BatchesApplied, "counter", "gateway_batches_applied_total", "Batches receipted as applied";
    BatchesRefused, "counter", "gateway_batches_refused_total", "Batches receipted as refused";
    BatchesLater, "counter", "gateway_batches_later_total", "Answers of the cloud that it cannot judge a batch yet; it is kept and sent again";
    BatchesForgotten, "counter", "gateway_batches_forgotten_total", "Refused batches that had to make room; the cloud's quarantine has them";
    BatchesAbandoned, "counter", "gateway_batches_abandoned_total", "Batches whose payload was damaged on the disk";
    BatchesResent, "counter", "gateway_batches_resent_total", "Uploads that the cloud asked for again";
    UploadsFailed, "counter", "gateway_uploads_failed_total", "Uploads that failed and will be repeated";
    RefsPublished, "counter", "gateway_refs_published_total", "References published, repetitions included";
    ReceiptsIgnored, "counter", "gateway_receipts_ignored_total", "Receipts that were retained, malformed or not for us";
    MqttConnects, "counter", "gateway_mqtt_connects_total", "Connections to the uplink broker";
    ActorDeaths, "counter", "gateway_actor_deaths_total", "Actors that ended and were started again";
    OutboxRowsUnsealed, "gauge", "gateway_outbox_rows_unsealed", "Rows stored and not sealed yet";
    OutboxRowsHeld, "gauge", "gateway_outbox_rows_held", "Rows that wait for a person or for a trusted clock";
    OutboxRowsDamaged, "gauge", "gateway_outbox_rows_damaged", "Rows that are not what was stored; they are kept and never sent";
    OutboxSalvaged, "gauge", "gateway_outbox_salvaged", "How often a damaged outbox was salvaged since the start";
    OutboxBatchesUnsettled, "gauge", "gateway_outbox_batches_unsettled", "Batches sealed and not receipted";
    OutboxBatchesRefused, "gauge", "gateway_outbox_batches_refused", "Batches that the cloud refused, kept for inspection";
    OutboxUsedBytes, "gauge", "gateway_outbox_used_bytes", "Bytes of the outbox in use";
    OutboxLevel, "gauge", "gateway_outbox_level", "0 while there is room, 1 while optional reads stop, 2 while all reading stops";
    OutboxDropped, "gauge", "gateway_outbox_dropped_readings", "Readings dropped because the outbox was full";
    OutboxOldestAge, "gauge", "gateway_outbox_oldest_age_seconds", "Age of the oldest reading that the cloud has not receipted";
    UplinkConnected, "gauge", "gateway_uplink_connected", "1 while the uplink broker is connected";
    CloudClockOffset, "gauge", "gateway_cloud_clock_offset_ms", "Cloud clock minus gateway clock";
    ClockUntrusted, "gauge", "gateway_clock_untrusted", "1 while the system clock is more than 5 min from the cloud's time";
}

/// Counters and gauges; clones share them.
#[derive(Clone)]
pub struct Metrics {
    values: Arc<[AtomicI64]>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { values: METRICS.iter().map(|_| AtomicI64::new(0)).collect() }
    }
}

impl Metrics {
    pub fn add(&self, metric: Metric, count: u64) {
        self.values[metric as usize].fetch_add(count as i64, Ordering::Relaxed);
    }

    pub fn set(&self, metric: Metric, value: i64) {
        self.values[metric as usize].store(value, Ordering::Relaxed);
    }

    pub fn value(&self, metric: Metric) -> i64 {
        self.values[metric as usize].load(Ordering::Relaxed)
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (metric, kind, name, help) in METRICS {
            let value = self.value(*metric);
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("a String takes every write");
        }
        text
    }
}

/// Logs go to stderr; `RUST_LOG` decides what, `info` when it says nothing.
pub fn set_up_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second call, in tests, changes nothing.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init());
}
