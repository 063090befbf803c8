//! Random bytes from the operating system: the one file that draws them.

use leasehold_core::ClaimId;

use crate::error::{Error, ErrorKind, Result};

/// A claim id that nobody can guess.
pub(crate) fn claim_id() -> Result<ClaimId> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(ClaimId::from_random(bytes))
}

/// 128 random bits as 32 hexadecimal digits.
pub(crate) fn token() -> Result<String> {
    Ok(claim_id()?.to_hex())
}

/// A seed for jitter.
pub(crate) fn seed() -> Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "draw a random token",
            "the operating system's random source failed",
        )
        .because(error)
    })
}
