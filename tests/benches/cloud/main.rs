//! What the head-end costs on embedded defaults: from an upload to the receipt, and a row in the archive.

mod bare;
mod ingest;

fn main() -> anyhow::Result<()> {
    tests::measure::run_named(&[("ingest", ingest::run)])
}
