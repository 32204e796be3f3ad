//! Errors as OpenAI's API has them.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::scheduler::RequestError;

/// An error of one request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: u16,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    pub fn status(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field of the request that cannot be served as it is.
    pub fn field(name: impl Into<String>, why: impl std::fmt::Display) -> Self {
        let name = name.into();
        Self { message: format!("`{name}` {why}"), param: Some(name), ..Self::status(400, "") }
    }

    pub fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// An error of a scheduler about a request whose prompt is in the field `prompt`.
    pub fn of_request(error: &RequestError, prompt: &str) -> Self {
        let (status, param, code) = match error {
            RequestError::EmptyPrompt => (400, Some(prompt), None),
            RequestError::PromptTooLong { .. } => (400, Some(prompt), Some("context_length_exceeded")),
            RequestError::TokenOutOfRange { .. } => (400, Some(prompt), None),
            RequestError::Sampling(_) => (400, None, None),
            RequestError::NoHidden => (501, None, None),
            RequestError::QueueFull { .. } => (429, None, Some("queue_full")),
            RequestError::ShuttingDown => (503, None, Some("shutting_down")),
            _ => (500, None, None),
        };
        Self { status, message: error.to_string(), param: param.map(str::to_owned), code }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            501 => "not_supported_error",
            503 => "unavailable_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// As streams have it.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = super::json(&self.json());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let extra = match self.status {
            401 => Some((header::WWW_AUTHENTICATE, "Bearer")),
            429 | 503 => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
