//! `leasehold once`: a command that runs once in a period, or for a version.

use std::time::Duration;

use leasehold::{Begin, Client, Job, Run, Schedule};

use super::Outcome;
use super::run::{Claimed, under};
use crate::args::{Asking, Common, Once};
use crate::duration::Patience;
use crate::exit::{self, Failure};
use crate::output::{Output, printable};

/// How long after its time a job of `--cron` may begin, unless it may catch up.
#[cfg(feature = "cron")]
const LATE: Duration = Duration::from_mins(5);

/// Runs the verb.
pub(crate) async fn once(args: Once, common: &Common, output: Output) -> Result<Outcome, Failure> {
    let asking = Asking {
        ttl: args.ttl,
        wait: Some(args.wait.unwrap_or(Patience::None)),
        once: false,
        note: None,
        exit_code_busy: exit::BUSY,
        exit_code_timeout: exit::TIMEOUT,
        exit_code_unavailable: exit::UNAVAILABLE,
        demand: None,
    };
    under(Claimed::Job(&args), &asking, &args.commanded, common, output).await
}

/// The job that the flags ask for.
pub(crate) fn job(client: &Client, args: &Once) -> leasehold::Result<Job> {
    let (schedule, late) = schedule(args)?;
    let job = client.job(args.key.clone(), schedule)?;
    let job = job.at_least(args.at_least.unwrap_or_default()).retry_failed(args.retry_failed);
    Ok(match late.filter(|_| !args.catch_up) {
        Some(late) => job.no_later_than(late),
        None => job,
    })
}

fn schedule(args: &Once) -> leasehold::Result<(Schedule, Option<Duration>)> {
    #[cfg(feature = "cron")]
    if let Some(times) = &args.cron {
        return Ok((Schedule::cron(times, &args.tz)?, Some(LATE)));
    }
    let schedule = match (&args.version, args.every) {
        (Some(version), _) => Schedule::version(version),
        // One of them is there, or the arguments were refused.
        (None, every) => Schedule::every(every.unwrap_or_default()),
    };
    Ok((schedule?, None))
}

/// Says why there is nothing to do, and how to exit.
pub(crate) fn skipped(job: &Job, begin: &Begin, output: Output) -> Outcome {
    let key = printable(job.lock().key().as_str());
    let ran = |run: &Run| format!("at {} on {}", time(run.started), printable(&run.owner));
    let (said, code) = match begin {
        Begin::Ran(run) => (format!("{key} has been done: it began {}", ran(run)), 0),
        Begin::Failed(run) => {
            let how = run.code.map_or_else(String::new, |code| format!(" with exit code {code}"));
            let said = format!("{key} failed{how}, and is not tried again: it began {}", ran(run));
            (said, exit::FAILED)
        }
        Begin::TooSoon(run) => {
            (format!("{key} is skipped, for it ran a moment ago: it began {}", ran(run)), 0)
        }
        _ => (format!("{key} is skipped, for its time was too long ago (see --catch-up)"), 0),
    };
    if code == 0 {
        output.note(format_args!("{said}"));
    } else {
        output.error(&said);
    }
    Outcome::Code(code)
}

/// A time of the store, as people write it.
pub(crate) fn time(since_1970: Duration) -> String {
    let millis = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    let seconds = millis.div_euclid(1000);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| format!("{seconds} s since 1970"), |time| time.to_string())
}
