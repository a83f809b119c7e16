//! Requests of commands to the processes of a cluster: by TLS and with a token, where there are such.

use std::fmt::Display;

use reqwest::{
    Client, Method, RequestBuilder,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use tako_types::ErrorKind;

use crate::{failure::Failure, trust::AskArgs};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client,
    scheme: &'static str,
}

impl Http {
    pub(crate) fn new(ask: &AskArgs) -> Result<Self, Failure> {
        let failed = |error: reqwest::Error| {
            Failure::new(ErrorKind::Internal, format!("no HTTP client: {error}"))
        };
        // Settings of the environment are for the world outside, not for the cluster.
        let mut builder = Client::builder().no_proxy();
        let certificates = ask.tls.open()?;
        if let Some(certificates) = &certificates {
            let config = rustls::ClientConfig::clone(&certificates.client());
            builder = builder.tls_backend_preconfigured(config);
        }
        if let Some(token) = ask.token()? {
            let said = HeaderValue::try_from(format!("Bearer {token}"));
            let mut said = said.map_err(|_| {
                Failure::invalid("the token has characters in it that no token has")
            })?;
            said.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(AUTHORIZATION, said)]));
        }
        let scheme = if certificates.is_some() { "https" } else { "http" };
        Ok(Self { client: builder.build().map_err(failed)?, scheme })
    }

    /// The beginning of every address at that process.
    pub(crate) fn url(&self, address: impl Display) -> String {
        format!("{}://{address}", self.scheme)
    }

    pub(crate) fn get(&self, address: impl Display, path: &str) -> RequestBuilder {
        self.request(Method::GET, address, path)
    }

    pub(crate) fn request(
        &self,
        method: Method,
        address: impl Display,
        path: &str,
    ) -> RequestBuilder {
        self.at(method, format!("{}{path}", self.url(address)))
    }

    /// A request to a whole address.
    pub(crate) fn at(&self, method: Method, url: String) -> RequestBuilder {
        self.client.request(method, url)
    }
}
