//! Ollama's routes: `/api/…`.

pub mod answer;
pub mod embed;
pub mod models;
mod request;
mod time;
