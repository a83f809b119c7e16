//! One conversation by the crate `memcache`, in the text and in the binary protocol.

use memcache::{Client, MemcacheError};

fn main() -> Result<(), MemcacheError> {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("HOST PORT");
    let port = arguments.next().expect("HOST PORT");
    for protocol in ["ascii", "binary"] {
        converse(&format!("memcache://{host}:{port}?timeout=10&protocol={protocol}"), protocol)?;
    }
    println!("ok");
    Ok(())
}

fn converse(url: &str, protocol: &str) -> Result<(), MemcacheError> {
    let client = Client::connect(url)?;
    let key = format!("rs-{protocol}");
    client.set(&key, "41", 100)?;
    assert_eq!(client.get::<String>(&key)?.as_deref(), Some("41"));
    // In the text protocol this crate does not tell.
    assert_eq!(client.add(&key, "x", 0).is_err(), protocol == "binary");
    assert_eq!(client.increment(&key, 1)?, 42);
    assert_eq!(client.decrement(&key, 2)?, 40);
    let found = client.gets::<(Vec<u8>, u32, Option<u64>)>(&[&key])?;
    let token = found[&key].2.expect("a token");
    assert!(client.cas(&key, "7", 0, token)?);
    assert!(!client.cas(&key, "8", 0, token)?);
    client.append(&key, "!")?;
    client.prepend(&key, "_")?;
    assert_eq!(client.get::<String>(&key)?.as_deref(), Some("_7!"));
    let keys: Vec<String> = (0..100).map(|n| format!("{key}-{n}")).collect();
    for one in &keys {
        client.set(one, one.as_str(), 0)?;
    }
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(client.gets::<String>(&names)?.len(), 100);
    assert!(client.touch(&key, 100)?);
    assert!(client.delete(&key)? && !client.delete(&key)?);
    assert_eq!(client.get::<String>(&key)?, None);
    Ok(())
}
