//! Fuzz targets: plain functions that take any octets and must neither panic nor break what they assert.
//!
//! Two drivers run them: `cargo fuzz run {target}` in `protocols/fuzz` (nightly, coverage-guided, by hand), and on stable the test
//! `protocols/tests/mutations.rs`, which runs each over its corpus and many mutations of it.
//!
//! A new target is a file here with `pub(crate) fn target(data: &[u8])`, its name in the list below and in the list of binaries in
//! `fuzz/Cargo.toml`, and at least one example in `fuzz/corpus/{target}`. `steps` is no target: it cuts an input into a conversation.

mod steps;

macro_rules! targets {
    ($($name:ident,)*) => {
        $(mod $name;)*
        /// Every target by its name.
        pub(crate) const TARGETS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name::target),)*];
    };
}

targets! {
    acse,
    apdu,
    axdr,
    cad_minimal,
    cad_smets2,
    ciphered_client,
    ciphered_server,
    cosem,
    dlms_client,
    dlms_commands,
    dlms_server,
    hdlc_client,
    hdlc_frame,
    hdlc_server,
    iec62056_21,
    iec62056_21_client,
    iec62056_21_server,
    mbus,
    mbus_master,
    mbus_receiver,
    mbus_slave,
    notification,
    p1,
    profile_rows,
    security,
    short_names,
    sml,
    uplink_batch,
    uplink_payload,
    uplink_receipt,
    uplink_ref,
    uplink_status,
    wrapper,
}
