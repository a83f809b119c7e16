//! From settings to a store: memory, a folder of this machine, or S3.
//!
//! Invariant: configuration wins over `AWS_*` environment variables, which win over defaults.
//! Folders are created and written with fsync. Nothing is sent to the store here.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use object_store::{
    BackoffConfig, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    client::ClientConfigKey,
    local::LocalFileSystem,
    memory::InMemory,
    path::Path,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// One request's limit, body included: SlateDB moves up to 64 MiB in parts.
const REQUEST_TIMEOUT: &str = "60 seconds";
const CONNECT_TIMEOUT: &str = "5 seconds";
/// SlateDB and [`Store`] retry as well, so the client itself gives up early.
const CLIENT_RETRIES_MAX: usize = 3;
const CLIENT_RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the object store is and how to reach it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `file:///folder` (or a plain path), `memory://name`, or `s3://bucket/prefix`.
    pub url: String,
    /// S3: base URL of a server that is not AWS, such as `http://127.0.0.1:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3: region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: key id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// S3: secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<String>,
    /// S3: `true` puts the bucket in the path, `false` in the host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// S3: allow an endpoint without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,
}

/// Without the secret, because settings get logged.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "***"))
            .field("path_style", &self.path_style)
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

impl StoreSettings {
    /// Settings with only a URL.
    #[must_use]
    pub fn url(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }
}

impl From<&tako_types::config::StoreSettings> for StoreSettings {
    /// What the configuration leaves out (or `false`) is left to the environment.
    fn from(config: &tako_types::config::StoreSettings) -> Self {
        Self {
            url: config.url.clone(),
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            access_key_id: config.access_key_id.clone(),
            secret_access_key: config.secret_access_key.as_ref().map(|s| s.expose().to_owned()),
            path_style: config.path_style.then_some(true),
            allow_http: config.allow_http.then_some(true),
        }
    }
}

impl Store {
    /// Opens the store that `settings` name.
    ///
    /// Shape: `memory://name/prefix` is one store per name within the process.
    ///
    /// # Errors
    /// [`StoreError::Settings`] when they name none; [`StoreError::Io`] when the folder cannot be
    /// made.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let url = settings.url.trim();
        match url.split_once("://") {
            None if url.is_empty() => Err(wrong("the object store's url is empty".to_owned())),
            None => open_folder(PathBuf::from(url)),
            Some(("file", folder)) if folder.starts_with('/') => {
                let parsed = url::Url::parse(url).ok().and_then(|url| url.to_file_path().ok());
                open_folder(parsed.unwrap_or_else(|| PathBuf::from(folder)))
            }
            Some(("file", _)) => Err(wrong(format!("`{url}`: a file url has three slashes"))),
            Some(("memory", rest)) => {
                let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Self::new(shared_memory(name), Path::from(prefix), false))
            }
            Some(("s3", rest)) => open_s3(settings, rest),
            Some((scheme, _)) => Err(wrong(format!(
                "`{scheme}` is no kind of object store (file, memory and s3 are)"
            ))),
        }
    }
}

impl StoreSettings {
    /// The same, with another URL: a root in a store that is reached alike.
    #[must_use]
    pub fn with_url(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }
}

impl Store {
    /// Opens the store that `url` names as one of `settings`, by which this one was opened: another
    /// root in the same bucket shares its client.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_beside(&self, settings: &StoreSettings, url: &str) -> Result<Self, StoreError> {
        match (bucket_and_prefix(&settings.url), bucket_and_prefix(url)) {
            (Some((bucket, _)), Some((other, prefix))) if bucket == other => {
                Ok(self.with_root(Path::from(prefix)))
            }
            _ => Self::open(&settings.with_url(url)),
        }
    }
}

fn bucket_and_prefix(url: &str) -> Option<(&str, &str)> {
    let rest = url.trim().strip_prefix("s3://")?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

fn wrong(what: String) -> StoreError {
    StoreError::Settings { what }
}

fn open_folder(folder: PathBuf) -> Result<Store, StoreError> {
    let io = |source| StoreError::Io { doing: "open", path: folder.display().to_string(), source };
    std::fs::create_dir_all(&folder).map_err(|error| {
        io(object_store::Error::Generic { store: "folder", source: Box::new(error) })
    })?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(io)?.with_fsync(true);
    Ok(Store::new(Arc::new(store), Path::default(), true))
}

fn shared_memory(name: &str) -> Arc<InMemory> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<InMemory>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock();
    stores.entry(name.to_owned()).or_default().clone()
}

fn open_s3(settings: &StoreSettings, rest: &str) -> Result<Store, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong(format!("`{}` names no bucket", settings.url)));
    }
    // Fails only when another provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let builder = s3_builder(settings, bucket, environment.collect());
    let store = builder.build().map_err(|error| wrong(format!("`{}`: {error}", settings.url)))?;
    Ok(Store::new(Arc::new(store), Path::from(prefix), false))
}

/// The client's settings: the configuration's, else those of the environment, else defaults.
fn s3_builder(
    settings: &StoreSettings,
    bucket: &str,
    environment: Vec<(String, String)>,
) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (key, value) in left_to_environment(settings, environment) {
        builder = builder.with_config(key, value);
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT_TIMEOUT)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: CLIENT_RETRIES_MAX,
            retry_timeout: CLIENT_RETRY_TIMEOUT,
        });
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &settings.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &settings.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(path_style) = settings.path_style {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    if let Some(allow_http) = settings.allow_http {
        builder = builder.with_config(
            AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp),
            allow_http.to_string(),
        );
    }
    builder
}

/// The `AWS_*` variables, without those that would overrule the configuration under another name:
/// a second endpoint that the client prefers, and what belongs to other credentials.
fn left_to_environment(
    settings: &StoreSettings,
    environment: Vec<(String, String)>,
) -> Vec<(AmazonS3ConfigKey, String)> {
    let mut known: Vec<(AmazonS3ConfigKey, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
        .collect();
    let own_key = settings.access_key_id.as_ref();
    let same_key = known
        .iter()
        .any(|(key, value)| *key == AmazonS3ConfigKey::AccessKeyId && Some(value) == own_key);
    known.retain(|(key, _)| match key {
        AmazonS3ConfigKey::S3Endpoint => settings.endpoint.is_none(),
        AmazonS3ConfigKey::Token => own_key.is_none() || same_key,
        AmazonS3ConfigKey::SkipSignature => own_key.is_none(),
        _ => true,
    });
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_kind_and_root() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("a/b");
        let plain = Store::open(&StoreSettings::url(&path.display().to_string())).expect("plain");
        assert!(plain.is_local() && path.is_dir());
        let file = Store::open(&StoreSettings::url(&format!("file://{}", path.display())));
        assert!(file.expect("file").is_local());
        let memory = Store::open(&StoreSettings::url("memory://m/some/root")).expect("memory");
        assert_eq!(memory.root().as_ref(), "some/root");
        let s3 = StoreSettings {
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            region: Some("here".to_owned()),
            access_key_id: Some("a".to_owned()),
            secret_access_key: Some("bee".to_owned()),
            path_style: Some(true),
            allow_http: Some(true),
            ..StoreSettings::url("s3://bucket/c1")
        };
        assert!(!format!("{s3:?}").contains("bee"), "{s3:?}");
        let s3 = Store::open(&s3).expect("s3");
        assert_eq!(s3.root().as_ref(), "c1");
        assert!(!s3.is_local());
    }

    /// What the client is told for `config` (the body of `store:`) within an environment.
    fn s3(config: &str, environment: &[(&str, &str)]) -> impl Fn(AmazonS3ConfigKey) -> String {
        let text = format!(
            "store:\n    url: s3://bucket/c1\n{config}active_deployment: d\ndeployments:\n  d:\n    \
             hash: {{buckets_per_key: 1}}\n    buckets:\n      b1:\n        n1: [localhost, 4701]\n"
        );
        let parsed = tako_types::config::Config::parse(&text).expect("a valid configuration");
        let settings = StoreSettings::from(parsed.cluster.store.as_ref().expect("a store"));
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let builder = s3_builder(&settings, "bucket", environment.collect());
        move |key| builder.get_config_value(&key).unwrap_or_default()
    }

    const ALLOW_HTTP: AmazonS3ConfigKey = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);

    #[test]
    fn the_environment_says_what_the_configuration_leaves_out() {
        let environment = [
            ("AWS_ENDPOINT", "http://environment:9000"),
            ("AWS_REGION", "eu-1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
            ("AWS_BUCKET", "another"),
            ("ENDPOINT", "http://not-ours"),
        ];
        // `no` is the default, so it is no word against the environment either.
        for config in ["", "    path_style: no\n    allow_http: no\n"] {
            let told = s3(config, &environment);
            assert_eq!(told(AmazonS3ConfigKey::Endpoint), "http://environment:9000");
            assert_eq!(told(AmazonS3ConfigKey::Region), "eu-1");
            assert_eq!(told(AmazonS3ConfigKey::AccessKeyId), "id");
            assert_eq!(told(AmazonS3ConfigKey::SecretAccessKey), "secret");
            assert_eq!(told(AmazonS3ConfigKey::Token), "token");
            assert_eq!(told(ALLOW_HTTP), "true");
            assert_eq!(told(AmazonS3ConfigKey::VirtualHostedStyleRequest), "true");
            assert_eq!(told(AmazonS3ConfigKey::Bucket), "bucket");
        }
        let told = s3("", &[]);
        assert_eq!(told(ALLOW_HTTP), "false");
        assert_eq!(told(AmazonS3ConfigKey::Endpoint), "");
    }

    #[test]
    fn what_the_configuration_says_wins_over_the_environment() {
        let config = "    endpoint: http://configured:9000\n    region: us-2\n    \
                      access_key_id: own\n    secret_access_key: hidden\n    path_style: yes\n    \
                      allow_http: yes\n";
        let told = s3(
            config,
            &[
                ("AWS_ENDPOINT", "http://environment:9000"),
                ("AWS_ENDPOINT_URL_S3", "http://preferred:9000"),
                ("AWS_REGION", "eu-1"),
                ("AWS_DEFAULT_REGION", "eu-2"),
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("AWS_SESSION_TOKEN", "token"),
                ("AWS_SKIP_SIGNATURE", "true"),
                ("AWS_ALLOW_HTTP", "false"),
                ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
            ],
        );
        assert_eq!(told(AmazonS3ConfigKey::Endpoint), "http://configured:9000");
        assert_eq!(told(AmazonS3ConfigKey::S3Endpoint), "", "the client would prefer it");
        assert_eq!(told(AmazonS3ConfigKey::Region), "us-2");
        assert_eq!(told(AmazonS3ConfigKey::AccessKeyId), "own");
        assert_eq!(told(AmazonS3ConfigKey::SecretAccessKey), "hidden");
        assert_eq!(told(AmazonS3ConfigKey::Token), "", "it belongs to another key");
        assert_eq!(told(AmazonS3ConfigKey::SkipSignature), "false");
        assert_eq!(told(ALLOW_HTTP), "true");
        assert_eq!(told(AmazonS3ConfigKey::VirtualHostedStyleRequest), "false");
    }

    #[test]
    fn a_session_token_goes_with_its_key_wherever_that_is_named() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
        ];
        let told = s3("    access_key_id: id\n", &environment);
        assert_eq!(told(AmazonS3ConfigKey::SecretAccessKey), "secret");
        assert_eq!(told(AmazonS3ConfigKey::Token), "token");
    }

    #[test]
    fn what_names_no_store_is_refused_with_the_reason() {
        for url in ["", "file://x", "s3://", "ftp://x"] {
            let error = Store::open(&StoreSettings::url(url)).expect_err(url);
            assert_eq!(error.kind(), tako_types::ErrorKind::Invalid, "{url}: {error}");
        }
    }

    #[test]
    fn settings_read_from_their_text_and_refuse_what_they_do_not_know() {
        let read: StoreSettings = serde_json::from_str(r#"{"url":"memory://x"}"#).expect("valid");
        assert_eq!(read, StoreSettings::url("memory://x"));
        assert!(serde_json::from_str::<StoreSettings>(r#"{"url":"x","uri":"y"}"#).is_err());
    }
}
