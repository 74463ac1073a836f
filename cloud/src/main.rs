//! The head-end's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cloud::cli::main())
}
