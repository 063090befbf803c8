//! `leasehold forget`: an operator's way to begin anew.

use leasehold::Forgotten;

use super::{Outcome, plain_client};
use crate::args::{Common, Forget};
use crate::exit::{self, Failure};
use crate::output::{Output, printable};
use crate::waiting::describe;

/// Runs the verb.
pub(crate) async fn forget(
    args: &Forget,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let key = printable(args.key.as_str());
    let outcome = match client.forget(args.key.clone()).await? {
        Forgotten::Held(ahead) => {
            let by = ahead.holder.as_ref().map_or_else(|| "somebody".to_owned(), describe);
            let message = format!("{key} is held by {by}: nothing was forgotten");
            Err(Failure::new(exit::BUSY, message))
        }
        Forgotten::Done => {
            output.note(format_args!("forgot what was remembered of {key}"));
            Ok(Outcome::OK)
        }
        _ => {
            output.note(format_args!("nothing was remembered of {key}"));
            Ok(Outcome::OK)
        }
    };
    crate::waiting::close(client).await;
    outcome
}
