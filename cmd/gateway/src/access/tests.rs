//! Claims about tokens: what the file may say, what each may do, how often.

use std::{fs, time::Duration};

use super::{rate::Rate, *};

fn hex(secret: &str) -> String {
    digest_of(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn access(text: &str) -> (tempfile::TempDir, Arc<Access>) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    fs::write(&path, text).expect("written");
    (folder, Access::open(&path).expect("tokens"))
}

#[test]
fn a_token_may_what_its_scopes_and_prefixes_say_and_nothing_else() {
    let (_folder, access) = access(&format!(
        "shop: {{sha256: {}, scopes: [read, write], prefixes: [cart/, user/]}}\n\
         eye: {{sha256: {}, scopes: [monitor]}}\nroot: {{sha256: {}, scopes: [admin]}}\n",
        hex("s"),
        hex("e"),
        hex("r")
    ));
    let grant = |secret: &str| access.enter(None, secret.as_bytes()).expect("known");
    let (shop, eye, root) = (grant("s"), grant("e"), grant("r"));
    assert_eq!(shop.may_touch(Scope::Write, b"cart/1"), Ok(()));
    assert_eq!(shop.may_touch(Scope::Read, b"cart"), Err(Refusal::Key));
    assert_eq!(shop.may_list(b"user/7"), Ok(()));
    assert_eq!(shop.may_list(b""), Err(Refusal::Key));
    assert_eq!(shop.may(Scope::Monitor), Err(Refusal::Scope(Scope::Monitor)));
    assert_eq!(shop.may(Scope::Admin), Err(Refusal::Scope(Scope::Admin)));
    assert_eq!(eye.may(Scope::Monitor), Ok(()));
    assert_eq!(eye.may_touch(Scope::Read, b"cart/1"), Err(Refusal::Scope(Scope::Read)));
    for scope in [Scope::Read, Scope::Write, Scope::Monitor, Scope::Admin] {
        assert_eq!(root.may_touch(scope, b"anything"), Ok(()));
    }
    assert!(access.enter(None, b"").is_none() && access.enter(None, b"x").is_none());
    assert!(access.enter(Some("shop"), b"s").is_some());
    assert!(access.enter(Some("root"), b"s").is_none(), "a name of somebody else");
}

#[test]
fn a_token_taken_out_of_the_file_ends_for_those_who_are_in() {
    let line = |name: &str| format!("{name}: {{sha256: {}, scopes: [read]}}\n", hex(name));
    let (folder, access) = access(&(line("a") + &line("b")));
    let mut a = access.enter(None, b"a").expect("known");
    assert_eq!(a.request(1), Ok(()));
    let path = folder.path().join("tokens.yaml");
    fs::write(&path, "a: {}").expect("written");
    assert!(access.reload().is_err());
    assert_eq!(a.request(1), Ok(()), "a file that is wrong changes nothing");
    fs::write(&path, line("b")).expect("written");
    access.reload().expect("tokens");
    assert_eq!(a.request(1), Err(Refusal::Unknown));
    assert!(access.enter(None, b"a").is_none());
}

#[test]
fn a_rate_is_kept_over_time_allows_a_second_at_once_and_outlives_a_reload() {
    let rate = Rate::new(10);
    let taken = |rate: &Rate, at: u64| (0..100).filter(|_| rate.take(at).is_ok()).count();
    let second = 1_000_000;
    assert_eq!(taken(&rate, second), 10);
    assert_eq!(rate.take(second), Err(Duration::from_millis(100)));
    assert_eq!(taken(&rate, second + 250_000), 2);
    assert_eq!(taken(&rate, 100 * second), 10);
    // The clock is set back: no more than the burst is owed.
    assert_eq!(taken(&rate, 2 * second), 0);
    assert_eq!(taken(&rate, 3 * second), 10);
    assert_eq!(taken(&Rate::new(10).continued(&rate), 3 * second), 0);
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_the_name_of_the_token() {
    let good = hex("x");
    let check = |text: String, wanted: &[&str]| {
        let error = Tokens::parse(&text).map(drop).expect_err(&text);
        assert!(wanted.iter().all(|word| error.contains(word)), "{text}: {error}");
    };
    check(
        "a: {sha256: abc, scopes: [read]}".into(),
        &["a:", "64 hexadecimal digits", "tako token"],
    );
    check(format!("a: {{sha256: {good}, scopes: []}}"), &["a:", "scopes"]);
    check(format!("a: {{sha256: {good}, scopes: [all]}}"), &["unknown variant", "admin"]);
    check(format!("a: {{sha256: {good}, scopes: [read], prefix: x}}"), &["prefix"]);
    check(format!("a: {{sha256: {good}, scopes: [admin], prefixes: [x]}}"), &["a:", "admin"]);
    check(format!("a: {{sha256: {good}, scopes: [read], prefixes: []}}"), &["a:", "prefixes"]);
    check(format!("a: {{sha256: {good}, scopes: [read], rate: 0}}"), &["a:", "rate"]);
    check(format!("a b: {{sha256: {good}, scopes: [read]}}"), &["a b:", "name"]);
    check(String::from("{}"), &["no token"]);
    check(String::from("- a"), &["sequence", "NAME: {sha256"]);
    let once = format!("a: {{sha256: {good}, scopes: [read]}}\n");
    check(format!("{once}{once}"), &["duplicate", "\"a\""]);
    let twins =
        format!("a: {{sha256: {good}, scopes: [read]}}\nb: {{sha256: {good}, scopes: [read]}}");
    check(twins, &["same token"]);
}
