use std::collections::HashMap;

use super::*;
use clap::Parser as _;

fn common(config: Option<&Path>, store: Option<&str>) -> Common {
    let mut line = vec!["leasehold".to_owned()];
    line.extend(config.map(|path| format!("--config={}", path.display())));
    line.extend(store.map(|store| format!("--store={store}")));
    line.push("ls".to_owned());
    crate::args::Args::parse_from(line).common
}

fn load(
    file: &str,
    variables: &[(&'static str, &str)],
    store: Option<&str>,
    flags: Flags,
) -> Result<Settings, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let environment = |name| variables.get(name).map(|value| (*value).to_owned());
    Settings::load(&common(Some(&path), store), flags, &environment)
}

const FILE: &str = "# mine\nstore = \"memory:\"\nttl = \"7s\"\ngrace = \"1s\"\nwait = \"3s\"\n";

#[test]
fn flags_go_over_the_environment_and_that_over_the_file() {
    let second = Duration::from_secs(1);
    let settings = load(FILE, &[], None, Flags::default()).unwrap();
    assert_eq!(settings.ttl.value, 7 * second);
    assert!(settings.ttl.origin.to_string().ends_with("config.toml:3"), "{}", settings.ttl.origin);
    assert_eq!(settings.store.value, "memory:");
    assert_eq!(settings.wait, Patience::For(3 * second));

    let variables = [("LEASEHOLD_TTL", "8s"), ("LEASEHOLD_STORE", "sqlite:/x")];
    let settings = load(FILE, &variables, None, Flags::default()).unwrap();
    assert_eq!(settings.ttl, From { value: 8 * second, origin: Origin::Variable("LEASEHOLD_TTL") });
    assert_eq!(settings.store.value, "sqlite:/x");

    let flags = Flags { ttl: Some(9 * second), ..Flags::default() };
    let settings = load(FILE, &variables, Some("sqlite:/y"), flags).unwrap();
    assert_eq!(settings.ttl, From { value: 9 * second, origin: Origin::Flag("--ttl") });
    assert_eq!(settings.store.value, "sqlite:/y");
    assert_eq!(settings.grace.value, second);
}

#[test]
fn the_default_grace_follows_the_ttl() {
    let flags = |ttl| Flags { ttl: Some(Duration::from_secs(ttl)), ..Flags::default() };
    let grace = |ttl| load("", &[], None, flags(ttl)).unwrap().grace.value;
    assert_eq!(grace(2), Duration::from_millis(500));
    assert_eq!(grace(600), Duration::from_secs(5));
}

#[test]
fn a_demand_is_a_setting_like_the_others() {
    use leasehold::Property;
    let file = "demand = \"line, wakes\"\n";
    let demanded = |variables: &[_], flag| {
        let flags = Flags { demand: flag, ..Flags::default() };
        load(file, variables, None, flags).unwrap().demanded()
    };
    assert_eq!(demanded(&[], None), Property::Line | Property::Wakes);
    let variable = [("LEASEHOLD_DEMAND", "counting")];
    assert_eq!(demanded(&variable, None), Property::Counting.into());
    assert_eq!(demanded(&variable, Some(Properties::NONE)), Properties::NONE);
    let variable = [("LEASEHOLD_DEMAND", "speed")];
    let failure = load(file, &variable, None, Flags::default()).unwrap_err();
    assert_eq!(failure.code, exit::CONFIG);
    assert!(failure.message.contains("\"speed\" is no property"), "{failure}");
}

#[test]
fn a_bad_value_names_where_it_came_from() {
    let bad = |file, variables: &[_]| load(file, variables, None, Flags::default()).unwrap_err();
    let failure = bad("\n\nttl = \"30\"", &[]);
    assert_eq!(failure.code, exit::CONFIG);
    let message = failure.message;
    assert!(message.contains("config.toml:3: bad value \"30\": it has no unit"), "{message}");
    let failure = bad("", &[("LEASEHOLD_GRACE", "soon")]);
    assert_eq!(failure.code, exit::CONFIG);
    assert!(failure.message.starts_with("LEASEHOLD_GRACE: bad value \"soon\""), "{failure}");
    let failure = bad("store = \"memory:\"\ntt1 = \"3s\"\n", &[]);
    assert!(failure.message.contains("config.toml:2: unknown field `tt1`"), "{failure}");
    assert!(bad("store = 3", &[]).message.contains("config.toml:1:"));
    assert!(bad("store = \"", &[]).message.contains("config.toml:1:"));
}

#[test]
fn a_file_that_was_named_must_exist_and_the_default_need_not() {
    let load = |config: Option<&Path>, home: &str| {
        let home = home.to_owned();
        let environment = move |name| (name == "HOME").then(|| home.clone());
        Settings::load(&common(config, None), Flags::default(), &environment)
    };
    assert_eq!(load(None, "/nonexistent").unwrap().store.origin, Origin::Default);
    let failure = load(Some(Path::new("/nonexistent/c.toml")), "/nonexistent").unwrap_err();
    assert_eq!(failure.code, exit::CONFIG);
    assert!(failure.message.contains("/nonexistent/c.toml"), "{failure}");
}

#[test]
fn a_store_without_its_password_is_not_guessed() {
    let shown = "redis://app@locks.example:6379/0";
    let nested = |file: &str, url: &str, store| {
        let variables = [(store_url::VARIABLE, url), (store_url::REDACTED, shown)];
        load(file, &variables, store, Flags::default())
    };
    let failure = nested("", shown, None).unwrap_err();
    assert_eq!(failure.code, exit::CONFIG);
    assert!(failure.message.contains("password"), "{failure}");
    // Another store in the file is not what the variable means.
    assert!(nested("store = \"memory:\"", shown, None).is_err());
    // One's own setting is.
    assert_eq!(nested("", shown, Some("memory:")).unwrap().store.value, "memory:");
    assert_eq!(nested("", "sqlite:/a", None).unwrap().store.value, "sqlite:/a");
    // The same store with its password, from the file.
    let file = "store = \"memory:\"";
    let variables = [(store_url::VARIABLE, "memory:"), (store_url::REDACTED, "memory:")];
    assert_eq!(load(file, &variables, None, Flags::default()).unwrap().store.value, "memory:");
}

#[test]
fn the_command_is_told_when_a_password_was_taken_out() {
    let redacted = |url| store_url::for_the_command(url, "shown")[1].1.clone();
    assert_eq!(redacted("redis://:secret@h/0"), "shown");
    assert_eq!(redacted("redis+unix:///run/r.sock?password=x"), "shown");
    assert_eq!(redacted("redis://h:6379/0"), "");
    assert_eq!(redacted("sqlite:/a@b:c.db"), "");
}
