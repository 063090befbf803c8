//! The help text, as it is: a change of it is a change of what users read, and is looked at.
//! `TRYCMD=overwrite cargo test --test help` writes it anew.

#[test]
fn help_is_what_was_reviewed() {
    trycmd::TestCases::new()
        .case("tests/help/*.trycmd")
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .default_bin_name("leasehold")
        .insert_var("[VERSION]", env!("CARGO_PKG_VERSION"))
        .unwrap()
        .run();
}
