//! Which processes a configuration asks for, with which arguments and ports. Pure.
//!
//! In: configuration, its file, the launcher's arguments. Out: [`Plan`], in the order of starting:
//! coordinators, nodes, proxies.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use tako_types::config::{Address, Config};

use super::ClusterArgs;
use crate::{failure::Failure, logs::LogArgs, trust::AccessArgs};

/// Time for a node to drain when the cluster stops: its journal keeps what is left.
const DRAIN: &str = "5s";

/// What a process is; in the order of stopping, which is the opposite of starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Proxy,
    Node,
    Coordinator,
}

impl Role {
    /// The subcommand.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Node => "node",
            Self::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) role: Role,
    pub(super) id: String,
    /// What a person would type after the program's name.
    pub(super) arguments: Vec<String>,
    /// What the launcher adds for its own children.
    pub(super) hidden: Vec<String>,
    /// What it listens on and for what.
    pub(super) ports: Vec<(&'static str, Address)>,
}

impl Planned {
    /// Where it answers `/readyz`.
    pub(super) fn http(&self) -> Option<&Address> {
        let found = self.ports.iter().find(|(what, _)| *what == "HTTP");
        found.map(|(_, address)| address).filter(|_| self.role != Role::Coordinator)
    }
}

/// All processes of one cluster.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) processes: Vec<Planned>,
}

impl Plan {
    /// Lays the cluster out.
    ///
    /// # Errors
    /// One name for two processes.
    pub(super) fn new(
        config: &Config,
        file: &Path,
        args: &ClusterArgs,
        logs: &LogArgs,
    ) -> Result<Self, Failure> {
        let shared = Shared::new(config, file, args, logs);
        let mut processes = Vec::new();
        for (id, address) in &config.coordinators {
            let mut arguments = vec!["--id".into(), id.clone()];
            arguments.extend(["--config".into(), path(file)]);
            let store = shared.coordinator_store();
            arguments.extend(store.into_iter().flat_map(|store| ["--store".into(), store]));
            let ports = vec![("HTTP", address.clone())];
            processes.push(shared.process(Role::Coordinator, id, arguments, ports));
        }
        // Those that a migration brings start at once; most often some of them are in both.
        let active = config.active_deployment();
        let target = config.target_deployment().into_iter().flat_map(|it| it.nodes());
        let new = target.filter(|node| active.nodes().all(|known| known.id != node.id));
        for node in active.nodes().chain(new) {
            let mut arguments = vec!["--id".into(), node.id.to_string()];
            arguments.extend(shared.source.clone());
            let store = args.store.iter();
            arguments.extend(store.flat_map(|store| ["--store".into(), store.clone()]));
            let mut ports = vec![("RPC", node.rpc_address())];
            ports.extend(node.http_address().map(|address| ("HTTP", address)));
            ports.extend(node.memcached_address().map(|address| ("memcached", address)));
            processes.push(shared.process(Role::Node, node.id.as_str(), arguments, ports));
        }
        let taken = |id: &String| processes.iter().any(|p: &Planned| p.id == *id);
        let mut ids = (1..).map(|n| format!("p{n}")).filter(|id| !taken(id));
        let proxies: Vec<_> = ids.by_ref().zip(&args.proxies).collect();
        if proxies.len() < args.memcached.len() {
            let text = "--memcached is given more often than --proxy: each is a proxy's";
            return Err(Failure::invalid(text));
        }
        let memcached = args.memcached.iter().map(Some).chain(std::iter::repeat(None));
        for ((id, port), memcached) in proxies.into_iter().zip(memcached) {
            let mut arguments = vec!["--id".into(), id.clone()];
            arguments.extend(shared.source.clone());
            arguments.extend(["--port".into(), port.to_string()]);
            let here = |port: &u16| Address { host: "127.0.0.1".into(), port: *port };
            let mut ports = vec![("HTTP", here(port))];
            if let Some(port) = memcached {
                arguments.extend(["--memcached-port".into(), port.to_string()]);
                ports.push(("memcached", here(port)));
            }
            processes.push(shared.process(Role::Proxy, &id, arguments, ports));
        }
        let mut seen = HashMap::new();
        for process in &processes {
            if let Some(other) = seen.insert(process.id.as_str(), process.role) {
                return Err(Failure::invalid(format!(
                    "`{}` names a {other} and a {}; `tako cluster` needs different names",
                    process.id, process.role
                )));
            }
        }
        Ok(Self { processes })
    }

    /// The processes of a role.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = &Planned> {
        self.processes.iter().filter(move |process| process.role == role)
    }
}

/// What all processes get.
struct Shared {
    /// `--coordinator …` or `--config …`.
    source: Vec<String>,
    var: PathBuf,
    common: Vec<String>,
    /// Of those that serve clients.
    access: Vec<String>,
    hidden: Vec<String>,
    store: Option<String>,
    store_configured: bool,
}

impl Shared {
    fn new(config: &Config, file: &Path, args: &ClusterArgs, logs: &LogArgs) -> Self {
        let mut source: Vec<String> = config
            .coordinators
            .values()
            .flat_map(|address| ["--coordinator".into(), address.to_string()])
            .collect();
        if source.is_empty() {
            source.extend(["--config".into(), path(file)]);
        }
        let mut common = vec!["--var".into(), path(&args.var)];
        common.extend(args.insecure.then(|| "--insecure".to_owned()));
        common.extend(args.tls.tls.iter().flat_map(|folder| ["--tls".into(), path(folder)]));
        let AccessArgs { tokens, memcached_plain } = &args.access;
        let mut access = Vec::new();
        access.extend(tokens.iter().flat_map(|file| ["--tokens".into(), path(file)]));
        access.extend(memcached_plain.then(|| "--memcached-plain".to_owned()));
        let hidden = ["--stop-with-parent", "--log", &logs.log, "--log-format"];
        let mut hidden = hidden.map(str::to_owned).to_vec();
        hidden.push(logs.log_format.as_str().into());
        let store_configured = config.cluster.store.is_some();
        Self {
            source,
            var: args.var.clone(),
            common,
            access,
            hidden,
            store: args.store.clone(),
            store_configured,
        }
    }

    /// Nodes take the folder VAR/store by themselves; a coordinator has to be told.
    fn coordinator_store(&self) -> Option<String> {
        let fallback = || (!self.store_configured).then(|| path(&self.var.join("store")));
        self.store.clone().or_else(fallback)
    }

    fn process(
        &self,
        role: Role,
        id: &str,
        own: Vec<String>,
        ports: Vec<(&'static str, Address)>,
    ) -> Planned {
        let mut arguments = vec![role.as_str().to_owned()];
        arguments.extend(own);
        arguments.extend(self.common.clone());
        if role != Role::Coordinator {
            arguments.extend(self.access.clone());
        }
        let mut hidden = self.hidden.clone();
        if role == Role::Node {
            hidden.extend(["--drain-timeout".into(), DRAIN.into()]);
        }
        Planned { role, id: id.to_owned(), arguments, hidden, ports }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    const CONFIG: &str = "active_deployment: a\n\
                          deployments: {a: {hash: {buckets_per_key: 1}, buckets: {b: \
                          {n1: [h, 1, 2], p1: [h, 3]}}}}\n";

    fn plan(config: &str, line: &str) -> Result<Plan, Failure> {
        let arguments = Arguments::parse_from(line.split(' '));
        let Command::Cluster(args) = arguments.command else { panic!("not a cluster: {line}") };
        let config = Config::parse(config).expect("valid");
        Plan::new(&config, Path::new("c.yaml"), &args, &arguments.logs)
    }

    #[test]
    fn every_planned_command_line_is_one_the_program_takes() {
        let with = format!("{CONFIG}coordinators: {{c1: [h, 5], c2: [h, 6]}}\n");
        for (config, line) in [
            (CONFIG, "tako cluster c.yaml -p 7 -p 8"),
            (&with, "tako cluster c.yaml --store s3://b/p --insecure --log debug"),
            (&with, "tako cluster c.yaml --tls t --tokens t.yaml --memcached 9 --memcached-plain"),
        ] {
            let plan = plan(config, line).expect("a plan");
            for process in &plan.processes {
                let words = ["tako".to_owned()].into_iter();
                let words = words.chain(process.arguments.clone()).chain(process.hidden.clone());
                let words: Vec<String> = words.collect();
                assert!(Arguments::try_parse_from(&words).is_ok(), "{words:?}");
            }
        }
    }

    #[test]
    fn proxies_take_names_that_are_free_and_a_node_without_http_has_one_port() {
        let plan = plan(CONFIG, "tako cluster c.yaml -p 7 -p 8").expect("a plan");
        let ids: Vec<_> = plan.processes.iter().map(|p| (p.role, p.id.as_str())).collect();
        use Role::{Node, Proxy};
        assert_eq!(ids, [(Node, "n1"), (Node, "p1"), (Proxy, "p2"), (Proxy, "p3")]);
        assert_eq!(plan.processes[0].ports.len(), 2);
        assert!(plan.processes[1].http().is_none());
        assert!(plan.processes[0].arguments.join(" ").contains("--config c.yaml"));
    }

    #[test]
    fn one_name_for_two_processes_is_refused() {
        let config = format!("{CONFIG}coordinators: {{n1: [h, 9]}}\n");
        let error = plan(&config, "tako cluster c.yaml").expect_err("refused").to_string();
        assert!(error.contains("`n1`"), "{error}");
    }
}
