//! A model behind HTTP: the routes of OpenAI, Anthropic and Ollama on one engine, whose steps all answers under way share.
//!
//! [`Scheduler`] owns the engine in a thread of its own; it knows nothing of HTTP. [`serve`] puts routes in front of it. The
//! crate prints nothing: what happens is told to [`ServerOptions::log`].
//!
//! ```no_run
//! use handmill_models::{Engine, EngineOptions, Model, text::ChatTemplate};
//! use handmill_server::{Limits, Scheduler, ServerOptions, Stop, bind, serve};
//!
//! let model = Model::open("model.gguf".as_ref())?;
//! let template = ChatTemplate::from_checkpoint(model.checkpoint())?;
//! let engine = Engine::new(&model, &EngineOptions::default())?;
//! let scheduler = Scheduler::start(engine, Limits::default())?;
//! let options = ServerOptions { template, ..ServerOptions::new("my-model") };
//! // Until `stop.ask()` in another thread, or SIGTERM.
//! let stop = Stop::default();
//! serve(bind("127.0.0.1", 8080)?, &model, scheduler, options, &stop)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod constrain;
mod error;
mod http;
mod log;
mod metrics;
mod options;
pub mod scheduler;
mod stop;

pub use error::Error;
pub use http::{bind, serve};
pub use log::{Log, Logger};
pub use options::ServerOptions;
pub use scheduler::{Limits, Scheduler};
pub use stop::Stop;
