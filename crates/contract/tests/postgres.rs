//! The suite on a real PostgreSQL: a new server for each case.

mod links;
mod postgres_bench;

use postgres_bench::PostgresBench;

async fn bench() -> PostgresBench {
    PostgresBench::start(None)
}

leasehold_contract::suite!(postgres, bench);
