//! What the head-end costs: from an upload to the receipt, and a row in the archive, on embedded defaults; and what Cassandra
//! takes, by the size of a batch.

mod bare;
mod cassandra;
mod ingest;

fn main() -> anyhow::Result<()> {
    tests::measure::run_named(&[("ingest", ingest::run), ("cassandra", cassandra::run)])
}
