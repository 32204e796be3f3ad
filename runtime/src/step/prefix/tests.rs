use super::*;
use crate::{
    graph::{CacheSpec, StateSpec},
    step::{KvType, Missing},
};

const ALL: PrefixLimits = PrefixLimits { tokens: usize::MAX, states: usize::MAX };

fn book(window: Option<usize>, stateful: bool, tokens: usize) -> PageBook {
    let full = CacheSpec::new(2, 4, 4);
    let book = PageBook::new(&[full, CacheSpec { window, ..full }], KvType::F32, tokens);
    let states = [StateSpec { elements: 3, rewritten: true }];
    if stateful { book.with_states(&states, tokens) } else { book }
}

fn text(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * 31 + seed).collect()
}

/// Runs `tokens` behind those of `seq`, in parts that end at the given lengths, each of which is inserted.
fn run(book: &mut PageBook, prefixes: &mut Prefixes, seq: &mut SequenceKv, tokens: &[u32], ends: &[usize]) {
    for end in ends {
        let n = end - seq.len();
        book.extend(seq, n, false, &mut Vec::new()).unwrap();
        book.drop_passed(seq, 0);
        prefixes.insert(&mut Pages(book), seq, tokens, 0, *end == tokens.len()).unwrap();
    }
}

/// Tokens of a new sequence's beginning that need not be run.
fn reused(book: &mut PageBook, prefixes: &mut Prefixes, tokens: &[u32]) -> usize {
    prefixes.longest(&mut Pages(book), tokens, 0).unwrap().len()
}

#[test]
fn a_prefix_is_found_up_to_where_its_pages_and_states_allow() {
    let tokens = text(1, 300);
    let longer = [&tokens[..], &text(9, 5)].concat();
    let other = [&tokens[..200], &text(9, 100)].concat();
    // A window, states, the lengths that were run; what is found of the same text, a longer one and another.
    for (window, stateful, ends, found) in [
        (None, false, &[300][..], [299, 300, 200]),
        (None, false, &[100, 300], [299, 300, 200]),
        (None, true, &[300], [0, 300, 0]),
        (None, true, &[256, 300], [256, 300, 0]),
        (None, true, &[64, 192, 256, 300], [256, 300, 192]),
        (Some(100), false, &[300], [299, 300, 0]),
        (Some(100), false, &[64, 192, 256, 300], [299, 300, 200]),
        (Some(100), true, &[64, 192, 256, 300], [256, 300, 192]),
    ] {
        let (mut book, mut prefixes) = (book(window, stateful, 10_000), Prefixes::new(ALL));
        let mut seq = SequenceKv::default();
        run(&mut book, &mut prefixes, &mut seq, &tokens, ends);
        drop(seq);
        let got = [&tokens, &longer, &other].map(|tokens| reused(&mut book, &mut prefixes, tokens));
        assert_eq!(got, found, "window {window:?}, states: {stateful}, in parts {ends:?}");
        let sum = got.iter().sum::<usize>() as u64;
        assert_eq!((prefixes.stats().lookups, prefixes.stats().reused_tokens), (3, sum));
        assert_eq!(prefixes.longest(&mut Pages(&mut book), &tokens, 7).unwrap().len(), 0, "another salt");
        drop(prefixes);
        assert_eq!(book.bytes_in_use(), 0);
    }
}

#[test]
fn the_least_recently_used_go_first_and_only_what_helps() {
    let (mut book, mut prefixes) = (book(None, false, 1000), Prefixes::new(ALL));
    let texts = [text(1, 128), text(2, 128), text(3, 128)];
    let mut live = SequenceKv::default();
    for (i, tokens) in texts.iter().enumerate() {
        let mut seq = SequenceKv::default();
        run(&mut book, &mut prefixes, &mut seq, tokens, &[128]);
        if i == 1 {
            live = seq;
        }
    }
    let more = |tokens: &[u32]| [tokens, &[0]].concat();
    assert_eq!(reused(&mut book, &mut prefixes, &more(&texts[0])), 128);
    let want = |n: usize| Missing { pages: vec![n], states: 0 };
    // The second is the oldest now, but a sequence has its pages. The third loses its end first.
    assert!(prefixes.evict(&mut Pages(&mut book), &want(1)).unwrap());
    assert_eq!([0, 1, 2].map(|i| reused(&mut book, &mut prefixes, &more(&texts[i]))), [128, 128, 64]);
    assert!(prefixes.evict(&mut Pages(&mut book), &want(3)).unwrap());
    assert!(!prefixes.evict(&mut Pages(&mut book), &want(1)).unwrap(), "the others are in use");
    assert_eq!([0, 1, 2].map(|i| reused(&mut book, &mut prefixes, &more(&texts[i]))), [0, 128, 0]);
    assert_eq!(prefixes.stats().evicted_tokens, 4 * 64);
    drop(live);
    assert!(prefixes.evict(&mut Pages(&mut book), &want(2)).unwrap());
    assert_eq!((book.bytes_in_use(), prefixes.tokens()), (0, 0));
}

#[test]
fn limits_hold_and_states_can_be_had_alone() {
    let (mut book, mut prefixes) = (book(None, true, 10_000), Prefixes::new(PrefixLimits { tokens: 256, states: 2 }));
    let tokens = text(1, 192);
    run(&mut book, &mut prefixes, &mut SequenceKv::default(), &tokens, &[64, 128, 192]);
    assert_eq!((prefixes.tokens(), prefixes.states()), (192, 2));
    let other = text(2, 64);
    run(&mut book, &mut prefixes, &mut SequenceKv::default(), &other, &[64]);
    // The first text's end remains, because the states before it were the older ones.
    let more = |tokens: &[u32]| [tokens, &[0]].concat();
    assert_eq!((prefixes.tokens(), prefixes.states()), (256, 2));
    assert_eq!([&tokens, &other].map(|t| reused(&mut book, &mut prefixes, &more(t))), [192, 64]);
    run(&mut book, &mut prefixes, &mut SequenceKv::default(), &text(3, 64), &[64]);
    // Without a state behind them, pages that lead nowhere go, too.
    assert_eq!((prefixes.tokens(), prefixes.states()), (128, 2));
    let missing = Missing { pages: Vec::new(), states: 1 };
    assert!(prefixes.evict(&mut Pages(&mut book), &missing).unwrap());
    assert_eq!((prefixes.tokens(), prefixes.states()), (64, 1));
    prefixes.clear(&mut Pages(&mut book)).unwrap();
    assert_eq!((book.bytes_in_use(), prefixes.tokens(), prefixes.states()), (0, 0, 0));
}

#[test]
fn a_step_that_finds_no_room_is_named_and_what_it_lacks_can_be_asked_for() {
    use crate::step::{Batch, Outputs, SequenceStep};
    let mut book = book(None, false, 128);
    let (mut a, mut b) = (SequenceKv::default(), SequenceKv::default());
    let room = Pages(&mut book).room();
    assert_eq!((room.tokens, room.free_tokens, room.states), (640, 640, 0));
    book.extend(&mut a, 400, false, &mut Vec::new()).unwrap();
    assert_eq!(Pages(&mut book).room().free_tokens, 3 * 64);
    let missing = Pages(&mut book).missing(&[(&a, 48), (&b, 257)], false).unwrap();
    assert_eq!((missing.pages(), missing.states(), missing.is_none()), (2, 0, false));
    assert!(Pages(&mut book).missing(&[(&a, 48), (&b, 192)], false).unwrap().is_none());
    let tokens = [1; 257];
    let mut steps = [(&mut a, 48), (&mut b, 257)].map(|(kv, n)| SequenceStep::new(kv, &tokens[..n], Outputs::Last));
    let error = Batch::default().admit(&mut book, &mut steps, 1000, 10, &[]).unwrap_err();
    let StepError::CacheFull { sequence: 1, cached: 0, wanted: 257, tokens: 640, free: 192 } = error else {
        panic!("{error:?}");
    };
    let text = error.to_string();
    assert!(text.contains("sequence 1") && text.contains("640"), "{text}");
}

#[test]
fn prefixes_of_another_book_are_refused() {
    let (mut own, mut other) = (book(None, false, 1000), book(None, false, 1000));
    let mut prefixes = Prefixes::new(ALL);
    let (tokens, mut seq) = (text(1, 100), SequenceKv::default());
    run(&mut own, &mut prefixes, &mut seq, &tokens, &[100]);
    let refused = |e: StepError| assert!(matches!(e, StepError::OtherBackend { tokens: 100 }), "{e}");
    refused(prefixes.longest(&mut Pages(&mut other), &tokens, 0).unwrap_err());
    refused(prefixes.insert(&mut Pages(&mut other), &seq, &tokens, 0, true).unwrap_err());
    refused(prefixes.evict(&mut Pages(&mut other), &Missing::default()).unwrap_err());
    refused(Prefixes::new(ALL).insert(&mut Pages(&mut other), &seq, &tokens, 0, true).unwrap_err());
    // They may outlive their book.
    drop(own);
    drop(prefixes);
}

#[test]
fn an_owner_can_go_back_and_fork_where_it_said_so() {
    let mut book = book(Some(70), true, 1000);
    let mut seq = SequenceKv::default();
    seq.keep_back(64);
    for n in [300, 10, 10, 50] {
        book.extend(&mut seq, n, false, &mut Vec::new()).unwrap();
        book.drop_passed(&mut seq, 0);
    }
    let fork = |book: &mut PageBook, len: usize| book.fork_at(&seq, len).unwrap().map(|fork| fork.len());
    assert_eq!(
        [300, 310, 315, 320, 370, 999, 0].map(|len| fork(&mut book, len)),
        [None, Some(310), None, Some(320), Some(370), Some(370), Some(0)]
    );
    seq.keep_back(0);
    book.drop_passed(&mut seq, 0);
    assert!(!book.truncate(&mut seq, 320).unwrap());
}

#[test]
fn what_stands_before_pages_in_use_can_go_where_nobody_uses_it() {
    // Pages for 512 tokens, and eight more.
    let (mut book, mut prefixes) = (book(None, false, 512), Prefixes::new(ALL));
    let x = text(1, 256);
    let xy = [&x[..], &text(2, 128)].concat();
    let [mut a, mut b] = [(); 2].map(|()| SequenceKv::default());
    // Both run x before either has kept it: the pieces of x hold the pages of a, those behind them the pages of b.
    run(&mut book, &mut prefixes, &mut a, &x, &[256]);
    run(&mut book, &mut prefixes, &mut b, &xy, &[256, 384]);
    drop(a);
    // Of the sixteen pages b has six and a's four are kept; b wants ten more.
    let missing = book.missing(&[(&b, 640)], false).unwrap();
    assert!(!missing.is_none());
    assert!(prefixes.evict(&mut Pages(&mut book), &missing).unwrap(), "b alone has the cache to itself");
    book.extend(&mut b, 640, false, &mut Vec::new()).unwrap();
}
