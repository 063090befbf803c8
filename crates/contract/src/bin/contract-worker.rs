//! A process of its own for the suite's cases about processes: see `leasehold_contract::worker`.

use std::process::ExitCode;

fn main() -> ExitCode {
    leasehold_contract::worker::main(leasehold::stores::connect)
}
