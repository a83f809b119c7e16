//! `tako ctl get`, `put`, `delete`: one value by hand, over HTTP at any node that serves it.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tako_types::ErrorKind;

use crate::{
    command::{
        coordinators::{CoordinatorsArgs, reason},
        migrate::CommonArgs,
        output::{Output, print, print_json},
    },
    failure::Failure,
    http::Http,
};

/// Longer than any request may take at a node.
const DEADLINE: Duration = Duration::from_secs(60);

/// Arguments of `tako ctl get`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl get users/1                            the value as it is, to standard output
  tako ctl get users/1 > file
  tako ctl get users/1 --url http://proxy:8080    from there, without asking a coordinator
  tako ctl get users/1 --output json              with its version

Exit code 3: there is no such value, and that is known.")]
pub(super) struct GetArgs {
    #[command(flatten)]
    at: AtArgs,
}

/// Arguments of `tako ctl put`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl put users/1 hello
  tako ctl put users/1 --file photo.jpg
  generate | tako ctl put users/1                 from standard input")]
pub(super) struct PutArgs {
    #[command(flatten)]
    at: AtArgs,
    /// The value; without it and --file, standard input
    #[arg(value_name = "VALUE", conflicts_with = "file")]
    value: Option<String>,
    /// The value is this file's content
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Seconds, or a duration such as 1h, after which the value is gone
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
}

/// Arguments of `tako ctl delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tako ctl delete users/1")]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    at: AtArgs,
}

/// Which key, and who is asked.
#[derive(Debug, Args)]
struct AtArgs {
    /// The key as it is, without escapes
    #[arg(value_name = "KEY")]
    key: String,
    /// Form of what is printed: as JSON, version and time of the write beside a value
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    url: AtUrl,
}

/// Who is asked.
#[derive(Debug, Args)]
pub(super) struct AtUrl {
    /// A node or proxy to ask, instead of any node of the configuration
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    coordinators: CoordinatorsArgs,
}

pub(super) async fn get(args: GetArgs) -> Result<ExitCode, Failure> {
    let answer = args.at.ask(Method::GET, |request| request).await?;
    let mut told = args.at.told(&answer);
    told["content_type"] = header(&answer, "content-type").into();
    let bytes = answer.bytes().await.map_err(|error| Failure::unavailable(reason(&error)))?;
    if args.at.output == Output::Json {
        match std::str::from_utf8(&bytes) {
            Ok(text) => told["value"] = text.into(),
            Err(_) => told["value_base64"] = BASE64_STANDARD.encode(&bytes).into(),
        }
        print_json(&told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout();
    out.write_all(&bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::unavailable(format!("cannot write: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn put(args: PutArgs) -> Result<ExitCode, Failure> {
    let value = match (args.value, &args.file) {
        (Some(value), _) => value.into_bytes(),
        (None, Some(file)) => fs::read(file)
            .map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?,
        (None, None) => {
            let mut value = Vec::new();
            let read = io::stdin().read_to_end(&mut value);
            read.map_err(|error| Failure::invalid(format!("standard input: {error}")))?;
            value
        }
    };
    let with = |request: RequestBuilder| match &args.ttl {
        Some(ttl) => request.header("x-tako-ttl", ttl).body(value.clone()),
        None => request.body(value.clone()),
    };
    args.at.written(&args.at.ask(Method::PUT, with).await?)
}

pub(super) async fn delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    args.at.written(&args.at.ask(Method::DELETE, |request| request).await?)
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The version of an answer, as its ETag.
fn version(answer: &Response) -> &str {
    header(answer, "etag").trim_matches('"')
}

impl AtArgs {
    /// What an answer says of the key, for machines; `timestamp` in microseconds.
    fn told(&self, answer: &Response) -> Value {
        let timestamp = header(answer, "x-timestamp").parse::<u64>().ok();
        json!({"key": self.key, "version": version(answer), "timestamp": timestamp})
    }

    /// Prints which version holds after a write.
    fn written(&self, answer: &Response) -> Result<ExitCode, Failure> {
        match self.output {
            Output::Text => print(version(answer))?,
            Output::Json => print_json(&self.told(answer))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(
        &self,
        method: Method,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let path = format!("values/{}", escaped(self.key.as_bytes()));
        self.url.ask(method, &path, with).await
    }
}

impl AtUrl {
    /// The body of an answer to a GET.
    pub(super) async fn get(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.ask(Method::GET, path, |request| request).await?;
        let bytes = answer.bytes().await.map_err(|error| Failure::unavailable(reason(&error)))?;
        Ok(bytes.into())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let http = Http::new(&self.coordinators.ask)?;
        let mut troubles = Vec::new();
        for url in self.urls(&http).await? {
            let address = format!("{url}/{path}");
            match with(http.at(method.clone(), address).timeout(DEADLINE)).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => return Err(refusal(&url, answer).await),
                // It was not begun there: another one may be asked.
                Err(error) if error.is_connect() => {
                    troubles.push(format!("{url}: {}", reason(&error)));
                }
                Err(error) => return Err(unanswered(&url, &error)),
            }
        }
        Err(Failure::unavailable(match troubles.is_empty() {
            true => "no node has an HTTP port; give --url of a proxy".to_owned(),
            false => troubles.join("; "),
        }))
    }

    async fn urls(&self, http: &Http) -> Result<Vec<String>, Failure> {
        if let Some(url) = &self.url {
            let url = url.trim_end_matches('/');
            return Ok(vec![match url.contains("://") {
                true => url.to_owned(),
                false => http.url(url),
            }]);
        }
        let common = CommonArgs { coordinators: self.coordinators.clone(), output: Output::Text };
        let (_, view) = common.look().await?;
        let active = view.published.config.active_deployment();
        let addresses = active.nodes().filter_map(|node| node.http_address());
        Ok(addresses.map(|address| http.url(address)).collect())
    }
}

/// It may have been begun: for a write the outcome is unknown.
fn unanswered(url: &str, error: &reqwest::Error) -> Failure {
    let why = reason(error);
    Failure::unavailable(format!(
        "{url}: {why}; whether a write was made is unknown, read it before going on"
    ))
}

/// What a server says that does not do it.
async fn refusal(url: &str, answer: Response) -> Failure {
    let status = answer.status();
    let kind = match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        _ if status.is_client_error() => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    let body: Value = answer
        .bytes()
        .await
        .ok()
        .and_then(|body| serde_json::from_slice(&body).ok())
        .unwrap_or_default();
    let said = body["detail"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    Failure::new(kind, format!("{url}: {said}"))
}

/// Every byte that is no letter or digit as `%XX`: nothing of a key can mean anything to a path.
pub(super) fn escaped(key: &[u8]) -> String {
    key.iter().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}
