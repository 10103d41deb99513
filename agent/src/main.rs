//! The vifd binary: wiring only.

use std::process::ExitCode;

fn main() -> ExitCode {
    vifd::cli::main()
}
