//! Errors of requests, in the shapes of the APIs.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::scheduler::RequestError;

/// The code of a prompt that does not fit the context.
const TOO_LONG: &str = "context_length_exceeded";

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
            RequestError::PromptTooLong { .. } => (400, Some(prompt), Some(TOO_LONG)),
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

    /// As OpenAI's API has it.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        } })
    }

    pub fn json_in(&self, shape: Shape) -> Value {
        match shape {
            Shape::OpenAi => self.json(),
            Shape::Anthropic => {
                // By these words Claude Code knows that it must shorten the conversation.
                let too_long = if self.code == Some(TOO_LONG) { "prompt is too long: " } else { "" };
                let message = format!("{too_long}{}", self.message);
                json!({ "type": "error", "error": { "type": self.anthropic_kind(), "message": message } })
            }
            Shape::Ollama => json!({ "error": self.message }),
        }
    }

    fn anthropic_kind(&self) -> &'static str {
        match self.status {
            413 => "request_too_large",
            503 => "overloaded_error",
            500.. => "api_error",
            _ => self.kind(),
        }
    }

    /// The message, and the code where there is one.
    pub fn parts(&self) -> (&str, Option<&'static str>) {
        (&self.message, self.code)
    }
}

/// The APIs by the shapes of their errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Shape {
    /// That of the API which has this path.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/messages") {
            Self::Anthropic
        } else if path.starts_with("/api/") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }

    /// Gives the response that shape, where it is an error.
    pub fn give(self, response: &mut Response) {
        if self != Self::OpenAi
            && let Some(error) = response.extensions().get::<ApiError>()
        {
            let body = error.json_in(self).to_string();
            *response.body_mut() = Body::from(body);
            // It was that of the other shape.
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
    }
}

impl IntoResponse for ApiError {
    /// In OpenAI's shape; [`Shape::give`] puts it into others, by the path that the request had.
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
        response.extensions_mut().insert(self);
        response
    }
}
