//! The HTTP client: time limits, the system's certificates, and errors with the host's name in them.

use super::FetchError;
use crate::interrupt;
use std::time::Duration;
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::Response,
    tls::{RootCerts, TlsConfig, TlsProvider},
};

/// The system's own TLS where it has one (schannel, Security.framework). Cargo.toml has the features to it.
const PROVIDER: TlsProvider =
    if cfg!(any(windows, target_os = "macos")) { TlsProvider::NativeTls } else { TlsProvider::Rustls };

/// Tries of a request where the network or the server fails for a moment.
const TRIES: u32 = 4;

/// A client. Proxies are taken from the environment; nothing is sent before the first request.
pub struct Http {
    agent: Agent,
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its address.
    pub url: &'a str,
    /// Its name for messages.
    pub what: &'a str,
    /// `Accept` header.
    pub accept: &'a str,
    /// Token sent as `Authorization: Bearer` to the host of `url` only, never on to where it redirects.
    pub bearer: Option<&'a str>,
    /// First byte wanted, with the `ETag` that the earlier bytes had where it is known.
    pub from: Option<(u64, Option<&'a str>)>,
}

impl Http {
    /// A client with the time limits of this program.
    pub fn new() -> Self {
        // The platform's verifier, so that certificates that an administrator has added are known.
        let tls = TlsConfig::builder().provider(PROVIDER).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("handmill/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.new_agent() }
    }

    /// Sends the request; again after a while where the failure may pass. Any status that is no server error comes
    /// back as a response.
    pub fn get(&self, request: &Request) -> Result<Response<Body>, FetchError> {
        let mut wait = Duration::from_millis(500);
        for attempt in 1.. {
            let mut call = self.agent.get(request.url).header("accept", request.accept);
            call = call.header("accept-encoding", "identity");
            if let Some(token) = request.bearer {
                call = call.header("authorization", format!("Bearer {token}"));
            }
            if let Some((first, etag)) = request.from {
                call = call.header("range", format!("bytes={first}-"));
                if let Some(etag) = etag {
                    call = call.header("if-range", etag);
                }
            }
            let error = match call.call() {
                Ok(answer) if answer.status().as_u16() == 429 || answer.status().is_server_error() => {
                    status_error(request, answer.status().as_u16())
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let passing = passes(&error);
                    let error = FetchError::Network {
                        what: request.what.to_owned(),
                        host: host(request.url),
                        reason: network_reason(&error),
                    };
                    if !passing {
                        return Err(error);
                    }
                    error
                }
            };
            if attempt == TRIES {
                return Err(error);
            }
            pause(wait)?;
            wait *= 2;
        }
        unreachable!("the loop returns in its last turn")
    }

    /// Reads a JSON answer of at most 32 MiB.
    pub fn get_json(&self, request: &Request) -> Result<serde_json::Value, FetchError> {
        let mut answer = self.get(request)?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(status_error(request, status));
        }
        let unexpected =
            |reason: String| FetchError::Answer { what: request.what.to_owned(), host: host(request.url), reason };
        let body = answer.body_mut().with_config().limit(32 << 20).read_to_vec();
        let body = body.map_err(|e| unexpected(network_reason(&e)))?;
        serde_json::from_slice(&body).map_err(|e| unexpected(format!("not the expected JSON ({e})")))
    }
}

/// Sleeps in small steps, so that Ctrl-C is heard.
pub fn pause(time: Duration) -> Result<(), FetchError> {
    let step = Duration::from_millis(50);
    let mut left = time;
    while !left.is_zero() {
        if interrupt::asked() {
            return Err(FetchError::Interrupted { kept: String::new() });
        }
        std::thread::sleep(step.min(left));
        left = left.saturating_sub(step);
    }
    Ok(())
}

/// Host of a URL, without scheme and without passwords.
pub fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority).to_owned()
}

/// The error for an HTTP status, with what to do about it.
pub fn status_error(request: &Request, status: u16) -> FetchError {
    let hint = match status {
        401 | 403 => "; the repository may be private, or its licence must be accepted on its page: then set HF_TOKEN",
        404 | 410 => "; check the spelling of owner, name, revision and file",
        407 => "; the proxy wants a login: put it into HTTPS_PROXY",
        429 => "; too many requests, try again later",
        500.. => "; the server has a problem, try again later",
        _ => "",
    };
    FetchError::Status { what: request.what.to_owned(), host: host(request.url), status, hint: hint.to_owned() }
}

/// Whether the same request may succeed a moment later.
fn passes(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(_) => true,
        // rustls reports a certificate that it refuses as an error of the connection.
        ureq::Error::Io(io) => !is_lookup(io) && !io.to_string().contains("certificate"),
        // The system's TLS reports errors of its own, in the user's language. A connection that fails below TLS is
        // still `Io`.
        _ => false,
    }
}

/// Whether a name could not be resolved. The standard library gives such errors no kind of their own: only their text
/// shows it, and on Windows the system's number, `WSAHOST_NOT_FOUND` to `WSANO_DATA`.
fn is_lookup(error: &std::io::Error) -> bool {
    let number = cfg!(windows) && matches!(error.raw_os_error(), Some(11001..=11004));
    number || error.to_string().contains("lookup address")
}

fn network_reason(error: &ureq::Error) -> String {
    let unresolved = "its name could not be resolved (no network, or a name server problem)";
    match error {
        ureq::Error::HostNotFound => unresolved.to_owned(),
        ureq::Error::Io(io) if is_lookup(io) => unresolved.to_owned(),
        ureq::Error::ConnectionFailed => "the connection was refused".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        // The system's words alone, such as "The target principal name is incorrect", do not mention the connection.
        #[cfg(any(windows, target_os = "macos"))]
        ureq::Error::NativeTls(error) => format!("no secure connection to it ({error})"),
        other => other.to_string().trim_start_matches("io: ").to_owned(),
    }
}
