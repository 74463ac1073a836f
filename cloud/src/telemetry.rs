//! Every metric's name, and the logging set-up. Values are counted here and nowhere else; names never carry an id.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Declares each metric once: variant, kind, name, labels, what it says.
macro_rules! metrics {
    ($($variant:ident, $kind:ident, $name:literal, $labels:literal, $help:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $($variant),+ }

        impl Metric {
            const ALL: &[Self] = &[$(Self::$variant),+];

            const fn describe(self) -> (Kind, &'static str, &'static str, &'static str) {
                match self { $(Self::$variant => (Kind::$kind, $name, $labels, $help)),+ }
            }
        }
    };
}

// Metrics of one name stand together: the text format wants that.
metrics! {
    MissingWorker, Gauge, "cloud_part_missing", "part=\"worker\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingStore, Gauge, "cloud_part_missing", "part=\"store\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingLog, Gauge, "cloud_part_missing", "part=\"log\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingRegistry, Gauge, "cloud_part_missing", "part=\"registry\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingLanding, Gauge, "cloud_part_missing", "part=\"landing\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingIntake, Gauge, "cloud_part_missing", "part=\"intake\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingReceipts, Gauge, "cloud_part_missing", "part=\"receipts\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    MissingArchive, Gauge, "cloud_part_missing", "part=\"archive\"", "1 while the part is missing: it has not said yet that it works, or what it works with is away.";
    OpenedNew, Counter, "cloud_openings_total", "found=\"nothing\"", "What was found when log and store were opened.";
    OpenedLogSetBack, Counter, "cloud_openings_total", "found=\"log_set_back\"", "What was found when log and store were opened.";
    OpenedLogMissing, Counter, "cloud_openings_total", "found=\"log_missing\"", "What was found when log and store were opened.";
    OpenedLogDamaged, Counter, "cloud_openings_total", "found=\"log_damaged\"", "What was found when log and store were opened.";
    OpenedStoreSetAside, Counter, "cloud_openings_total", "found=\"store_set_aside\"", "What was found when log and store were opened.";
    OpenedStoreBehind, Counter, "cloud_openings_total", "found=\"store_behind\"", "What was found when log and store were opened.";
    StoreRebuilt, Counter, "cloud_store_rebuilds_total", "outcome=\"done\"", "Rebuilds of the store from archive and log.";
    StoreRebuiltInPart, Counter, "cloud_store_rebuilds_total", "outcome=\"in_part\"", "Rebuilds of the store from archive and log.";
    StoreNotRebuilt, Counter, "cloud_store_rebuilds_total", "outcome=\"failed\"", "Rebuilds of the store from archive and log.";
    IntakeAppended, Counter, "cloud_intake_messages_total", "outcome=\"appended\"", "Refs and statuses that arrived by MQTT.";
    IntakeForeign, Counter, "cloud_intake_messages_total", "outcome=\"foreign\"", "Refs and statuses that arrived by MQTT.";
    IntakeMalformed, Counter, "cloud_intake_messages_total", "outcome=\"malformed\"", "Refs and statuses that arrived by MQTT.";
    IntakeOversize, Counter, "cloud_intake_messages_total", "outcome=\"oversize\"", "Refs and statuses that arrived by MQTT.";
    IntakeGivenUp, Counter, "cloud_intake_messages_total", "outcome=\"given_up\"", "Refs and statuses that arrived by MQTT.";
    RefsApplied, Counter, "cloud_refs_total", "outcome=\"applied\"", "Refs settled, by what became of them.";
    RefsDuplicate, Counter, "cloud_refs_total", "outcome=\"duplicate\"", "Refs settled, by what became of them.";
    RefsRefused, Counter, "cloud_refs_total", "outcome=\"refused\"", "Refs settled, by what became of them.";
    RefsResend, Counter, "cloud_refs_total", "outcome=\"resend\"", "Refs settled, by what became of them.";
    RefsLater, Counter, "cloud_refs_total", "outcome=\"later\"", "Refs settled, by what became of them.";
    RefsStale, Counter, "cloud_refs_total", "outcome=\"stale\"", "Refs settled, by what became of them.";
    RefsUnreadable, Counter, "cloud_refs_total", "outcome=\"unreadable\"", "Refs settled, by what became of them.";
    Statuses, Counter, "cloud_statuses_total", "", "Gateway statuses taken over.";
    SealedAhead, Counter, "cloud_batches_sealed_ahead_total", "", "Batches of gateways whose clock is ahead: they count as sealed when they came.";
    GatewayTwins, Counter, "cloud_gateway_twins_total", "", "Statuses which show that two gateways use one id.";
    RefsNewer, Counter, "cloud_newer_messages_total", "message=\"ref\"", "Messages of a version that only a newer cloud reads.";
    StatusesNewer, Counter, "cloud_newer_messages_total", "message=\"status\"", "Messages of a version that only a newer cloud reads.";
    RefsWaiting, Gauge, "cloud_refs_waiting", "", "Records of refs behind the committed positions: not settled yet, in all partitions, whoever has them.";
    RefsInFlight, Gauge, "cloud_refs_in_flight", "", "Records of refs that this worker has taken and not settled.";
    PartitionsHeld, Gauge, "cloud_worker_partitions", "", "Partitions of refs that this worker has.";
    BatchesQuarantined, Counter, "cloud_batches_quarantined_total", "", "Batches that were refused for good, and set aside.";
    QuarantineBatches, Gauge, "cloud_quarantine_batches", "", "Refused uploads that lie in quarantine, as of the last sweep of the landing area.";
    BatchesRecovered, Counter, "cloud_batches_recovered_total", "", "Batches the ledger had forgotten, applied from the landing area.";
    BatchesLost, Counter, "cloud_batches_lost_total", "", "Batches the ledger had forgotten and the landing area does not have.";
    ReadingsCommitted, Counter, "cloud_readings_committed_total", "", "Readings committed to the log.";
    EventsCommitted, Counter, "cloud_events_committed_total", "", "Events committed to the log.";
    StoreWrite, Histogram, "cloud_sink_write_seconds", "sink=\"store\"", "Time of one successful write.";
    LogWrite, Histogram, "cloud_sink_write_seconds", "sink=\"log\"", "Time of one successful write.";
    StoreRetries, Counter, "cloud_sink_retries_total", "sink=\"store\"", "Calls repeated because the sink was unavailable.";
    LogRetries, Counter, "cloud_sink_retries_total", "sink=\"log\"", "Calls repeated because the sink was unavailable.";
    LandingRetries, Counter, "cloud_sink_retries_total", "sink=\"landing\"", "Calls repeated because the sink was unavailable.";
    FencedCommits, Counter, "cloud_worker_fencings_total", "what=\"commit\"", "Work of this instance that was cut off: a commit refused since another owner has the partition, a partition taken away with records in hand, a producer fenced by Kafka.";
    FencedRecords, Counter, "cloud_worker_fencings_total", "what=\"records\"", "Work of this instance that was cut off: a commit refused since another owner has the partition, a partition taken away with records in hand, a producer fenced by Kafka.";
    FencedProducers, Counter, "cloud_worker_fencings_total", "what=\"producer\"", "Work of this instance that was cut off: a commit refused since another owner has the partition, a partition taken away with records in hand, a producer fenced by Kafka.";
    Resyncs, Counter, "cloud_worker_resyncs_total", "", "Times the worker re-read its state after a doubtful commit.";
    DelaySinceAppend, Histogram, "cloud_receipt_delay_seconds", "since=\"append\"", "Until the receipt of an applied batch was ready for the broker: since its ref was appended to the log, and since the gateway sealed it by its own clock.";
    DelaySinceSeal, Histogram, "cloud_receipt_delay_seconds", "since=\"seal\"", "Until the receipt of an applied batch was ready for the broker: since its ref was appended to the log, and since the gateway sealed it by its own clock.";
    ReceiptsQueued, Counter, "cloud_receipts_total", "outcome=\"queued\"", "Receipts by what became of them.";
    ReceiptsMerged, Counter, "cloud_receipts_total", "outcome=\"merged\"", "Receipts by what became of them.";
    ReceiptsDropped, Counter, "cloud_receipts_total", "outcome=\"dropped\"", "Receipts by what became of them.";
    ReceiptsPublished, Counter, "cloud_receipts_total", "outcome=\"published\"", "Receipts by what became of them.";
    ReceiptsWaiting, Gauge, "cloud_receipts_waiting", "", "Receipts that wait for the broker.";
    UploadsStored, Counter, "cloud_uploads_total", "outcome=\"stored\"", "Payload uploads by what became of them.";
    UploadsAgain, Counter, "cloud_uploads_total", "outcome=\"again\"", "Payload uploads by what became of them.";
    UploadsRefused, Counter, "cloud_uploads_total", "outcome=\"refused\"", "Payload uploads by what became of them.";
    UploadsFailed, Counter, "cloud_uploads_total", "outcome=\"failed\"", "Payload uploads by what became of them.";
    UploadBytes, Counter, "cloud_upload_bytes_total", "", "Bytes of payloads stored.";
    HeldAnswered, Counter, "cloud_held_questions_total", "outcome=\"answered\"", "Questions of gateways for what is held.";
    HeldNotAnswered, Counter, "cloud_held_questions_total", "outcome=\"refused\"", "Questions of gateways for what is held.";
    IntakeConnects, Counter, "cloud_mqtt_connects_total", "connection=\"intake\"", "MQTT connections opened.";
    ReceiptsConnects, Counter, "cloud_mqtt_connects_total", "connection=\"receipts\"", "MQTT connections opened.";
    ArchivedObjects, Counter, "cloud_archive_objects_total", "", "Objects written to the archive.";
    ArchivedBytes, Counter, "cloud_archive_bytes_total", "", "Bytes of the objects written to the archive.";
    ArchivedReadings, Counter, "cloud_archive_rows_total", "table=\"readings\"", "Rows written to the archive.";
    ArchivedEvents, Counter, "cloud_archive_rows_total", "table=\"events\"", "Rows written to the archive.";
    OvertakenReadings, Counter, "cloud_archive_overtaken_offsets_total", "table=\"readings\"", "Offsets that left the log before they were archived.";
    OvertakenEvents, Counter, "cloud_archive_overtaken_offsets_total", "table=\"events\"", "Offsets that left the log before they were archived.";
    ArchiveFailures, Counter, "cloud_archive_failures_total", "", "Steps of the archiver that failed and were tried again, and its deaths.";
    ArchiveSuccessAge, Gauge, "cloud_archive_success_age_seconds", "", "Since the archiver last did what was due.";
    ArchiveWaiting, Gauge, "cloud_archive_waiting_seconds", "", "Since when the oldest record that is not archived was seen to wait.";
    LandingDeletedArchived, Counter, "cloud_landing_deleted_total", "why=\"archived\"", "Payloads that left the landing area.";
    LandingDeletedAged, Counter, "cloud_landing_deleted_total", "why=\"aged\"", "Payloads that left the landing area.";
    LandingPayloads, Gauge, "cloud_landing_payloads", "", "Payloads in the landing area after the last sweep.";
    SweepsFailed, Counter, "cloud_landing_sweep_failures_total", "", "Sweeps of the landing area that failed and were tried again.";
    LogBatchesRetired, Counter, "cloud_log_batches_retired_total", "", "Batches whose archived rows left the log by its retention.";
    LogPruneFailures, Counter, "cloud_log_prune_failures_total", "", "Steps of the log's retention that failed and were tried again.";
    PipelineGeneration, Gauge, "cloud_pipeline_generation", "", "How often the pipeline was started.";
    ActorPanics, Counter, "cloud_actor_panics_total", "", "Actors that died by a panic.";
}

/// Upper bounds in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

#[derive(Debug, Default)]
struct Cell {
    /// The value; of a histogram the count.
    value: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    sum_us: AtomicU64,
}

/// The values of all metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    cells: Vec<Cell>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { cells: Metric::ALL.iter().map(|_| Cell::default()).collect() }
    }
}

impl Metrics {
    pub fn add(&self, metric: Metric, count: u64) {
        self.cell(metric).value.fetch_add(count, Ordering::Relaxed);
    }

    pub fn set(&self, metric: Metric, value: u64) {
        self.cell(metric).value.store(value, Ordering::Relaxed);
    }

    pub fn observe(&self, metric: Metric, took: Duration) {
        let cell = self.cell(metric);
        cell.value.fetch_add(1, Ordering::Relaxed);
        cell.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        for (bucket, _) in cell.buckets.iter().zip(BUCKETS).filter(|(_, bound)| seconds <= *bound) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn value(&self, metric: Metric) -> u64 {
        self.cell(metric).value.load(Ordering::Relaxed)
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut previous = "";
        for (&metric, cell) in Metric::ALL.iter().zip(&self.cells) {
            let (kind, name, labels, help) = metric.describe();
            if name != previous {
                let kind = match kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                push(&mut text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
                previous = name;
            }
            let value = cell.value.load(Ordering::Relaxed);
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            if kind != Kind::Histogram {
                push(&mut text, format_args!("{name}{braces} {value}\n"));
                continue;
            }
            let comma = if labels.is_empty() { "" } else { "," };
            for (bucket, bound) in cell.buckets.iter().zip(BUCKETS) {
                let below = bucket.load(Ordering::Relaxed);
                push(&mut text, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}\n"));
            }
            let sum = cell.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
            push(&mut text, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {value}\n"));
            push(&mut text, format_args!("{name}_sum{braces} {sum}\n{name}_count{braces} {value}\n"));
        }
        text
    }

    fn cell(&self, metric: Metric) -> &Cell {
        self.cells.get(metric as usize).expect("there is a cell for each metric")
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String takes everything");
}

/// Logs to stderr, without colour. `RUST_LOG` beats the configured level.
pub fn init_logging(level: &str) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => level.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("{filter:?} is no log filter: {error}"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    subscriber.try_init().map_err(|error| error.to_string())
}

/// An error with what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        push(&mut text, format_args!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_is_declared_once_with_its_name_in_one_piece() {
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for metric in Metric::ALL {
            let (kind, name, labels, help) = metric.describe();
            assert!(seen.insert((name, labels)), "{name} {labels} twice");
            assert!(name.starts_with("cloud_") && help.ends_with('.'));
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            if names.last() != Some(&name) {
                assert!(!names.contains(&name), "{name} stands in two places");
                names.push(name);
            }
        }
    }

    #[test]
    fn values_come_out_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.add(Metric::RefsApplied, 3);
        metrics.set(Metric::PipelineGeneration, 2);
        metrics.observe(Metric::StoreWrite, Duration::from_millis(20));
        let text = metrics.render();
        for line in [
            "# TYPE cloud_refs_total counter",
            "cloud_refs_total{outcome=\"applied\"} 3",
            "cloud_pipeline_generation 2",
            "cloud_sink_write_seconds_bucket{sink=\"store\",le=\"0.01\"} 0",
            "cloud_sink_write_seconds_bucket{sink=\"store\",le=\"0.025\"} 1",
            "cloud_sink_write_seconds_bucket{sink=\"store\",le=\"+Inf\"} 1",
            "cloud_sink_write_seconds_sum{sink=\"store\"} 0.02",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
