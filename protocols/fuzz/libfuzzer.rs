//! The coverage-guided driver: one binary for each target, told apart by its name.

#![no_main]

#[path = "targets/mod.rs"]
mod targets;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (_, target) =
        targets::TARGETS.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME")).expect("binaries are named as targets");
    target(data);
});
