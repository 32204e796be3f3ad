//! A message as a stream.

use std::time::Duration;

use serde_json::{Value, json};

use super::message::{Message, SIGNATURE, end, usage};
use crate::http::{
    chat::{
        Chat, News,
        blocks::{Block, Blocks, Change},
    },
    error::Shape,
    stream::{Left, Sender, or_keep_alive},
};

pub(super) async fn run(message: Message, mut chat: Chat, every: Duration, sender: Sender) -> Result<(), Left> {
    let mut blocks = Blocks::default();
    while let Some(news) = or_keep_alive(&sender, every, chat.next()).await? {
        let events = match news {
            Ok(news) => events(&message, &chat, &mut blocks, news),
            Err(error) => return send(&sender, &error.json_in(Shape::Anthropic)).await,
        };
        for event in &events {
            send(&sender, event).await?;
        }
    }
    Ok(())
}

/// What a stream says of the news.
fn events(message: &Message, chat: &Chat, blocks: &mut Blocks, news: News) -> Vec<Value> {
    let Some(choice) = chat.choices.get(news.index) else { return Vec::new() };
    let mut events = Vec::new();
    if news.starts {
        events.push(json!({ "type": "message_start", "message": message.json(json!([]), choice) }));
    }
    let mut changes = Vec::new();
    news.events.into_iter().for_each(|event| blocks.take(event, &mut changes));
    if news.ends {
        blocks.end(&mut changes);
    }
    for (index, change) in changes {
        if let Some(block) = blocks.all.get(index) {
            of_block(index, block, change, &mut events);
        }
    }
    if news.ends {
        events.push(json!({ "type": "message_delta", "delta": end(choice), "usage": usage(choice.usage) }));
        events.push(json!({ "type": "message_stop" }));
    }
    events
}

/// Sends an event under the name of its type.
async fn send(sender: &Sender, event: &Value) -> Result<(), Left> {
    sender.event(event["type"].as_str().unwrap_or_default(), event).await
}

fn of_block(index: usize, block: &Block, change: Change, events: &mut Vec<Value>) {
    let delta = |delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    match (change, block) {
        (Change::Begins, block) => {
            let block = match block {
                Block::Reasoning(_) => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                Block::Text(_) => json!({ "type": "text", "text": "" }),
                Block::Call { id, name, .. } => json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
            };
            events.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
        }
        (Change::Grows(more), Block::Reasoning(_)) => {
            events.push(delta(json!({ "type": "thinking_delta", "thinking": more })));
        }
        (Change::Grows(more), Block::Text(_)) => events.push(delta(json!({ "type": "text_delta", "text": more }))),
        (Change::Grows(more), Block::Call { .. }) => {
            events.push(delta(json!({ "type": "input_json_delta", "partial_json": more })));
        }
        (Change::Ends, block) => {
            if matches!(block, Block::Reasoning(_)) {
                events.push(delta(json!({ "type": "signature_delta", "signature": SIGNATURE })));
            }
            events.push(json!({ "type": "content_block_stop", "index": index }));
        }
    }
}
