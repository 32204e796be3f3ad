//! Random schedules of sequences and prefixes, against a model of what each sequence must hold.
//!
//! The model's memory records the token that each entry of each page holds, and the tokens that each state has seen. A
//! step writes both as kernels would, and refuses to write to a page or a state with a second user. After every
//! operation each sequence must find its own tokens wherever its next token looks.

use proptest::prelude::*;

use super::*;
use crate::{
    graph::{CacheSpec, StateSpec},
    step::{Batch, KvType, Missing, Outputs, SequenceStep},
};

/// A sequence and the tokens that it must hold.
#[derive(Default)]
struct Live {
    kv: SequenceKv,
    tokens: Vec<u32>,
    /// Tokens that it has yet to run after it was set aside.
    pending: Vec<u32>,
}

struct World {
    book: PageBook,
    prefixes: Prefixes,
    batch: Batch,
    /// By group and page: the token of each entry.
    pages: Vec<Vec<Vec<u32>>>,
    /// By slot: the tokens that its state has seen.
    states: Vec<Vec<u32>>,
    /// The oldest first.
    live: Vec<Live>,
    aside: Vec<Vec<u32>>,
}

/// One operation; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Act {
    /// A new sequence: a prefix of one of a few texts, then tokens of its own.
    Begin {
        text: u32,
        shared: usize,
        own: usize,
    },
    /// Tokens for some sequences together.
    Step {
        first: usize,
        n: Vec<usize>,
        keep: bool,
    },
    Fork {
        of: usize,
        len: usize,
    },
    Truncate {
        of: usize,
        len: usize,
    },
    Drop {
        of: usize,
    },
    Insert {
        of: usize,
        tail: bool,
    },
    KeepBack {
        of: usize,
        tokens: usize,
    },
    Evict {
        pages: usize,
        states: usize,
    },
    SetAside,
    ComeBack,
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    let number = 0..1000usize;
    prop_oneof![
        3 => (0..2u32, 0..260usize, 1..40usize).prop_map(|(text, shared, own)| Act::Begin { text, shared, own }),
        6 => (number.clone(), proptest::collection::vec(prop_oneof![Just(64), 0..90usize], 1..4), proptest::bool::weighted(0.2))
            .prop_map(|(first, n, keep)| Act::Step { first, n, keep }),
        2 => (number.clone(), number.clone()).prop_map(|(of, len)| Act::Fork { of, len }),
        2 => (number.clone(), number.clone()).prop_map(|(of, len)| Act::Truncate { of, len }),
        1 => number.clone().prop_map(|of| Act::Drop { of }),
        5 => (number.clone(), any::<bool>()).prop_map(|(of, tail)| Act::Insert { of, tail }),
        1 => (number, 0..100usize).prop_map(|(of, tokens)| Act::KeepBack { of, tokens }),
        1 => (0..6usize, 0..3usize).prop_map(|(pages, states)| Act::Evict { pages, states }),
        1 => Just(Act::SetAside),
        2 => Just(Act::ComeBack),
        1 => Just(Act::Clear),
    ]
}

/// Groups of layers: windows in tokens, and tokens that an entry stands for.
type Groups = &'static [(Option<usize>, usize)];

/// Groups, and whether there are states.
const GRAPHS: &[(Groups, bool)] = &[
    (&[(None, 1)], false),
    (&[(None, 1), (Some(100), 1)], false),
    (&[(Some(10), 1), (Some(150), 1)], false),
    (&[(None, 1)], true),
    (&[(None, 1), (None, 8), (Some(70), 1)], true),
    (&[(None, 2), (None, 5)], false),
    (&[], true),
];

impl World {
    fn new(graph: usize, tokens: usize, limits: PrefixLimits) -> Self {
        let (groups, stateful) = GRAPHS[graph];
        let spec = |(i, (window, every)): (usize, &(Option<usize>, usize))| CacheSpec {
            window: *window,
            every: *every,
            ..CacheSpec::new(1, 4 + i, 4)
        };
        let caches: Vec<CacheSpec> = groups.iter().enumerate().map(spec).collect();
        let mut book = PageBook::new(&caches, KvType::F32, tokens);
        if stateful {
            book = book.with_states(&[StateSpec { elements: 1, rewritten: true }], tokens);
        }
        let pages = book.groups.iter().map(|g| vec![vec![u32::MAX; g.spec.page_tokens()]; g.capacity]).collect();
        let states = vec![Vec::new(); book.slots.room().0];
        let prefixes = Prefixes::new(limits);
        Self { book, prefixes, batch: Batch::default(), pages, states, live: Vec::new(), aside: Vec::new() }
    }

    /// Whether what the next token of `live` looks at is what it must be.
    fn check(&self, live: &Live) -> Result<(), TestCaseError> {
        let len = live.kv.len();
        prop_assert_eq!(len, live.tokens.len());
        for (g, group) in self.book.groups.iter().enumerate().filter(|_| len > 0) {
            let page_tokens = group.spec.page_tokens();
            let first = group.spec.window.map_or(0, |window| (len + 1).saturating_sub(window));
            for (at, token) in live.tokens.iter().enumerate().skip(first) {
                let page = live.kv.held.pages[g][at / page_tokens - live.kv.dropped[g]];
                prop_assert!(group.users(page) > 0);
                prop_assert_eq!(self.pages[g][page as usize][at % page_tokens], *token, "group {} token {}", g, at);
            }
        }
        if !self.book.slots.is_empty() && len > 0 {
            let state = live.kv.held.states.last().expect("a state");
            prop_assert_eq!(state.len, len);
            prop_assert_eq!(&self.states[state.slot as usize], &live.tokens);
        }
        Ok(())
    }

    /// A step of tokens for the sequences of these numbers; false where there is no room.
    fn step(&mut self, parts: &[(usize, Vec<u32>)], keep: bool) -> Result<bool, TestCaseError> {
        let missing = {
            let wanted: Vec<_> = parts.iter().map(|(i, tokens)| (&self.live[*i].kv, tokens.len())).collect();
            self.book.missing(&wanted, keep).expect("its own")
        };
        let lens: Vec<usize> = self.live.iter().map(|live| live.kv.len()).collect();
        let part_of = |i: usize| parts.iter().find(|(of, _)| *of == i).map(|(_, tokens)| tokens);
        let mut steps: Vec<SequenceStep<'_>> = (self.live.iter_mut().enumerate())
            .filter_map(|(i, live)| Some((live, part_of(i)?)))
            .map(|(live, tokens)| {
                live.kv.keep_back(usize::from(keep));
                SequenceStep::new(&mut live.kv, tokens, Outputs::None)
            })
            .collect();
        let admitted = self.batch.admit(&mut self.book, &mut steps, usize::MAX, usize::MAX, &[]);
        steps.iter_mut().for_each(|step| step.kv.keep_back(0));
        if let Err(error) = admitted {
            prop_assert!(!missing.is_none(), "{}", error);
            let full = matches!(error, StepError::CacheFull { .. } | StepError::StatesFull { .. });
            prop_assert!(full, "{}", error);
            prop_assert_eq!(lens, self.live.iter().map(|live| live.kv.len()).collect::<Vec<_>>());
            return Ok(false);
        }
        for copy in &self.batch.copies {
            self.pages[copy.group][copy.to as usize] = self.pages[copy.group][copy.from as usize].clone();
        }
        // As kernels do, all sequences read their states before any writes.
        let before: Vec<Vec<u32>> = (self.batch.sequences.iter())
            .map(|rows| rows.state.from.map_or(Vec::new(), |slot| self.states[slot as usize].clone()))
            .collect();
        for ((step, rows), mut state) in steps.iter().zip(&self.batch.sequences).zip(before) {
            let first = rows.cached - rows.n_rows;
            let tokens = &self.batch.tokens[rows.first_row..][..rows.n_rows];
            for (at, token) in (first..).zip(tokens) {
                for (g, group) in self.book.groups.iter().enumerate() {
                    let page_tokens = group.spec.page_tokens();
                    let page = step.kv.held.pages[g][at / page_tokens - step.kv.dropped[g]];
                    prop_assert_eq!(group.users(page), 1, "a shared page is written");
                    self.pages[g][page as usize][at % page_tokens] = *token;
                }
            }
            if !self.book.slots.is_empty() && rows.n_rows > 0 {
                prop_assert_eq!(self.book.slots.users(rows.state.to), 1, "a shared state is written");
                state.extend(tokens);
                self.states[rows.state.to as usize] = state;
            }
        }
        steps.into_iter().for_each(|step| self.book.drop_passed(step.kv, 0));
        for (i, tokens) in parts {
            let live = &mut self.live[*i];
            live.tokens.extend(tokens);
            live.pending.drain(..live.pending.len().min(tokens.len()));
        }
        Ok(true)
    }

    /// A step that makes room for itself: prefixes go first, then the youngest sequence is set aside.
    fn run(&mut self, mut parts: Vec<(usize, Vec<u32>)>, keep: bool) -> Result<(), TestCaseError> {
        loop {
            if self.step(&parts, keep)? {
                return Ok(());
            }
            let wanted: Vec<_> = parts.iter().map(|(i, tokens)| (&self.live[*i].kv, tokens.len())).collect();
            let missing = self.book.missing(&wanted, keep).expect("its own");
            if self.prefixes.evict(&mut Pages(&mut self.book), &missing).expect("its own") {
                continue;
            }
            if self.live.len() == 1 {
                // Alone it is just too long.
                return Ok(());
            }
            self.set_aside();
            parts.retain(|(i, _)| *i < self.live.len());
        }
    }

    fn set_aside(&mut self) {
        let Some(live) = self.live.pop() else { return };
        let mut pages = Pages(&mut self.book);
        self.prefixes.insert(&mut pages, &live.kv, &live.tokens, 0, true).expect("its own");
        self.aside.push([live.tokens, live.pending].concat());
    }

    /// Begins a sequence with the longest prefix that is kept.
    fn begin(&mut self, tokens: Vec<u32>) -> Result<(), TestCaseError> {
        let kv = self.prefixes.longest(&mut Pages(&mut self.book), &tokens, 0).expect("its own");
        prop_assert!(kv.len() < tokens.len());
        let (known, pending) = tokens.split_at(kv.len());
        let live = Live { tokens: known.to_vec(), pending: pending.to_vec(), kv };
        self.check(&live)?;
        self.live.push(live);
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let n_live = self.live.len();
        let of = |i: usize| i % n_live;
        match act {
            Act::Begin { text, shared, own } => {
                let first = (0..*shared as u32).map(|i| i * i % 7 + 10 * text);
                return self.begin(first.chain((0..*own as u32).map(|i| i + 1000 + n_live as u32)).collect());
            }
            Act::Evict { pages, states } => {
                let missing = Missing { pages: vec![*pages; self.book.groups.len()], states: *states };
                self.prefixes.evict(&mut Pages(&mut self.book), &missing).expect("its own");
            }
            Act::Clear => self.prefixes.clear(&mut Pages(&mut self.book)).expect("its own"),
            Act::ComeBack => {
                if let Some(tokens) = self.aside.pop().filter(|tokens| !tokens.is_empty()) {
                    return self.begin(tokens);
                }
            }
            _ if n_live == 0 => {}
            Act::Step { first, n, keep } => {
                let parts = n.iter().enumerate().take(n_live).map(|(k, n)| {
                    let i = of(first + k);
                    let mut tokens: Vec<u32> = self.live[i].pending.iter().take(*n).copied().collect();
                    tokens.resize(*n, (i + tokens.len()) as u32 % 3);
                    (i, tokens)
                });
                let mut parts: Vec<_> = parts.collect();
                parts.sort();
                return self.run(parts, *keep);
            }
            Act::Fork { of: i, len } => {
                let len = len % (self.live[of(*i)].kv.len() + 1);
                let live = &self.live[of(*i)];
                if let Some(kv) = self.book.fork_at(&live.kv, len).expect("its own") {
                    let tokens = live.tokens[..len].to_vec();
                    self.live.push(Live { kv, tokens, pending: Vec::new() });
                }
            }
            Act::Truncate { of: i, len } => {
                let live = &mut self.live[of(*i)];
                let len = len % (live.kv.len() + 1);
                if self.book.truncate(&mut live.kv, len).expect("its own") {
                    live.tokens.truncate(len);
                }
            }
            Act::Drop { of: i } => drop(self.live.remove(of(*i))),
            Act::Insert { of: i, tail } => {
                let live = &self.live[of(*i)];
                let mut pages = Pages(&mut self.book);
                self.prefixes.insert(&mut pages, &live.kv, &live.tokens, 0, *tail).expect("its own");
            }
            Act::KeepBack { of: i, tokens } => self.live[of(*i)].kv.keep_back(*tokens),
            Act::SetAside => self.set_aside(),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn every_sequence_holds_its_tokens_and_every_page_returns(
        graph in 0..GRAPHS.len(),
        tokens in 64..900usize,
        limits in (0..1500usize, 0..12usize),
        acts in proptest::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(graph, tokens, PrefixLimits { tokens: limits.0, states: limits.1 });
        for act in &acts {
            world.act(act)?;
            world.live.iter().try_for_each(|live| world.check(live))?;
            prop_assert!(world.prefixes.tokens() <= limits.0 && world.prefixes.states() <= limits.1);
        }
        world.live.clear();
        let kept = world.book.bytes_in_use();
        prop_assert!(kept == 0 || world.prefixes.tokens() > 0);
        // What prefixes alone hold can all be had.
        let all = Missing { pages: vec![usize::MAX; world.book.groups.len()], states: usize::MAX };
        prop_assert!(!world.prefixes.evict(&mut Pages(&mut world.book), &all).expect("its own"));
        prop_assert_eq!(world.book.bytes_in_use(), 0);
        drop(world.prefixes);
        prop_assert_eq!(world.book.bytes_in_use(), 0);
    }
}
