//! The commands on the primitives' pages do what the pages say.

use std::path::Path;

#[test]
fn what_the_guide_shows_is_what_happens() {
    let home = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_leasehold")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let cases = trycmd::TestCases::new();
    for page in ["rwlock", "semaphore", "election", "job", "many"] {
        cases.case(format!("../leasehold/docs/{page}.md"));
    }
    cases
        .env("LEASEHOLD_STORE", format!("sqlite:{}", home.path().join("locks.db").display()))
        // Commands under a lock find the program, too.
        .env("PATH", format!("{}:{path}", program.display()))
        .default_bin_name("leasehold")
        .run();
}
