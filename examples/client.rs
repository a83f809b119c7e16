//! The Rust client: writes, reads, changes, batches and lists on a running cluster.
//!
//! ```sh
//! cargo run --release -- cluster                                          # prints its coordinator's port
//! cargo run --release -p tako-node-core --example client -- 127.0.0.1:17400
//! ```

use std::{env, error::Error, time::Duration};

use tako_node_core::client::{Client, ClientError, Condition, Put};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let coordinators: Vec<String> = env::args().skip(1).collect();
    if coordinators.is_empty() {
        return Err("name the coordinators: client HOST:PORT…".into());
    }
    let client = Client::connect(coordinators).await?;

    client.put("greeting", "hello").await?;
    let value = client.get("greeting").await?.ok_or("it was written a moment ago")?;
    println!("greeting: {} (version {})", String::from_utf8_lossy(&value.bytes), value.version);

    // Only if nobody changed it meanwhile.
    let later = Put::new("hello again").content_type("text/plain").ttl(Duration::from_secs(3600));
    match client.put_if("greeting", Condition::OneOf(vec![value.version]), later).await {
        Ok(version) => println!("changed: version {version}"),
        Err(ClientError::Condition { .. }) => println!("somebody else changed it first"),
        Err(other) => return Err(other.into()),
    }

    client.put("visits", "0").await?;
    println!("visits: {}", client.add("visits", 1).await?);

    let fruit = [("fruit/apple", "red"), ("fruit/pear", "green"), ("fruit/plum", "blue")];
    for written in client.put_many(fruit).await {
        written?;
    }
    for value in client.get_many(fruit.map(|(key, _)| key)).await {
        println!("fruit: {}", value?.map_or(0, |value| value.bytes.len()));
    }
    let mut listing = client.list("fruit/", None);
    for entry in listing.next(100).await? {
        println!("{} ({} bytes)", String::from_utf8_lossy(&entry.key), entry.stat.value_bytes);
    }
    for deleted in client.delete_many(fruit.map(|(key, _)| key)).await {
        deleted?;
    }
    client.close().await;
    Ok(())
}
