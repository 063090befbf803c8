//! What a URL says, and what is refused.

use leasehold::ErrorKind;
use leasehold::stores::Redis;

#[track_caller]
fn shown(url: &str) -> String {
    let store = Redis::new(url).unwrap();
    assert_eq!(format!("{store:?}"), format!("Redis({store})"));
    store.to_string()
}

#[test]
fn urls_are_shown_in_full_but_for_the_password() {
    assert_eq!(shown("redis://localhost"), "redis://localhost:6379/0");
    assert_eq!(shown("redis://[::1]:7000/3?timeout=500ms"), "redis://[::1]:7000/3");
    assert_eq!(shown("redis://:s%40cret@h"), "redis://h:6379/0");
    assert_eq!(shown("rediss://us%65r:secret@h:1/"), "rediss://user@h:1/0");
    assert_eq!(
        shown("redis+unix:///run/a%20b.sock?db=2&user=u&password=secret"),
        "redis+unix:///run/a b.sock/2"
    );
    assert_eq!(
        shown(
            "redis+sentinel://u:secret@a,b:7,[::1]/my%20group/2?sentinel_password=hidden&replicas=1"
        ),
        "redis+sentinel://u@a:26379,b:7,[::1]:26379/my group/2"
    );
    assert_eq!(shown("rediss+sentinel://a/g?timeout=1s"), "rediss+sentinel://a:26379/g/0");
    assert_eq!(
        shown("redis+cluster://u:secret@a,b:7,[::1]/0?replicas=1"),
        "redis+cluster://u@a:6379,b:7,[::1]:6379"
    );
    assert_eq!(shown("rediss+cluster://a?ca=/x"), "rediss+cluster://a:6379");
}

#[test]
fn what_cannot_be_understood_is_refused_by_its_name_and_without_the_password() {
    let refused = [
        ("redis://u:secret@h:70000", "port"),
        ("redis://u:secret@h?replicas=33", "replicas"),
        ("redis://u:secret@h?sentinel_password=secret", "sentinel_password"),
        ("redis+sentinel://u:secret@a,b", "mymaster"),
        ("redis+sentinel://u:secret@a,b/", "mymaster"),
        ("redis+sentinel://u:secret@/g", "host"),
        ("redis+sentinel://u:secret@a,,b/g", "host"),
        ("redis+sentinel://u:secret@a:0/g", "port"),
        ("redis+sentinel://u:secret@a/g/x", "database"),
        ("redis+sentinel://u:secret@a/g?sentinel_user=u", "sentinel_password"),
        ("redis+sentinel://u:secret@a/g?sentinel_x=secret", "sentinel_x"),
        ("redis+sentinel://u:secret@a/g?sentinel_password=secret&sentinel_password=x", "twice"),
        ("redis+sentinel://u:secret@a/g?ca=/x", "rediss"),
        ("redis+cluster://u:secret@a,b/1", "database"),
        ("redis+cluster://u:secret@a,,b", "host"),
        ("redis+cluster://u:secret@", "host"),
        ("redis+cluster://u:secret@a?sentinel_user=u", "sentinel_user"),
        ("rediss+unix+cluster://u:secret@a", "redis+cluster:"),
        ("redis://u:secret@h:0", "port"),
        ("redis://u:secret@h:x", "port"),
        ("redis://u:secret@", "host"),
        ("redis:", "host"),
        ("redis://u:secret@h/x", "database"),
        ("redis://u:secret@h/-1", "database"),
        ("redis://u:secret@h/1/2", "database"),
        ("redis://u:secret@h/4294967296", "database"),
        ("redis://u:secret@h?db=1", "`db`"),
        ("redis://u:secret@h?timeout=2", "timeout"),
        ("redis://u:secret@h?timeout=0s", "timeout"),
        ("redis://u:secret@h?timeout=1h", "timeout"),
        ("redis://u:secret@h?timeout=99999999999999999999s", "timeout"),
        ("redis://u:secret@h?timeout=11m", "timeout"),
        ("redis://u:secret@h?timeout=1s&timeout=2s", "`timeout=` is given twice"),
        ("redis://u:secret@h?insecure=1", "`insecure`"),
        ("rediss://u:secret@h?insecure", "`insecure`"),
        ("redis://u:secret@h?ca=/ca.pem", "`ca=` needs"),
        ("rediss://u:secret@h?ca=", "`ca=`"),
        ("rediss://u:secret@h?cert=/c.pem", "`key=`"),
        ("redis://u:secret@h#secret", "`#`"),
        ("redis://u:%ff-secret@h", "password"),
        ("redis://u@h", "password"),
        ("http://u:secret@h", "`http:`"),
        ("redis+unix:run/redis.sock", "path"),
        ("redis+unix://run/redis.sock", "path"),
        ("redis+unix:///", "path"),
        ("redis+unix:///run/redis.sock?db=x&password=secret", "database"),
        ("redis+unix:///run/redis.sock?user=x", "password"),
        ("no url at all", "URL"),
        ("", "URL"),
    ];
    for (url, named) in refused {
        let error = Redis::new(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        let said = format!("{error} {error:?}");
        assert!(said.contains(named), "{url}: {said}");
        assert!(!said.contains("secret"), "{url}: {said}");
    }
}
