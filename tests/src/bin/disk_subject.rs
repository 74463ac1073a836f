//! The process that writes, for the tests of power loss and slow disks: `disk_subject WHAT FOLDER ...`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tests::power_loss::{Journal, Load, OutboxFile, Stores, Table, run_load};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["table", folder, journal, transactions] => {
            let journal = Journal::named(journal).context("an unknown journal")?;
            Table::write(Path::new(folder), journal, transactions.parse()?)
        }
        ["outbox", folder, seed, steps, end] => {
            OutboxFile::write(Path::new(folder), seed.parse()?, steps.parse()?, end == "abrupt")
        }
        ["outbox-failing", folder, seed, steps] => {
            OutboxFile::write_on_failing_disk(Path::new(folder), seed.parse()?, steps.parse()?)
        }
        ["stores", folder, seed, steps, end] => {
            Stores::write(Path::new(folder), seed.parse()?, steps.parse()?, end == "abrupt")
        }
        ["load", folder, stores] => {
            use std::io::Write as _;
            let took = run_load(Path::new(folder), Load::profiles(stores.parse()?))?.wall;
            Ok(writeln!(std::io::stdout(), "{}", took.as_millis())?)
        }
        _ => bail!("unknown arguments: {arguments:?}"),
    }
}
