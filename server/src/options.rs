//! Options of a server.

use std::{fmt, sync::Arc, time::Duration};

use handmill_models::{
    engine::{Pooling, sampling::SamplingParams},
    text::{ChatTemplate, LocalTime},
};

use crate::Logger;

/// Options of a server. `..ServerOptions::new(NAME)` behind the fields that you set has the defaults of the others.
pub struct ServerOptions {
    /// The model's name in `/v1/models` and in answers.
    pub model_name: String,
    /// The format of conversations; without one they are refused.
    pub template: Option<ChatTemplate>,
    /// Sampling where a request says nothing of it. Its seed does not count: a request without one has one drawn.
    pub sampling: SamplingParams,
    /// The time that templates print; none where it cannot be known, and then conversations are rendered with the epoch.
    pub now: Arc<dyn Fn() -> Option<LocalTime> + Send + Sync>,
    /// How a text's tokens become its vector.
    pub pooling: Pooling,
    /// Keys one of which requests must have, except those for `/health` and for the page; with none everybody is let in.
    pub api_keys: Vec<String>,
    /// Origins whose pages may send requests, as `https://example.org`; `*` lets all do so.
    pub cors: Vec<String>,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Most connections at once; further ones wait until one ends.
    pub max_connections: usize,
    /// Time that the head of a request may take, and time that a connection may be idle.
    pub head_timeout: Duration,
    /// Time that the body of a request may take.
    pub body_timeout: Duration,
    /// Silence after which a stream gets a comment, which keeps proxies from closing it.
    pub keep_alive: Duration,
    /// Time that requests under way have to end after the server was asked to stop.
    pub drain: Duration,
    /// Whether SIGTERM asks the server to stop, where there are such signals.
    pub on_sigterm: bool,
    /// Hears of what happens.
    pub log: Logger,
}

impl ServerOptions {
    /// The defaults for a model of that name.
    pub fn new(model_name: impl Into<String>) -> Self {
        Self {
            model_name: model_name.into(),
            template: None,
            sampling: SamplingParams::default(),
            now: Arc::new(|| None),
            pooling: Pooling::Last,
            api_keys: Vec::new(),
            cors: Vec::new(),
            max_body_bytes: 16 << 20,
            max_connections: 1024,
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            on_sigterm: true,
            log: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for ServerOptions {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("model_name", &self.model_name).finish_non_exhaustive()
    }
}
