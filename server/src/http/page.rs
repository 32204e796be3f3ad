//! The page at `/`: plain files, which the program has in it.

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

use super::error::ApiError;

/// Where its files are.
pub(super) const FOLDER: &str = "/page/";

/// Names, types and texts.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css", include_str!("../../page/style.css")),
    ("api.js", "text/javascript", include_str!("../../page/api.js")),
    ("app.js", "text/javascript", include_str!("../../page/app.js")),
    ("markdown.js", "text/javascript", include_str!("../../page/markdown.js")),
    ("store.js", "text/javascript", include_str!("../../page/store.js")),
    ("view.js", "text/javascript", include_str!("../../page/view.js")),
];

/// It loads nothing from elsewhere, runs no script but its own files, and is part of no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page for browsers; for others the words by which clients of Ollama know that a server is there.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    match accepts.contains("text/html") {
        true => response("text/html", include_str!("../../page/index.html")),
        false => response("text/plain", "Ollama is running"),
    }
}

pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let file = FILES.iter().find(|(of, ..)| *of == name);
    let (_, kind, text) = file.ok_or_else(|| ApiError::status(404, format!("the page has no file {name:?}")))?;
    Ok(response(kind, text))
}

fn response(kind: &str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(format!("{kind}; charset=utf-8")) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Another version of the program has other files.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
