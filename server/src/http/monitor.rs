//! Routes for those who watch a server: its metrics, and the requests that run. Neither has any text of anybody.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Value, json};

use super::{App, error::ApiError, json, llama};
use crate::{
    metrics,
    scheduler::{Slot, Status},
};

/// Counters, gauges and histograms in Prometheus' format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let monitor = app.scheduler.monitor();
    // A step can take seconds, and the status is that of its beginning.
    let status = Status { running: monitor.running(), ..app.scheduler.status() };
    let mut response = Response::new(Body::from(monitor.metrics.text(&app.options.model_name, &status)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

/// The requests that run, in the shape of llama-server's slots.
pub(super) async fn slots(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (mut slots, sequences) = (app.scheduler.monitor().slots(), app.scheduler.sequences());
    let is_full = slots.iter().flatten().count() >= sequences;
    if is_full && is_given(request.uri().query().unwrap_or_default(), "fail_on_no_slot") {
        return Err(ApiError::status(503, format!("{sequences} requests run already, which is the most")));
    }
    // Free slots behind the last one that was ever taken.
    slots.resize(slots.len().max(sequences), None);
    let n_ctx = app.scheduler.n_ctx();
    let slots = slots.iter().enumerate().map(|(id, slot)| match slot {
        Some(slot) => running(id, n_ctx, slot),
        None => json!({ "id": id, "n_ctx": n_ctx, "speculative": false, "is_processing": false }),
    });
    Ok(json(&slots.collect()))
}

/// Whether a query has that parameter, with a value.
fn is_given(query: &str, name: &str) -> bool {
    let params = query.split('&').filter_map(|param| param.split_once('='));
    params.into_iter().any(|(key, value)| key == name && !value.is_empty())
}

fn running(id: usize, n_ctx: usize, slot: &Slot) -> Value {
    let mut value = json!({
        "id": id,
        "id_task": slot.task,
        "n_ctx": n_ctx,
        "speculative": false,
        "is_processing": true,
        "n_prompt_tokens": slot.prompt_tokens,
        "n_prompt_tokens_processed": slot.processed(),
        "n_prompt_tokens_cache": slot.cached(),
    });
    if let Some(answer) = &slot.answer {
        let generated = slot.generated();
        value["params"] = llama::params(answer);
        // A list of one, as llama-server has it.
        value["next_token"] = json!([{
            "has_next_token": true,
            "n_remain": answer.max_tokens.map_or(json!(-1), |most| json!(most.saturating_sub(generated))),
            "n_decoded": generated,
        }]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_counts_with_a_value() {
        for (query, given) in
            [("", false), ("a=1", false), ("a=1&b=1", true), ("b=", false), ("b", false), ("bb=1", false)]
        {
            assert_eq!(is_given(query, "b"), given, "{query}");
        }
    }
}
