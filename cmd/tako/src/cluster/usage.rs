//! What is printed when a cluster is ready: every line can be copied and works.

use std::{fmt::Write as _, path::Path};

use super::{ClusterArgs, Folder, Plan, Planned, Role};
use crate::http::Http;

/// The text for the person at the terminal.
pub(super) fn text(
    plan: &Plan,
    http: &Http,
    args: &ClusterArgs,
    folder: &Folder,
    file: &Path,
) -> String {
    let count = |role, one: &str, more: &str| match plan.of(role).count() {
        1 => format!("1 {one}"),
        n => format!("{n} {more}"),
    };
    let var = folder.var().display();
    let mut out = format!(
        "\nThe cluster is ready: {}, {}, {}; configuration {}\n",
        count(Role::Node, "node", "nodes"),
        count(Role::Coordinator, "coordinator", "coordinators"),
        count(Role::Proxy, "proxy", "proxies"),
        file.display(),
    );
    let proxies = plan.of(Role::Proxy).filter_map(Planned::http);
    if let Some(url) = proxies.map(|address| http.url(address)).next() {
        let curl = curl(args);
        let _ = write!(
            out,
            "
  {curl} -X PUT -H 'Content-Type: text/plain' -d 'hello' {url}/values/greeting
  {curl} {url}/values/greeting
  {curl} {url}/stat/greeting
  {curl} -X DELETE {url}/values/greeting
  {curl} {url}/cluster
"
        );
    }
    let others = plan.processes.iter().filter_map(|p| Some((&p.id, p.http()?)));
    let others: Vec<_> =
        others.map(|(id, address)| format!("{id} {}", http.url(address))).collect();
    let _ = writeln!(out, "\nEvery one of these serves every key: {}", others.join(", "));
    let _ = writeln!(out, "Logs are in {var}/log, data in {var}/data.");
    if let Some(node) = plan.of(Role::Node).last() {
        let _ = write!(
            out,
            "
Kill a node, and start it again (in another terminal; stop that one by Ctrl-C there):
  kill -9 $(cat {})
  {} {}
",
            quote(&folder.pid_path(&node.id).display().to_string()),
            quote(&program()),
            node.arguments.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
        );
    }
    out.push_str("\nCtrl-C stops everything.");
    out
}

/// `curl` with what this cluster asks of clients.
fn curl(args: &ClusterArgs) -> String {
    let mut curl = "curl".to_owned();
    if let Some(folder) = &args.tls.tls {
        let _ = write!(curl, " --cacert {}", quote(&folder.join("ca.pem").display().to_string()));
    }
    if args.access.tokens.is_some() {
        curl += " -H \"Authorization: Bearer $TAKO_TOKEN\"";
    }
    curl
}

/// This program, as seen from the current folder where it lies below it.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "tako".to_owned() };
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| program.strip_prefix(here).map(Path::to_owned).ok());
    below.unwrap_or(program).display().to_string()
}

/// A word as a shell reads it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_misread_them() {
        assert_eq!(quote("./var/run"), "./var/run");
        assert_eq!(quote("my var"), "'my var'");
        assert_eq!(quote("it's"), "'it'\\''s'");
        assert_eq!(quote(""), "''");
    }
}
