//! The recipes of docs/recipes, end to end: the code of the examples, by many clients at once over the
//! embedded store and over a real Redis.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasehold::{Client, clock};
use leasehold_testbed::Redis;

#[path = "../examples/leader.rs"]
mod leader;
#[path = "../examples/migration.rs"]
mod migration;
#[path = "../examples/nightly.rs"]
mod nightly;
#[path = "../examples/queue.rs"]
mod queue;
#[path = "../examples/quota.rs"]
mod quota;

const PATIENCE: Duration = Duration::from_mins(1);

async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("it ends")
}

/// Runs the recipe over each store, in a directory of its own.
async fn over_each(recipe: impl AsyncFn(&str, &Path)) {
    let server = Redis::start();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let embedded = format!("sqlite:{}", directories[0].path().join("locks.db").display());
    soon(recipe(&embedded, directories[0].path())).await;
    soon(recipe(&server.url(), directories[1].path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_of_a_queue_is_done_by_one_worker() {
    over_each(async |url, directory| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (client, results) = (Client::open(url).unwrap(), directory.to_owned());
                tokio::spawn(async move { queue::work(&client, &results, 20).await.unwrap() })
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker.await.unwrap();
        }
        // Who found a job taken went on to the next: what a worker skipped another has done.
        assert_eq!(done, 20, "each once");
        for job in 0..20_u32 {
            let result = std::fs::read_to_string(directory.join(format!("{job}.txt"))).unwrap();
            assert_eq!(result.trim(), (job * job).to_string());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ten_instances_migrates_and_all_go_on() {
    over_each(async |url, _| {
        let migrations = Arc::new(AtomicU32::new(0));
        let instances: Vec<_> = (0..10)
            .map(|_| {
                let (client, migrations) = (Client::open(url).unwrap(), Arc::clone(&migrations));
                tokio::spawn(async move {
                    let migrate = async |_fence| {
                        migrations.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        true
                    };
                    migration::ready(&client, "v42", migrate).await.unwrap()
                })
            })
            .collect();
        let mut said = Vec::new();
        for instance in instances {
            said.push(instance.await.unwrap());
        }
        assert_eq!(said.iter().filter(|said| **said == "migrated").count(), 1, "{said:?}");
        assert_eq!(migrations.load(Ordering::SeqCst), 1);
        // One that fails keeps all of its version from serving.
        let client = Client::open(url).unwrap();
        migration::ready(&client, "v43", async |_| false).await.unwrap_err();
        migration::ready(&client, "v43", async |_| true).await.unwrap_err();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_know_the_address_of_every_leader() {
    over_each(async |url, _| {
        let follower = tokio::spawn({
            let client = Client::open(url).unwrap();
            async move {
                let mut seen = Vec::new();
                let until_last = |address: &str| {
                    seen.push(address.to_owned());
                    seen.len() < 3
                };
                leader::follow(&client, until_last).await.unwrap();
                seen
            }
        });
        let leaders: Vec<_> = (0..3)
            .map(|n| {
                let client = Client::open(url).unwrap();
                tokio::spawn(async move {
                    // sleep: a leader that leads for a while, so that the follower has looked once.
                    let work = async |_term| tokio::time::sleep(Duration::from_millis(700)).await;
                    leader::lead(&client, &format!("10.0.0.{n}:80"), work).await.unwrap();
                })
            })
            .collect();
        for leader in leaders {
            leader.await.unwrap();
        }
        let seen: BTreeSet<String> = follower.await.unwrap().into_iter().collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_stays_within_its_quota() {
    over_each(async |url, _| {
        let began = clock::now();
        let fleet: Vec<_> = (0..4)
            .map(|_| {
                let client = Client::open(url).unwrap();
                tokio::spawn(async move { quota::calls(&client, 50, || {}).await.unwrap() })
            })
            .collect();
        let mut made = 0;
        for member in fleet {
            made += member.await.unwrap();
        }
        assert_eq!(made, 200);
        // The burst at once, and the others at 100 a second, less what batches may add: at most what
        // 4 processes can have in hand for a window each.
        let least = Duration::from_millis(1_200);
        assert!(
            clock::now().since(began) >= least,
            "200 calls took {:?}",
            clock::now().since(began)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_of_five_hosts_runs_on_one() {
    over_each(async |url, _| {
        let reports = Arc::new(AtomicU32::new(0));
        let hosts: Vec<_> = (0..5)
            .map(|_| {
                let (client, reports) = (Client::open(url).unwrap(), Arc::clone(&reports));
                tokio::spawn(async move {
                    let report = async |_fence| {
                        reports.fetch_add(1, Ordering::SeqCst);
                        true
                    };
                    nightly::nightly(&client, report).await.unwrap()
                })
            })
            .collect();
        let mut ran = 0;
        for host in hosts {
            ran += u32::from(host.await.unwrap());
        }
        assert_eq!((ran, reports.load(Ordering::SeqCst)), (1, 1));
    })
    .await;
}
