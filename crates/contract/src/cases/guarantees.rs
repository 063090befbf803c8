//! What a store claims to have: what it lacks can be demanded, and is refused by name; what it has
//! is shown by the cases and tests that `tests/guarantees.rs` names.

use std::sync::Arc;

use leasehold::{Client, ErrorKind, Properties, Property};
use leasehold_core::{Enter, Place, Renewed};

use crate::Bench;
use crate::actor::{Actor, PATIENT, claim, soon};

pub(crate) async fn what_is_demanded_is_there_or_all_of_it_that_is_not_is_named(bench: &dyn Bench) {
    // Some of it only a connection tells.
    let store = Actor::patient(bench).await.store;
    let has = store.guarantees().properties;
    let demand = |properties: Properties| {
        let store = Arc::clone(&store);
        Client::builder().shared_store(store).ttl(PATIENT).demand(properties).build()
    };
    let client = demand(has).expect("it has what it says that it has");
    drop(soon("free", client.mutex("k").expect("a mutex").lock()).await.expect("connected too"));
    let lacks = Property::ALL.into_iter().collect::<Properties>() - has;
    assert!(!lacks.is_empty(), "no store has everything: is this one's list true?");
    let error = demand(has | lacks).expect_err("it lacks some");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(error.store(), Some(store.to_string().as_str()), "{error}");
    let said = error.to_string();
    let named = |property: Property| said.contains(&format!("{property} ("));
    for property in Property::ALL {
        assert_eq!(named(property), lacks.contains(property), "{property}: {said}");
    }
}

pub(crate) async fn a_hold_outlives_a_crash_of_the_server_where_that_is_promised(
    bench: &dyn Bench,
) {
    let alice = Actor::patient(bench).await;
    let hold = claim("k");
    let fence = alice.holds(&hold).await;
    if let Some(server) = bench.server() {
        if !alice.store.guarantees().has(Property::SurvivesCrash) {
            // Whether it does is the server's configuration: nobody may rely on it.
            alice.leave(&hold).await;
            return;
        }
        server.kill().await;
        server.start().await;
    }
    let renewed = soon("the server is back", async {
        loop {
            let roll = std::slice::from_ref(&hold);
            if let Ok(renewed) = alice.store.renew(&alice.session, roll).await {
                return renewed;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(renewed.await, Renewed::Extended { lost: vec![] });
    let bob = Actor::patient(bench).await;
    let place = bob.enter(&claim("k"), Enter::Try).await.expect("answers");
    assert!(matches!(place, Place::Refused(_)), "{place:?}");
    let place = alice.enter(&hold, Enter::Wait).await.expect("answers");
    assert_eq!(place, Place::Held(fence), "the very grant");
}
