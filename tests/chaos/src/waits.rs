//! What a running cluster says of itself, and waits for it, each with a deadline.
//!
//! Asks over HTTP only, as an operator would (`/cluster`, `/readyz`).

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Member, empty},
    http::Http,
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const SHORT: Duration = Duration::from_secs(5);

impl Cluster {
    /// What a process says at `/cluster`.
    pub async fn status(&self, member: &Member) -> Option<Value> {
        Http::new(&member.http).json("/cluster", SHORT).await
    }

    /// What a node says of itself.
    pub async fn own_status(&self, node: &Member) -> Option<Value> {
        let status = self.status(node).await?;
        status["nodes"].as_array()?.iter().find(|it| it["id"] == node.id.as_str()).cloned()
    }

    /// Waits until a node serves.
    ///
    /// # Errors
    /// When it takes longer than `patience`; says what the node said last.
    pub async fn serving(&self, node: &Member, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        loop {
            let status = self.own_status(node).await;
            if status.as_ref().is_some_and(|it| it["state"] == "serving") {
                return Ok(());
            }
            if until < Instant::now() {
                bail!("{} does not serve within {patience:?}: {status:?}", node.id);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until all serve and the proxy is ready.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub async fn ready(&self, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        for node in &self.nodes {
            self.serving(node, until.saturating_duration_since(Instant::now())).await?;
        }
        for member in self.nodes.iter().chain([&self.proxy]) {
            let mut http = Http::new(&member.http);
            loop {
                let answer = http.ask("GET", "/readyz", &[], b"", SHORT).await;
                if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                if until < Instant::now() {
                    bail!("{} is not ready within {patience:?}: {answer:?}", member.id);
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Waits until nothing is uncovered at any node, and all see the same steps.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub async fn quiet(&self, patience: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        let mut last = String::new();
        while Instant::now() < until {
            let mut steps = Vec::new();
            let mut quiet = true;
            for node in &self.nodes {
                let Some(status) = self.own_status(node).await else { break };
                let held = status["held"].as_array().cloned().unwrap_or_default();
                quiet &= !held.is_empty();
                quiet &= held.iter().all(|p| p["uncovered"] == 0 && p["quiet"] == true);
                let step = |p: &Value| (p["partition"].as_u64(), p["step"].as_u64());
                steps.push(held.iter().map(step).collect::<Vec<_>>());
                last = status.to_string();
            }
            let alike = steps.windows(2).all(|two| two[0] == two[1]);
            if quiet && alike && steps.len() == self.nodes.len() {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("not quiet within {patience:?}; a node said {last}")
    }

    /// Kills all nodes, deletes what they had, and starts them again: the store alone is left.
    ///
    /// # Errors
    /// What of the surroundings fails.
    pub async fn rebuild(&self, patience: Duration) -> anyhow::Result<()> {
        for node in &self.nodes {
            self.kill(node).await;
        }
        for node in &self.nodes {
            empty(&node.var)?;
        }
        self.start_all().await?;
        self.ready(patience).await
    }
}
