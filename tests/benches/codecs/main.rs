//! What formats cost: bytes on the wire, and CPU time beside other implementations. No disk, no network.

mod batch;
mod dlms;
mod p1;
mod wire;

/// All of them, or those that are named.
fn main() -> anyhow::Result<()> {
    let benches: [(&str, fn() -> anyhow::Result<()>); 4] =
        [("wire", wire::run), ("batch", batch::run), ("dlms", dlms::run), ("p1", p1::run)];
    tests::measure::run_named(&benches)
}
