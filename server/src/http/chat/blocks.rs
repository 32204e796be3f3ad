//! An answer as a row of blocks, for APIs that number reasoning, texts and calls in the order in which they come.

use handmill_models::text::ReplyEvent;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Reasoning(String),
    Text(String),
    Call { id: String, name: String, arguments: String },
}

impl Block {
    /// The block before it grew.
    pub fn begun(&self) -> Self {
        match self {
            Self::Reasoning(_) => Self::Reasoning(String::new()),
            Self::Text(_) => Self::Text(String::new()),
            Self::Call { id, name, .. } => Self::Call { id: id.clone(), name: name.clone(), arguments: String::new() },
        }
    }
}

/// What happens to a block. Only the last one grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Begins,
    Grows(String),
    Ends,
}

/// The blocks so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    pub all: Vec<Block>,
    /// Whether the last one has not ended.
    open: bool,
}

impl Blocks {
    /// Takes an event, and adds what it changes to `changes`, with the block's number.
    pub fn take(&mut self, event: ReplyEvent, changes: &mut Vec<(usize, Change)>) {
        match event {
            ReplyEvent::Text(more) => {
                if !(self.open && matches!(self.all.last(), Some(Block::Text(_)))) {
                    self.begin(Block::Text(String::new()), changes);
                }
                self.grow(more, changes);
            }
            ReplyEvent::Reasoning(more) => {
                if !(self.open && matches!(self.all.last(), Some(Block::Reasoning(_)))) {
                    self.begin(Block::Reasoning(String::new()), changes);
                }
                self.grow(more, changes);
            }
            ReplyEvent::CallBegins { name, id, .. } => {
                self.begin(Block::Call { id: id.unwrap_or_default(), name, arguments: String::new() }, changes);
            }
            ReplyEvent::CallArguments { json, .. } => self.grow(json, changes),
            // The end of a call, and kinds of events to come.
            _ => self.end(changes),
        }
    }

    /// Ends the last block.
    pub fn end(&mut self, changes: &mut Vec<(usize, Change)>) {
        if std::mem::take(&mut self.open) {
            changes.push((self.all.len() - 1, Change::Ends));
        }
    }

    fn begin(&mut self, block: Block, changes: &mut Vec<(usize, Change)>) {
        self.end(changes);
        changes.push((self.all.len(), Change::Begins));
        self.all.push(block);
        self.open = true;
    }

    fn grow(&mut self, more: String, changes: &mut Vec<(usize, Change)>) {
        let Some(Block::Reasoning(all) | Block::Text(all) | Block::Call { arguments: all, .. }) = self.all.last_mut()
        else {
            return;
        };
        all.push_str(&more);
        changes.push((self.all.len() - 1, Change::Grows(more)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_one_behind_the_other() {
        let text = |text: &str| ReplyEvent::Text(text.to_owned());
        let events = [
            ReplyEvent::Reasoning("r".to_owned()),
            text("a"),
            text("b"),
            ReplyEvent::CallBegins { index: 0, name: "f".to_owned(), id: Some("1".to_owned()) },
            ReplyEvent::CallArguments { index: 0, json: "{}".to_owned() },
            ReplyEvent::CallEnds { index: 0 },
            text("c"),
        ];
        let (mut blocks, mut changes) = (Blocks::default(), Vec::new());
        events.into_iter().for_each(|event| blocks.take(event, &mut changes));
        blocks.end(&mut changes);
        blocks.end(&mut changes);
        let call = Block::Call { id: "1".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
        let expected =
            [Block::Reasoning("r".to_owned()), Block::Text("ab".to_owned()), call, Block::Text("c".to_owned())];
        assert_eq!(blocks.all, expected);
        let grows = |text: &str| Change::Grows(text.to_owned());
        let expected = [
            (0, Change::Begins),
            (0, grows("r")),
            (0, Change::Ends),
            (1, Change::Begins),
            (1, grows("a")),
            (1, grows("b")),
            (1, Change::Ends),
            (2, Change::Begins),
            (2, grows("{}")),
            (2, Change::Ends),
            (3, Change::Begins),
            (3, grows("c")),
            (3, Change::Ends),
        ];
        assert_eq!(changes, expected);
    }
}
