//! Requests that wait: by priority, then first come first served.

use std::collections::VecDeque;

use tokio::sync::mpsc::UnboundedSender;

use super::{
    progress::Progress,
    request::{Event, Request, Work},
};

/// A request, and where its news go.
#[derive(Debug)]
pub(super) struct Job {
    pub request: Request,
    pub events: UnboundedSender<Event>,
    pub progress: Progress,
}

impl Job {
    /// Whether its prompt is read for results of its own tokens, apart from running answers.
    pub fn is_reading(&self) -> bool {
        match &self.request.work {
            Work::Answer(options) => options.of_prompt,
            Work::Embed(_) => true,
        }
    }
}

/// Jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Job>);

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, job: Job) {
        let at = self.0.partition_point(|other| other.request.priority >= job.request.priority);
        self.0.insert(at, job);
    }

    /// Takes the first that `may_begin`.
    pub fn pop(&mut self, may_begin: impl Fn(&Job) -> bool) -> Option<Job> {
        let at = self.0.iter().position(may_begin)?;
        self.0.remove(at)
    }

    /// Takes those whose clients have left. Returns their number.
    pub fn drop_left(&mut self) -> usize {
        let before = self.0.len();
        self.0.retain(|job| !job.events.is_closed());
        before - self.0.len()
    }

    /// Takes all.
    pub fn drain(&mut self) -> impl Iterator<Item = Job> {
        self.0.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use handmill_models::engine::Pooling;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn higher_priorities_go_first_and_equal_ones_as_they_came() {
        let mut queue = Queue::default();
        let mut receivers = Vec::new();
        for (id, priority) in [(0, 0), (1, 5), (2, 0), (3, -1), (4, 5)] {
            let (events, receiver) = unbounded_channel();
            receivers.push(receiver);
            let request = Request { priority, ..Request::new(vec![id], Work::Embed(Pooling::Last)) };
            queue.push(Job { request, events, progress: Progress::new(&Arc::default()) });
        }
        receivers.remove(2);
        assert_eq!(queue.drop_left(), 1);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(|_| true)).map(|job| job.request.prompt[0]).collect();
        assert_eq!(order, [1, 4, 0, 3]);
    }
}
