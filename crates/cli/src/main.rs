//! `leasehold`.
mod child;
mod guardian;
mod signals;
mod terminal;
fn main() -> std::process::ExitCode {
    if guardian::is_wanted() {
        return guardian::main();
    }
    std::process::ExitCode::SUCCESS
}
