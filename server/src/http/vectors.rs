//! Vectors of texts, for the routes of all APIs that have them.

use super::{App, choices::Choices, error::ApiError};
use crate::scheduler::{Event, Request, Work};

/// The vectors of prompts, which came in the field `field`, and the tokens of all prompts.
///
/// # Errors
/// A server without embeddings; what cannot be read.
pub(super) async fn of(app: &App, prompts: Vec<Vec<u32>>, field: &str) -> Result<(Vec<Vec<f32>>, usize), ApiError> {
    let (mut vectors, mut tokens) = (vec![Vec::new(); prompts.len()], 0);
    let requests = prompts.into_iter().map(|ids| Request::new(ids, Work::Embed(app.options.pooling)));
    let submitted = Choices::submit(&app.scheduler, requests.collect(), 1);
    let mut choices = submitted.map_err(|error| ApiError::of_request(&error, field))?;
    while let Some((index, event)) = choices.next().await {
        match event {
            Event::Embedding(vector) => {
                if let Some(place) = vectors.get_mut(index) {
                    *place = vector;
                }
            }
            Event::Finished { usage, .. } => tokens += usage.prompt_tokens,
            Event::Failed(error) => return Err(ApiError::of_request(&error, field)),
            _ => {}
        }
    }
    Ok((vectors, tokens))
}

/// Refuses requests for vectors where there are none.
pub(super) fn check(app: &App) -> Result<(), ApiError> {
    if app.scheduler.embeds() {
        return Ok(());
    }
    let why = "this server was started without embeddings (handmill serve --embeddings)";
    Err(ApiError::status(501, why).code("no_embeddings"))
}
