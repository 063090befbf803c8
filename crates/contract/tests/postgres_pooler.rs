//! The suite on a real PostgreSQL behind PgBouncer in transaction mode, where nobody can be woken: a
//! new pair of servers for each case.

mod links;
mod postgres_bench;

use postgres_bench::PostgresBench;

async fn bench() -> PostgresBench {
    PostgresBench::start(Some("transaction"))
}

leasehold_contract::suite!(postgres_pooler, bench);
