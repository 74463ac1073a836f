//! What formats cost: bytes on the wire, and CPU time beside other implementations. No disk, no network.

mod batch;
mod beside;
mod captured;
mod client;
mod dlms;
mod hdlc;
mod mbus;
mod p1;
mod push;
mod sml;
mod wire;

use tests::measure::{Part, run_named};

/// All of them, or those that are named.
fn main() -> anyhow::Result<()> {
    let benches: [Part<'_>; 9] = [
        ("wire", wire::run),
        ("batch", batch::run),
        ("dlms", dlms::run),
        ("client", client::run),
        ("push", push::run),
        ("hdlc", hdlc::run),
        ("sml", sml::run),
        ("mbus", mbus::run),
        ("p1", p1::run),
    ];
    run_named(&benches)
}
