//! Finding programs, and saying which package has the ones that are not there.

use std::env;
use std::path::PathBuf;

/// The path of a program that a test cannot do without.
#[must_use]
pub fn require(program: &str, package: &str) -> PathBuf {
    // Debian keeps servers where only root looks for them.
    let places = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&places)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()])
        .map(|place| place.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "`{program}` is not installed, and this test is nothing without it: \
                 `apt-get install {package}`, or run ./test, which installs what is missing"
            )
        })
}
