//! What the head-end costs: from an upload to the receipt, and a row in the archive, on embedded defaults; what Cassandra takes,
//! by the size of a batch; and the head-end on Kafka, Cassandra and S3, beside each of them alone.

mod bare;
mod cassandra;
mod cluster;
mod ingest;

fn main() -> anyhow::Result<()> {
    tests::measure::run_named(&[("ingest", ingest::run), ("cassandra", cassandra::run)])?;
    cluster::run()
}
