//! `leasehold acquire`: a hold that a script carries on.

use leasehold::Client;
use serde::Serialize;

use super::Outcome;
use super::run::{codes, settings, unix_millis};
use crate::args::{Acquire, Common};
use crate::exit::{self, Failure};
use crate::output::Output;
use crate::signals::Signals;
use crate::waiting::{self, Asked};

/// What is printed. Field names are part of the interface.
#[derive(Serialize)]
struct Granted<'a> {
    key: &'a str,
    fence: u64,
    token: String,
    ttl_ms: u64,
    deadline_unix_ms: u64,
    store: String,
}

/// Runs the verb.
pub(crate) async fn acquire(
    args: Acquire,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let settings = settings(&args.asking, common, None, None)?;
    let client = Client::builder()
        .url(&settings.store.value)
        .ttl(settings.ttl.value)
        .detached(true)
        .demand(settings.demanded())
        .build()
        .map_err(|error| settings.blame(error))?;
    let lock = waiting::lock_of(&client, &args.key, &args.sharing).await?.note(&settings.note)?;
    let mut signals = Signals::listen()?;
    let asked =
        waiting::ask(&client, vec![lock], settings.wait, codes(&args.asking), &mut signals, output)
            .await;
    let outcome = match asked {
        Ok(Asked::Held(mut guards)) => {
            let guard = guards.remove(0);
            let (deadline, fence) = (guard.deadline(), guard.fence());
            // Before it is printed: what a reader knows is not renewed by this process any more.
            let grant = guard.detach();
            let printed = output.json(&Granted {
                key: args.key.as_str(),
                fence: fence.get(),
                token: grant.token(),
                ttl_ms: u64::try_from(settings.ttl.value.as_millis()).unwrap_or(u64::MAX),
                deadline_unix_ms: unix_millis(deadline),
                store: client.store().to_string(),
            });
            if printed.is_err() {
                // Nobody learned the token, so nobody could release it.
                let _ = client.release(&grant).await;
                Err(Failure::new(exit::INTERNAL, "cannot print the grant; the lock was released"))
            } else {
                Ok(Outcome::OK)
            }
        }
        Ok(Asked::GaveUp(signal)) => Ok(Outcome::Code(exit::of_signal(signal.as_raw()))),
        Err(failure) => Err(failure),
    };
    waiting::close(client).await;
    outcome
}
