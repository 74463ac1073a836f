//! What formats cost: bytes on the wire, and CPU time beside other implementations. No disk, no network.

mod batch;
mod beside;
mod dlms;
mod p1;
mod wire;

use tests::measure::{Part, run_named};

/// All of them, or those that are named.
fn main() -> anyhow::Result<()> {
    let benches: [Part<'_>; 4] = [("wire", wire::run), ("batch", batch::run), ("dlms", dlms::run), ("p1", p1::run)];
    run_named(&benches)
}
