//! What the gateway costs: its outbox, a CAD feed from broker to receipt, meters that wait.

mod cad;
mod idle;
mod outbox;

use tests::measure::{Part, run_named};

/// All of them, or those that are named. Two parts of them run in processes of their own: this program again.
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [cad::BARE, port, folder] => return cad::bare::run(port.parse()?, std::path::Path::new(folder)),
        [idle::CHILD, meters] => return idle::child(meters.parse()?),
        _ => {}
    }
    let benches: [Part<'_>; 3] = [("outbox", outbox::run), ("cad", cad::run), ("idle", idle::run)];
    run_named(&benches)
}
