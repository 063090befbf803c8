//! What the file and its place mean for locks.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use leasehold::stores::Sqlite;
use leasehold::{Client, Examination, Severity};

use crate::support::mode;
use Severity::{Fine, Note, Warning};

async fn examine(file: &Path) -> Examination {
    let client = Client::builder().store(Sqlite::at(file).unwrap()).build().unwrap();
    client.examine("").await.unwrap()
}

fn severities(found: &Examination, topic: &str) -> Vec<Severity> {
    let about = found.findings.iter().filter(|finding| finding.topic == topic);
    about.map(|finding| finding.severity).collect()
}

#[tokio::test]
async fn a_file_of_its_own_is_not_warned_of() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    let found = examine(&file).await;
    assert!(found.worst() <= Note, "{found:#?}");
    for topic in ["space", "access", "integrity", "durability", "wake-ups", "probe", "ttl"] {
        assert_eq!(severities(&found, topic), [Fine], "{topic}");
    }
    assert_eq!(severities(&found, "reach"), [Note], "one machine");
    assert_eq!(found.servers[0].name, file.display().to_string());
    // What it bound to see whether it can be woken is gone.
    let left = std::fs::read_dir(root.path().join("l.db-peers")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_file_in_memory_is_noted() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let found = examine(&root.path().join("l.db")).await;
    assert_eq!(severities(&found, "filesystem"), [Note]);
    let says = |finding: &&leasehold::Finding| finding.says.contains("tmpfs");
    assert!(found.of(Note).any(|finding| says(&finding)), "{found:#?}");
}

#[tokio::test]
async fn a_file_that_others_may_write_or_replace_is_warned_of() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("l.db");
    examine(&file).await;
    set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    set_permissions(root.path().join("l.db-peers"), Permissions::from_mode(0o777)).unwrap();
    let found = examine(&file).await;
    assert_eq!((found.worst(), severities(&found, "access")), (Warning, vec![Warning]));
    set_permissions(root.path(), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(severities(&examine(&file).await, "access"), [Warning, Warning]);
    // With the sticky bit nobody may replace another's.
    set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
    let found = examine(&file).await;
    assert_eq!(severities(&found, "access"), [Warning]);
    let change = found.of(Warning).next().unwrap().change.as_deref();
    assert_eq!(change, Some(format!("chmod o-w {}", file.display()).as_str()));
    assert_eq!(mode(&file), 0o666, "it changes nothing itself");
}
