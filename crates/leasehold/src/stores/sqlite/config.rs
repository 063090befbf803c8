//! Where the file is: the URL, the path, and the default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

const ATTEMPT: &str = "use the embedded store";

/// The path that `text` names: a URL (`sqlite:PATH`, or `sqlite:` for the default) or a bare path.
pub(super) fn path_of(text: &str) -> Result<PathBuf> {
    let Some(path) = text.strip_prefix("sqlite:") else {
        return absolute(Path::new(text));
    };
    if path.is_empty() {
        return default_path(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"));
    }
    if path == ":memory:" {
        return Err(invalid("a database in SQLite's memory cannot be shared; use memory: instead"));
    }
    if path.contains('?') {
        return Err(invalid(
            "a sqlite: URL has no options, and `?` is refused so that none is mistaken for a part \
             of the file's name; give such a path to `Sqlite::at`",
        ));
    }
    if path.starts_with("//") && !path.starts_with("///") {
        return Err(invalid(
            "a sqlite: URL has no host; write sqlite:PATH or sqlite:///ABSOLUTE/PATH",
        ));
    }
    absolute(Path::new(path))
}

/// `path` from the root, so that a later change of directory does not move the store.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid("the path contains a NUL character"));
    }
    std::path::absolute(path).map_err(|error| {
        invalid("the path is empty, or relative to a directory that is gone").because(error)
    })
}

/// The user's state directory, as the XDG base directory specification (0.8) has it: a relative
/// `XDG_STATE_HOME` is to be ignored.
fn default_path(state: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    let rooted = |text: OsString| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let state = state
        .and_then(rooted)
        .or_else(|| home.and_then(rooted).map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            invalid(
                "neither XDG_STATE_HOME nor HOME is set to an absolute path, so there is no state \
                 directory; set one of them, or name a file: sqlite:/path/to/file.db",
            )
        })?;
    Ok(state.join("leasehold/leasehold.db"))
}

fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::Invalid, ATTEMPT, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(state: Option<&str>, home: Option<&str>) -> Result<PathBuf> {
        default_path(state.map(OsString::from), home.map(OsString::from))
    }

    #[test]
    fn the_default_is_the_users_state_directory() {
        let here = Some("/home/u");
        let expected = [
            (Some("/state"), here, "/state/leasehold/leasehold.db"),
            (None, here, "/home/u/.local/state/leasehold/leasehold.db"),
            (Some(""), here, "/home/u/.local/state/leasehold/leasehold.db"),
            (Some("relative"), here, "/home/u/.local/state/leasehold/leasehold.db"),
        ];
        for (state, home, path) in expected {
            assert_eq!(default(state, home).unwrap(), Path::new(path), "{state:?}");
        }
    }

    #[test]
    fn without_a_home_the_error_says_what_to_set() {
        for (state, home) in [(None, None), (Some("x"), Some("")), (None, Some("x"))] {
            let error = default(state, home).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("HOME"), "{error}");
        }
    }

    #[test]
    fn a_url_names_a_file_and_nothing_else() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(path_of("sqlite:a/b.db").unwrap(), here.join("a/b.db"));
        assert_eq!(path_of("a/b.db").unwrap(), here.join("a/b.db"));
        assert_eq!(path_of("sqlite:/x y/%41.db").unwrap(), Path::new("/x y/%41.db"));
        assert_eq!(path_of("sqlite:///x.db").unwrap(), Path::new("/x.db"));
        for bad in ["", "sqlite::memory:", "sqlite:x?mode=ro", "sqlite://host/x", "sqlite:a\0b"] {
            assert_eq!(path_of(bad).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
}
