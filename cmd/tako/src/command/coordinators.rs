//! The coordinators as commands reach them: what is in force, who gives the numbers, orders to it.
//!
//! One address that answers is enough: the document names the others, and the newest document counts.
//! Orders go to the master, and only for the document that they were made for (`If-Match`). Every
//! call has a deadline. Not here: what is ordered.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use clap::Args;
use futures::future::join_all;
use reqwest::Method;
use serde_json::Value;
use tako_coordinator::Nodes;
use tako_flatbuf::Certificates;
use tako_types::{
    ErrorKind,
    config::{Config, Published},
};

use crate::{
    arguments::host_and_port,
    failure::Failure,
    http::Http,
    trust::{AskArgs, between_members},
};

const ASK_DEADLINE: Duration = Duration::from_secs(3);
/// A coordinator asks the store, and writes to it.
const ORDER_DEADLINE: Duration = Duration::from_secs(40);

/// Which coordinators a command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct CoordinatorsArgs {
    /// A coordinator to ask; give it again for more. It finds the others by itself
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        value_parser = host_and_port,
        default_value = "localhost:17400"
    )]
    coordinator: Vec<String>,
    /// The master is gone for good: a coordinator that answers becomes it
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// See the module.
pub(crate) struct Coordinators {
    http: Http,
    certificates: Option<Arc<Certificates>>,
    given: Vec<String>,
    take_over: bool,
}

/// What one coordinator says.
struct Answer {
    address: String,
    published: Published,
    etag: String,
    status: Value,
}

/// What is in force.
pub(crate) struct View {
    /// The newest document that any of them has.
    pub(crate) published: Published,
    /// What the master says of itself at `/status`; where it does not answer, another one.
    pub(crate) status: Value,
    etag: String,
    /// Where orders go.
    master: Result<String, String>,
    /// The id of whoever orders go to instead, with `--take-over`.
    heir: Option<String>,
}

impl Coordinators {
    pub(crate) fn new(args: &CoordinatorsArgs) -> Result<Self, Failure> {
        Ok(Self {
            http: Http::new(&args.ask)?,
            certificates: args.ask.tls.open()?,
            given: args.coordinator.clone(),
            take_over: args.take_over,
        })
    }

    /// The nodes, as a command asks them.
    pub(crate) fn nodes(&self) -> Nodes {
        nodes(self.certificates.clone())
    }

    /// Asks all that are given and all that these name.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when none answers.
    pub(crate) async fn view(&self) -> Result<View, Failure> {
        let mut answers = self.ask_all(self.given.iter().cloned()).await?;
        let known: BTreeSet<&String> = self.given.iter().collect();
        let newest = newest(&answers)?;
        let named = newest.published.config.coordinators.values().map(ToString::to_string);
        let more: Vec<String> = named.filter(|address| !known.contains(address)).collect();
        if 1 < newest.published.config.coordinators.len() {
            // One that is named and does not answer is nothing new to anybody.
            answers.extend(self.ask_all(more.into_iter()).await.unwrap_or_default());
        }
        self.view_of(&answers)
    }

    fn view_of(&self, answers: &[Answer]) -> Result<View, Failure> {
        let newest = newest(answers)?;
        let id_of = |answer: &Answer| answer.status["id"].as_str().map(str::to_owned);
        let named = newest.published.config.master().map(str::to_owned);
        let master = match &named {
            Some(master) => answers.iter().find(|answer| id_of(answer).as_ref() == Some(master)),
            // Any of them: the store lets only one document have a number.
            None => Some(newest),
        };
        let (master, heir) = match (master, self.take_over) {
            (Some(master), _) => (Ok(master), None),
            (None, true) => (Ok(newest), id_of(newest)),
            (None, false) => (Err(named.unwrap_or_default()), None),
        };
        let status = master.as_ref().map_or(&newest.status, |master| &master.status).clone();
        let master = match master {
            Ok(answer) => Ok(answer.address.clone()),
            Err(id) => Err(format!(
                "the master coordinator {id} does not answer; start it again, or, if it is gone for \
                 good, give --take-over to make another one master"
            )),
        };
        Ok(View {
            published: newest.published.clone(),
            status,
            etag: newest.etag.clone(),
            master,
            heir,
        })
    }

    /// What all that answer say.
    async fn ask_all(
        &self,
        addresses: impl Iterator<Item = String>,
    ) -> Result<Vec<Answer>, Failure> {
        let asked = join_all(addresses.map(async |address| {
            let answer = self.ask(&address).await;
            answer.map_err(|error| format!("the coordinator at {address}: {error}"))
        }));
        let (mut answers, mut troubles) = (Vec::new(), Vec::new());
        for answer in asked.await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(trouble) => troubles.push(trouble),
            }
        }
        match answers.is_empty() {
            true => Err(Failure::unavailable(troubles.join("; "))),
            false => Ok(answers),
        }
    }

    async fn ask(&self, address: &str) -> Result<Answer, String> {
        let (etag, bytes) = self.get(address, "/configuration").await?;
        let published = Published::decode(&bytes).map_err(|error| error.to_string())?;
        let (_, status) = self.get(address, "/status").await?;
        let status = serde_json::from_slice(&status).map_err(|error| error.to_string())?;
        Ok(Answer { address: address.to_owned(), published, etag, status })
    }

    /// `ETag` and body.
    async fn get(&self, address: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        let request = self.http.get(address, path).timeout(ASK_DEADLINE);
        let answer = request.send().await.map_err(|error| reason(&error))?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let etag = answer.headers().get("etag").and_then(|etag| etag.to_str().ok());
        let etag = etag.unwrap_or_default().to_owned();
        let bytes = answer.bytes().await.map_err(|error| reason(&error))?;
        Ok((etag, bytes.into()))
    }

    /// Has `config` taken, if what `view` shows is still in force; the master's status then.
    ///
    /// # Errors
    /// The kind tells why not: [`ErrorKind::StaleEpoch`] when something else is in force by now.
    pub(crate) async fn order(&self, view: &View, config: &Config) -> Result<Value, Failure> {
        let address = view.master.as_ref().map_err(|why| Failure::unavailable(why.as_str()))?;
        let mut config = config.clone();
        if let Some(heir) = &view.heir {
            config.master_coordinator = Some(heir.clone());
            config.epoch = Some(view.published.epoch.number.saturating_add(1));
        }
        let request = self
            .http
            .request(Method::PUT, address, "/configuration")
            .timeout(ORDER_DEADLINE)
            .header("if-match", &view.etag)
            .body(config.to_yaml());
        let unknown = |error: reqwest::Error| {
            let why = reason(&error);
            Failure::unavailable(format!(
                "the coordinator at {address}: {why}; whether the order was taken is unknown, it can \
                 be repeated"
            ))
        };
        let answer = request.send().await.map_err(unknown)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unknown)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let kind = match status.as_u16() {
            400 | 413 => ErrorKind::Invalid,
            409 => ErrorKind::Conflict,
            412 => ErrorKind::StaleEpoch,
            503 => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        let said = body["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(Failure::new(kind, format!("the coordinator at {address} refuses: {said}")))
    }
}

/// The nodes, asked by RPC.
pub(crate) fn nodes(certificates: Option<Arc<Certificates>>) -> Nodes {
    Nodes::new(between_members(certificates), "tako")
}

fn newest(answers: &[Answer]) -> Result<&Answer, Failure> {
    let newest = answers.iter().max_by_key(|answer| answer.published.epoch.number);
    newest.ok_or_else(|| Failure::unavailable("no coordinator answers"))
}

/// Why a request has no answer: the cause behind all others says it best.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
