//! Requests for bytes, and what their failures mean.

use std::fmt;
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::{Agent, Body, RequestBuilder, typestate::WithoutBody};

use crate::error::HubError;
use crate::settings::HubSettings;

/// The most redirections of one request.
const HOPS: usize = 10;

/// Why a request brought nothing.
pub(crate) enum Failure {
    /// It may succeed when it is repeated.
    Passing(String),
    Lasting(HubError),
}

impl Failure {
    pub(crate) fn of(error: &ureq::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

/// What a server says of a request that it does not grant.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The hub's own name for the reason.
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

impl Refusal {
    pub(crate) fn of(response: &Response<Body>) -> Self {
        Self {
            status: response.status().as_u16(),
            code: text(response, "x-error-code"),
            message: text(response, "x-error-message"),
        }
    }

    /// Whether it may be gone at the next attempt: too many requests, or a fault of the server.
    pub(crate) fn is_passing(&self) -> bool {
        self.status == 429 || self.status >= 500
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        match &self.message {
            Some(message) => write!(f, ", \"{message}\""),
            None => Ok(()),
        }
    }
}

pub(crate) fn text(response: &Response<Body>, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

/// Every status is an answer, and waiting has an end.
pub(crate) fn configured(
    request: RequestBuilder<WithoutBody>,
    settings: &HubSettings,
) -> RequestBuilder<WithoutBody> {
    let config = request
        .config()
        .http_status_as_error(false)
        .timeout_connect(Some(settings.timeout))
        .timeout_recv_response(Some(settings.timeout));
    // A proxy knows another machine by this name.
    match is_local(&settings.endpoint) {
        true => config.proxy(None).build(),
        false => config.build(),
    }
}

fn is_local(url: &str) -> bool {
    let host = url.parse::<Uri>().ok();
    let host = host.as_ref().and_then(Uri::host);
    matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// An answer, and what the hub itself said of the file before it sent the request elsewhere.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    pub(crate) etag: Option<String>,
}

/// Fetches files.
pub(crate) struct Client<'a> {
    agent: Agent,
    settings: &'a HubSettings,
}

impl<'a> Client<'a> {
    pub(crate) fn new(settings: &'a HubSettings) -> Self {
        let config = Agent::config_builder()
            .user_agent(concat!("burn-lora/", env!("CARGO_PKG_VERSION")))
            // Followed by hand: the token stays with the hub, whose headers are those that count.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_per_read(Some(settings.timeout));
        Self {
            agent: config.build().into(),
            settings,
        }
    }

    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        self.settings.retry_wait * 2u32.saturating_pow(attempt.min(6))
    }

    pub(crate) fn retries(&self) -> u32 {
        self.settings.retries
    }

    /// Asks for a file from byte `start` on, by way of however many servers.
    pub(crate) fn get(&self, url: &str, start: u64) -> Result<Reply, Failure> {
        let mut url = url.to_owned();
        let mut etag = None;
        for hop in 0..=HOPS {
            let mut request = configured(self.agent.get(&url), self.settings)
                // What is compared with the list are the bytes of the file.
                .header(header::ACCEPT_ENCODING, "identity");
            if start > 0 {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            if let Some(token) = &self.settings.token
                && same_server(&url, &self.settings.endpoint)
            {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| Failure::of(&error))?;
            if hop == 0 {
                // A server that sends elsewhere speaks of its own answer in `etag`.
                let own = (!response.status().is_redirection()).then(|| text(&response, "etag"));
                let announced = text(&response, "x-linked-etag").or(own.flatten());
                etag = announced.map(|etag| {
                    let etag = etag.trim_start_matches("W/").trim_matches('"');
                    etag.to_owned()
                });
            }
            if !response.status().is_redirection() {
                return Ok(Reply { response, etag });
            }
            let location = text(&response, "location");
            url = match location.and_then(|location| next(&url, &location)) {
                Some(next) => next,
                None => return Err(self.lost(&url, "it redirects to no address")),
            };
            if self.settings.endpoint.starts_with("https:") && !url.starts_with("https:") {
                return Err(self.lost(&url, "it is redirected to from https"));
            }
        }
        Err(self.lost(&url, "it redirects again and again"))
    }

    fn lost(&self, url: &str, reason: &str) -> Failure {
        Failure::Lasting(HubError::Answer {
            url: url.into(),
            reason: reason.into(),
        })
    }
}

/// The address that a redirection from `url` leads to.
fn next(url: &str, location: &str) -> Option<String> {
    if location.starts_with("https://") || location.starts_with("http://") {
        return Some(location.into());
    }
    // `//host/path` would take another server's name for a path.
    if !location.starts_with('/') || location.starts_with("//") {
        return None;
    }
    let uri: Uri = url.parse().ok()?;
    Some(format!(
        "{}://{}{location}",
        uri.scheme_str()?,
        uri.authority()?
    ))
}

fn same_server(url: &str, endpoint: &str) -> bool {
    let server = |url: &str| {
        let uri = url.parse::<Uri>().ok()?;
        Some((uri.scheme_str()?.to_owned(), uri.authority()?.to_string()))
    };
    let (url, endpoint) = (server(url), server(endpoint));
    url.is_some() && url == endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_to_whole_addresses() {
        let from = "https://hub.example/a/b?c=d";
        assert_eq!(next(from, "/x?y"), Some("https://hub.example/x?y".into()));
        assert_eq!(
            next(from, "https://cdn.example/x"),
            Some("https://cdn.example/x".into())
        );
        for lost in ["x", "//evil.example/x", "ftp://x", ""] {
            assert_eq!(next(from, lost), None, "{lost}");
        }
    }

    #[test]
    fn the_token_is_for_one_server() {
        let endpoint = "https://hub.example";
        assert!(same_server("https://hub.example/a", endpoint));
        for other in [
            "http://hub.example/a",
            "https://hub.example:8443/a",
            "https://hub.example.evil/a",
            "https://cdn/a",
            "?",
        ] {
            assert!(!same_server(other, endpoint), "{other}");
        }
    }
}
