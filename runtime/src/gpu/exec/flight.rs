//! A part of a step under way: what of it will be read, and what was.

use std::sync::{Arc, atomic::AtomicBool};

use crate::{
    gpu::ops::sample::{RESULT_WORDS, Records},
    graph::{Plan, Slot},
    sample::{Choice, Chosen, Sampler, SamplingParams},
    step::Batch,
};

/// A part of a step that was submitted.
pub(super) struct Flight {
    /// The step's choices on the device before its own.
    pub first_choice: usize,
    /// Set when it is over.
    pub done: Arc<AtomicBool>,
    pub submission: Option<wgpu::SubmissionIndex>,
    /// Its results on their way to the host; none where there are none, or where they were read.
    pub staging: Option<wgpu::Buffer>,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Output rows that are read, in their order.
    pub rows: Vec<usize>,
    /// Those of `rows` that are handed out.
    wanted: Vec<usize>,
    /// Output rows whose hidden states are read.
    pub hidden_rows: Vec<usize>,
    /// Places of the logits, and of the hidden states where these are a result.
    pub logits: Slot,
    pub hidden: Option<Slot>,
    /// Choices of the device, and whether log-probabilities come with them.
    on_device: usize,
    log_probabilities: bool,
    pub choices: Vec<Pending>,
}

/// What was read.
#[derive(Default)]
pub(super) struct Results {
    pub chosen: Vec<Chosen>,
    pub logits: Vec<f32>,
    pub hidden: Vec<f32>,
}

/// A choice that is under way.
pub(super) enum Pending {
    /// The device makes it.
    Device {
        /// Which of the device's choices it is.
        at: usize,
        /// Tokens to list with their log-probabilities; none where no log-probability is wanted.
        listed: Option<usize>,
    },
    /// The host makes it when the logits are there.
    Host(HostChoice),
}

/// A choice with all that it borrows.
pub(super) struct HostChoice {
    params: SamplingParams,
    allowed: Option<Vec<u32>>,
    /// The tokens that penalties look at.
    recent: Vec<u32>,
    log_probabilities: Option<usize>,
    position: usize,
    output: usize,
}

impl HostChoice {
    pub fn new(choice: &Choice<'_>, more: Vec<u32>, position: usize, output: usize) -> Self {
        let window = choice.params.penalty_window().min(choice.recent.len());
        Self {
            params: choice.params.clone(),
            allowed: choice.allowed.map(<[u32]>::to_vec),
            recent: [&choice.recent[choice.recent.len() - window..], &more].concat(),
            log_probabilities: choice.log_probabilities,
            position,
            output,
        }
    }
}

impl Flight {
    /// The part with the rows of `batch`, of whose `choices` the device's are in `records`.
    pub fn new(first_choice: usize, choices: Vec<Pending>, records: &Records, batch: &Batch, plan: &Plan) -> Self {
        let of_host = choices.iter().filter_map(|c| if let Pending::Host(c) = c { Some(c.output) } else { None });
        let mut rows: Vec<usize> = batch.wanted.iter().map(|row| *row as usize).chain(of_host).collect();
        rows.sort_unstable();
        rows.dedup();
        let wanted = (0..rows.len()).filter(|i| batch.wanted.contains(&(rows[*i] as u32))).collect();
        let mut flight = Self {
            first_choice,
            done: Arc::default(),
            submission: None,
            staging: None,
            read_bytes: 0,
            rows,
            wanted,
            hidden_rows: batch.hidden.iter().map(|row| *row as usize).collect(),
            logits: plan.slot(plan.output),
            hidden: plan.hidden.map(|hidden| plan.slot(hidden)),
            on_device: records.len(),
            log_probabilities: records.log_probabilities,
            choices,
        };
        let of_hidden = flight.hidden.map_or(0, |slot| flight.hidden_rows.len() * slot.stride);
        flight.read_bytes = 4 * (flight.head_words() + flight.rows.len() * flight.logits.stride + of_hidden) as u64;
        flight
    }

    /// Its choices on the device.
    pub fn on_device(&self) -> usize {
        self.on_device
    }

    /// Elements of a row of logits, and of a hidden state.
    pub fn widths(&self) -> [usize; 2] {
        [self.logits.width, self.hidden.map_or(0, |slot| slot.width)]
    }

    /// Words before the rows of logits.
    fn head_words(&self) -> usize {
        self.on_device * (1 + if self.log_probabilities { RESULT_WORDS } else { 0 })
    }

    /// The results in the words that were read.
    pub fn parse(&self, words: &[u32], sampler: &mut Sampler) -> Results {
        let (head, rows) = words.split_at(self.head_words());
        let Slot { stride, width, .. } = self.logits;
        let (rows, hidden) = rows.split_at(self.rows.len() * stride);
        let (tokens, listed) = head.split_at(self.on_device);
        let row = |i: usize| bytemuck::cast_slice::<u32, f32>(&rows[i * stride..][..width]);
        let choice = |pending: &Pending| match pending {
            Pending::Device { at, listed: n } => {
                let token = Some(tokens[*at]).filter(|token| *token != u32::MAX);
                let words = n.and_then(|_| listed.chunks_exact(RESULT_WORDS).nth(*at));
                of_device(token, words.unwrap_or_default(), n.unwrap_or(0).min(width))
            }
            Pending::Host(host) => {
                let Ok(at) = self.rows.binary_search(&host.output) else { return Chosen::default() };
                let choice = Choice {
                    params: &host.params,
                    recent: &host.recent,
                    allowed: host.allowed.as_deref(),
                    log_probabilities: host.log_probabilities,
                };
                sampler.choose(row(at), &choice, &[], host.position)
            }
        };
        let chosen = self.choices.iter().map(choice).collect();
        let logits = self.wanted.iter().flat_map(|i| row(*i)).copied().collect();
        let states = bytemuck::cast_slice::<u32, f32>(hidden);
        let hidden = self
            .hidden
            .iter()
            .flat_map(|slot| states.chunks_exact(slot.stride).flat_map(|row| &row[..slot.width]).copied());
        Results { chosen, logits, hidden: hidden.collect() }
    }
}

/// A choice of the device. `words` are the token with its log-probability, then the likeliest tokens, of which `n` are
/// wanted; there are none where no log-probability is.
fn of_device(token: Option<u32>, words: &[u32], n: usize) -> Chosen {
    let mut pairs = words.chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1])));
    let mut chosen = Chosen { token, ..Chosen::default() };
    if let (Some(token), Some((_, own))) = (token, pairs.next()) {
        // A forbidden token is none of the likeliest.
        chosen.likeliest = pairs.take(n).filter(|(_, p)| *p > f32::NEG_INFINITY).collect();
        let listed = chosen.likeliest.iter().find(|(id, _)| *id == token);
        chosen.log_probability = Some(listed.map_or(own, |(_, p)| *p));
    }
    chosen
}
