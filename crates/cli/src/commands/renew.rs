//! `leasehold renew`: a script's hold lasts longer.

use super::{Outcome, check, grant, plain_client};
use crate::args::{Common, Renew};
use crate::exit::Failure;
use crate::output::Output;

/// Runs the verb.
pub(crate) async fn renew(
    args: &Renew,
    common: &Common,
    output: Output,
) -> Result<Outcome, Failure> {
    let client = plain_client(common)?;
    let grant = grant(&args.granted)?;
    let standing = if client.renew(&grant).await? { client.check(&grant).await? } else { None };
    check::report(&args.granted, standing, output)
}
