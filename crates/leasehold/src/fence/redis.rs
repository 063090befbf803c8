//! Redis: one script around the write.
//!
//! The script compares, writes and takes note of the new greatest fence in one atomic step. It is
//! a text ([`SCRIPT`]; `leasehold fence redis` prints it), so any client can use it, by `EVALSHA`
//! as well; [`LIBRARY`] is the same as a function for Redis 7 and later.
//!
//! ```text
//! EVALSHA <sha1> 2 leasehold:fence:{report} report   34 0   SET report "…"
//!                ↑ where the greatest fence is kept  ↑  ↑   ↑ any one command, with its arguments
//!                                  the writer's fence   remember it for so many ms; 0: for ever
//!
//! FCALL leasehold_write 2 leasehold:fence:{report} report 34 0 SET report "…"
//! ```
//!
//! It answers what the command answers, or with the error `STALEFENCE token 33, greatest 34`
//! ([`refusal`] reads it), and then nothing was written. Without a command it only checks and
//! takes note; in that case a write that follows is not one step with it.
//!
//! **A cluster** needs both keys in one slot: [`fence_key`] names one beside any key.
//!
//! **How long the greatest fence is remembered** is the second argument. For ever costs one small
//! key for each resource. With a time, a writer that was paused for longer than that after the last
//! write is not refused: choose one that no pause outlasts, days rather than minutes. A server that
//! evicts keys (`maxmemory-policy allkeys-…`), is restarted without persistence or fails over to a
//! replica that lags forgets earlier.
//!
//! ```
//! use leasehold::fence::redis::{fence_key, refusal};
//!
//! // With the crate `redis`:
//! // redis::Script::new(leasehold::fence::redis::SCRIPT)
//! //     .key(fence_key("report")?).key("report")
//! //     .arg(guard.fence().get()).arg(0)
//! //     .arg(&["SET", "report", "…"]).invoke_async(&mut connection).await
//! assert_eq!(fence_key("report")?, "leasehold:fence:{report}");
//! let stale = refusal("report", "STALEFENCE token 33, greatest 34").unwrap();
//! assert_eq!(stale.greatest.get(), 34);
//! # Ok::<(), leasehold::Error>(())
//! ```

use leasehold_core::StaleFence;

use crate::error::{Error, ErrorKind, Result};

/// The script, for `EVAL`, `EVALSHA` and `SCRIPT LOAD`.
pub const SCRIPT: &str = concat!(include_str!("write.lua"), "\nreturn write(KEYS, ARGV)\n");

/// The same for `FUNCTION LOAD`, as the function `leasehold_write`.
pub const LIBRARY: &str = concat!(
    "#!lua name=leasehold_fence\n\n",
    include_str!("write.lua"),
    "\nredis.register_function('leasehold_write', write)\n"
);

/// The name of a key in the same slot of a cluster, for the greatest fence that `key` has seen.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] for a key with a closing brace and no hash tag, beside which no name can
/// be made: choose one yourself.
pub fn fence_key(key: &str) -> Result<String> {
    let has_tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty());
    match has_tag {
        // Nothing before it opens a brace, so it is the tag of this name as well.
        true => Ok(format!("leasehold:fence:tagged:{key}")),
        false if key.is_empty() || key.contains('}') => {
            let detail = "its braces are no hash tag, so no name beside it is in its slot; use \
                          another key, or a name of your own for its fence";
            Err(Error::new(ErrorKind::Invalid, "name the key of a fence", detail))
        }
        false => Ok(format!("leasehold:fence:{{{key}}}")),
    }
}

/// Reads the script's refusal from the text of an error; `None` for any other.
#[must_use]
pub fn refusal(resource: &str, error: &str) -> Option<StaleFence> {
    let (_, rest) = error.split_once("STALEFENCE")?;
    StaleFence::parse(resource, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fences_differ_where_the_keys_do() {
        let keys = ["report", "{report}", "a{b}c", "a{b", "{", "x:{report}"];
        let names: std::collections::BTreeSet<_> =
            keys.iter().map(|key| fence_key(key).unwrap()).collect();
        assert_eq!(names.len(), keys.len(), "{names:?}");
        for bad in ["", "a}b", "{}x", "}", "a{}b"] {
            assert!(fence_key(bad).is_err(), "{bad}");
        }
    }
}
