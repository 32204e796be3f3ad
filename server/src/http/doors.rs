//! Who is let in: keys, pages of other origins, and names that this machine does not have.

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    App,
    error::{ApiError, Shape},
    page,
};
use crate::Log;

/// Whether a path needs no key: probes have none, and the page asks for it.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health") || path.starts_with(page::FOLDER)
}

/// Lets a request in or not.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (origin, id) = (header(&request, header::ORIGIN), header(&request, HeaderName::from_static("x-request-id")));
    let allowed = origin.as_ref().filter(|origin| is_allowed(&app.options.cors, origin.as_bytes()));
    let foreign = origin.is_some() && allowed.is_none() && !is_own(request.headers());
    let renamed = app.local_only && app.options.api_keys.is_empty() && !is_named(&app.options.cors, request.headers());
    let mut response = if renamed {
        // A page may have its own name lead here, and then its requests seem to be ours.
        ApiError::status(
            403,
            "this server is for its own machine: requests have to name localhost or a loopback address",
        )
        .code("foreign_host")
        .into_response()
    } else if foreign {
        // Browsers send such requests, though their pages could not read the answer.
        ApiError::status(403, "pages of this origin may not send requests").into_response()
    } else if method == Method::OPTIONS && allowed.is_some() {
        preflight(request.headers())
    } else if is_open(&path) || has_key(&app.options.api_keys, request.headers()) {
        next.run(request).await
    } else {
        let error = ApiError::status(401, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`");
        error.code("invalid_api_key").into_response()
    };
    Shape::of(&path).give(&mut response);
    let headers = response.headers_mut();
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(id) = id {
        headers.insert("x-request-id", id);
    }
    let (method, status) = (method.to_string(), response.status().as_u16());
    (app.options.log)(&Log::Responded { method, path, status, after: start.elapsed() });
    response
}

fn header(request: &Request, name: HeaderName) -> Option<HeaderValue> {
    request.headers().get(name).cloned()
}

/// Whether `cors` lets the origin in.
fn is_allowed(cors: &[String], origin: &[u8]) -> bool {
    cors.iter().any(|one| one == "*" || one.as_bytes() == origin)
}

/// Whether the page that sends a request came from here.
fn is_own(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()?.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.is_some_and(|(_, origin)| host == Some(origin))
}

/// Whether a request names this machine, or an origin that is let in. Browsers always name a host.
fn is_named(cors: &[String], headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = authority.host().to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_let_in = |origin: &String| {
        origin == "*" || origin.split_once("://").is_some_and(|(_, origin)| origin.as_bytes() == host.as_bytes())
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
        || cors.iter().any(is_let_in)
}

/// The answer to a browser that asks whether a page may send a request.
fn preflight(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let own = response.headers_mut();
    own.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    own.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        own.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    response
}

/// Whether one of `keys` is in the headers, or none is wanted.
fn has_key(keys: &[String], headers: &HeaderMap) -> bool {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let given = bearer.or_else(|| Some(headers.get("x-api-key")?.as_bytes()));
    // All are compared, whichever is right.
    keys.is_empty()
        || given.is_some_and(|given| keys.iter().fold(false, |any, key| any | is_same(key.as_bytes(), given)))
}

/// Whether the two are the same, in a time that says nothing of where they differ.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    let differences = key.iter().zip(given).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    key.len() == given.len() && differences == 0
}

/// The answer to paths that there are not.
pub(super) async fn unknown_path(request: Request) -> ApiError {
    ApiError::status(404, format!("there is no {}", request.uri().path())).code("unknown_path")
}

/// The answer to paths that there are, but not with this method.
pub(super) async fn wrong_method(request: Request) -> ApiError {
    ApiError::status(405, format!("{} does not take {}", request.uri().path(), request.method()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_key_is_taken_from_either_header() {
        let keys = ["right".to_owned(), "other".to_owned()];
        for (name, value, let_in) in [
            ("authorization", "Bearer right", true),
            ("authorization", "bearer other", true),
            ("x-api-key", "right", true),
            ("authorization", "Bearer wrong", false),
            ("authorization", "Bearer righ", false),
            ("authorization", "Bearer rightt", false),
            ("authorization", "Bearer ", false),
            ("authorization", "Basic right", false),
            ("x-api-key", "", false),
            ("host", "right", false),
        ] {
            assert_eq!(has_key(&keys, &headers(&[(name, value)])), let_in, "{name}: {value}");
        }
        assert!(has_key(&[], &headers(&[])));
    }

    #[test]
    fn names_are_this_machines_or_let_in() {
        let cors = ["https://models.example".to_owned()];
        for (host, named) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("LocalHost", true),
            ("app.localhost:8080", true),
            ("[::1]:8080", true),
            ("127.9.9.9", true),
            ("models.example", true),
            ("evil.example:8080", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:8080", false),
            ("", false),
        ] {
            assert_eq!(is_named(&cors, &headers(&[("host", host)])), named, "{host}");
        }
        assert!(is_named(&[], &headers(&[])) && is_named(&["*".to_owned()], &headers(&[("host", "evil.example")])));
    }

    #[test]
    fn pages_come_from_here_or_from_where_they_may() {
        assert!(is_own(&headers(&[("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:8080")])));
        assert!(!is_own(&headers(&[("origin", "https://example.org"), ("host", "127.0.0.1:8080")])));
        assert!(!is_own(&headers(&[("origin", "null"), ("host", "127.0.0.1:8080")])));
        let cors = ["https://example.org".to_owned()];
        assert!(is_allowed(&cors, b"https://example.org") && !is_allowed(&cors, b"https://example.com"));
        assert!(is_allowed(&["*".to_owned()], b"null") && !is_allowed(&[], b"https://example.org"));
    }
}
