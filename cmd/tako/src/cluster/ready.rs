//! Whether the cluster serves yet, and what is missing: asks `/readyz` until all proxies say yes.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use tako_types::config::Address;
use tokio::time::Instant;

use super::{Plan, Role, say};
use crate::http::Http;

const ASK_EVERY: Duration = Duration::from_millis(100);
const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// What fits into a narrow terminal.
const LINE_CHARACTERS: usize = 79;
/// How often a launcher without a terminal says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Returns when every proxy is ready.
pub(super) async fn wait(plan: &Plan, http: &Http) {
    let terminal = io::stderr().is_terminal();
    let mut say_next = Instant::now() + SAY_EVERY;
    loop {
        let Some(missing) = missing(plan, http).await else {
            if terminal {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
            return;
        };
        let line = format!("waiting for {missing}");
        if terminal {
            // One line, however long the reasons are.
            let line: String = line.chars().take(LINE_CHARACTERS).collect();
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        } else if say_next <= Instant::now() {
            say(line);
            say_next = Instant::now() + SAY_EVERY;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Whom the proxies wait for and why; `None` when all of them are ready.
async fn missing(plan: &Plan, http: &Http) -> Option<String> {
    let (mut silent, mut reasons) = (Vec::new(), Vec::new());
    let mut proxies_ready = true;
    for process in &plan.processes {
        let Some(address) = process.http() else { continue };
        let Err(reason) = ask(http, address).await else { continue };
        let is_proxy = process.role == Role::Proxy;
        proxies_ready &= !is_proxy;
        match reason {
            None => silent.push(process.id.as_str()),
            // Nodes give the same reasons.
            Some(reason) if is_proxy => reasons.push(format!("{}: {reason}", process.id)),
            Some(_) => {}
        }
    }
    match (proxies_ready, silent.is_empty()) {
        (true, _) => None,
        (false, true) => Some(reasons.join("; ")),
        (false, false) => Some(format!("an answer from {}", silent.join(", "))),
    }
}

/// Why a process is not ready; `Err(None)` when it does not answer at all.
async fn ask(http: &Http, address: &Address) -> Result<(), Option<String>> {
    let request = http.get(address, "/readyz").timeout(ASK_DEADLINE);
    let answer = request.send().await.map_err(|_| None)?;
    if answer.status().is_success() {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    let problem: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    Err(Some(detail.unwrap_or("not ready").to_owned()))
}
