use super::*;
use crate::graph::StateSpec;

fn book(window: Option<usize>, tokens: usize) -> PageBook {
    let spec = CacheSpec { window, ..CacheSpec::new(2, 4, 4) };
    PageBook::new(&[spec, spec], KvType::F32, tokens)
}

fn extend(book: &mut PageBook, seq: &mut SequenceKv, n: usize) -> Result<Vec<PageCopy>, StepError> {
    let mut copies = Vec::new();
    book.extend(seq, n, false, &mut copies).map(|_| copies)
}

#[test]
fn pages_come_with_use_and_return() {
    let mut book = book(None, 1000);
    let mut seq = SequenceKv::default();
    extend(&mut book, &mut seq, 1).unwrap();
    assert_eq!(seq.held.pages[0].len(), 1);
    extend(&mut book, &mut seq, PAGE_TOKENS).unwrap();
    assert_eq!((seq.len(), seq.held.pages[0].len()), (PAGE_TOKENS + 1, 2));
    assert!(book.truncate(&mut seq, PAGE_TOKENS).unwrap());
    assert_eq!(seq.held.pages[0].len(), 1);
    drop(seq);
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn a_full_cache_leaves_the_sequence_as_it_was() {
    let mut book = book(None, 64);
    let mut seq = SequenceKv::default();
    extend(&mut book, &mut seq, 500).unwrap();
    let before = seq.held.pages.clone();
    assert!(matches!(extend(&mut book, &mut seq, 10_000), Err(StepError::CacheFull { .. })));
    assert_eq!((seq.len(), &seq.held.pages), (500, &before));
}

#[test]
fn windows_drop_pages_and_refuse_to_go_back() {
    let mut book = book(Some(10), 10_000);
    let mut seq = SequenceKv::default();
    extend(&mut book, &mut seq, 1000).unwrap();
    book.drop_passed(&mut seq, 0);
    // Token 1000 sees keys 991..=1000, which begin in page 15.
    assert_eq!((seq.dropped[0], seq.held.pages[0].len()), (15, 1));
    assert!(!book.truncate(&mut seq, 500).unwrap());
    assert!(book.truncate(&mut seq, 998).unwrap());
    assert!(book.truncate(&mut seq, 0).unwrap());
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn forks_share_pages_until_one_writes() {
    let mut book = book(None, 1000);
    let mut a = SequenceKv::default();
    extend(&mut book, &mut a, 70).unwrap();
    let mut b = book.fork(&a).unwrap();
    assert_eq!(a.held.pages, b.held.pages);
    let tail = a.held.pages[0][1];
    let copies = extend(&mut book, &mut b, 1).unwrap();
    assert_eq!(copies, [PageCopy { group: 0, from: tail, to: b.held.pages[0][1] }]);
    assert_ne!(b.held.pages[0][1], tail);
    assert_eq!(a.held.pages[0], [b.held.pages[0][0], tail]);
    assert!(extend(&mut book, &mut a, 1).unwrap().is_empty());
    drop(a);
    drop(b);
    assert_eq!(book.bytes_in_use(), 0);
}

fn with_states(tokens: usize) -> PageBook {
    book(None, tokens).with_states(&[StateSpec { elements: 3, rewritten: true }], tokens)
}

/// What a step of `n` tokens reads and writes.
fn states(book: &mut PageBook, seq: &mut SequenceKv, n: usize, keep: bool) -> StateStep {
    book.extend(seq, n, keep, &mut Vec::new()).unwrap()
}

#[test]
fn states_are_worked_on_in_place_unless_shared_or_kept() {
    let mut book = with_states(1000);
    let mut a = SequenceKv::default();
    assert_eq!(states(&mut book, &mut a, 0, false), StateStep::default());
    assert_eq!(states(&mut book, &mut a, 5, false), StateStep { from: None, to: 0 });
    assert_eq!(states(&mut book, &mut a, 5, false), StateStep { from: Some(0), to: 0 });
    let mut b = book.fork(&a).unwrap();
    // In one batch: neither may write what the other reads.
    assert_eq!(states(&mut book, &mut a, 1, false), StateStep { from: Some(0), to: 1 });
    assert_eq!(states(&mut book, &mut b, 1, false), StateStep { from: Some(0), to: 2 });
    book.drop_passed(&mut a, 0);
    book.drop_passed(&mut b, 0);
    assert_eq!(states(&mut book, &mut a, 1, false), StateStep { from: Some(1), to: 1 });
    assert_eq!(states(&mut book, &mut b, 1, true), StateStep { from: Some(2), to: 0 });
    drop(a);
    drop(b);
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn going_back_needs_a_state_that_was_kept() {
    let mut book = with_states(1000);
    let mut seq = SequenceKv::default();
    states(&mut book, &mut seq, 10, false);
    states(&mut book, &mut seq, 10, false);
    assert!(!book.truncate(&mut seq, 10).unwrap(), "overwritten");
    for _ in 0..5 {
        states(&mut book, &mut seq, 1, true);
        book.drop_passed(&mut seq, 3);
    }
    assert_eq!(seq.len(), 25);
    assert!(!book.truncate(&mut seq, 21).unwrap(), "dropped");
    assert!(book.truncate(&mut seq, 23).unwrap());
    let state = states(&mut book, &mut seq, 1, false);
    assert_eq!(state.from, Some(state.to));
    assert!(book.truncate(&mut seq, 22).unwrap(), "what was kept before is still there");
    assert!(book.truncate(&mut seq, 0).unwrap());
    assert_eq!(book.bytes_in_use(), 0);
    assert_eq!(states(&mut book, &mut seq, 1, false).from, None);
}

#[test]
fn a_refused_step_changes_nothing() {
    use crate::step::{Batch, Outputs, SequenceStep};
    let mut book = with_states(64);
    let mut a = SequenceKv::default();
    states(&mut book, &mut a, 70, false);
    let (mut b, mut c) = (book.fork(&a).unwrap(), SequenceKv::default());
    let before = (format!("{a:?} {b:?} {c:?}"), book.bytes_in_use());
    let made = (book.groups[0].counts.len(), book.slots.made());
    let (few, many) = (vec![0; 3], vec![0; 10_000]);
    let mut batch = Batch::default();
    for last in [&few, &many] {
        let mut steps = [&mut a, &mut b, &mut c].map(|kv| SequenceStep::new(kv, &few, Outputs::Last));
        steps[2].tokens = last.into();
        let admitted = batch.admit(&mut book, &mut steps, 100_000, 10, &[]);
        assert_eq!(admitted.is_ok(), last.len() == few.len());
        if admitted.is_ok() {
            batch.undo(&mut book, &mut steps);
        }
        // No memory was ever wanted for the new sequence's.
        assert_eq!((book.groups[0].counts.len(), book.slots.made()), made);
        // It has lists now, all empty.
        c = SequenceKv::default();
        assert_eq!((format!("{a:?} {b:?} {c:?}"), book.bytes_in_use()), before);
    }
    assert!(book.truncate(&mut a, 0).unwrap() && book.truncate(&mut b, 0).unwrap());
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn entries_of_blocks_have_pages_of_their_own() {
    let blocks = CacheSpec { every: 8, ..CacheSpec::new(1, 4, 0) };
    assert_eq!((blocks.page_entries(), blocks.page_tokens()), (PAGE_BLOCKS, 8 * PAGE_BLOCKS));
    assert_eq!([6, 7, 15].map(|p| blocks.seen(p)), [0, 1, 2]);
    let mut book = PageBook::new(&[CacheSpec::new(2, 4, 4), blocks], KvType::F32, 1000);
    let (mut seq, n) = (SequenceKv::default(), 8 * PAGE_BLOCKS);
    extend(&mut book, &mut seq, n).unwrap();
    assert_eq!([seq.held.pages[0].len(), seq.held.pages[1].len()], [n / PAGE_TOKENS, 1]);
    // A fork that goes on within the blocks' page gets a copy of that alone.
    let mut fork = book.fork(&seq).unwrap();
    assert!(book.truncate(&mut fork, PAGE_TOKENS).unwrap());
    let copies = extend(&mut book, &mut fork, 1).unwrap();
    assert_eq!(copies.iter().map(|c| c.group).collect::<Vec<_>>(), [1]);
    extend(&mut book, &mut seq, 1).unwrap();
    assert_eq!([seq.held.pages[0].len(), seq.held.pages[1].len()], [n / PAGE_TOKENS + 1, 2]);
}

#[test]
fn pages_of_another_book_are_refused_everywhere() {
    use crate::step::{Batch, Outputs, SequenceStep};
    // The other one has pages of the same numbers, and fewer of them.
    let (mut own, mut other) = (with_states(10_000), with_states(64));
    let (mut seq, mut local) = (SequenceKv::default(), SequenceKv::default());
    states(&mut own, &mut seq, 5_000, false);
    states(&mut other, &mut local, 70, false);
    let before = (format!("{seq:?} {local:?}"), other.bytes_in_use());
    let refused = |e: StepError| assert!(matches!(e, StepError::OtherBackend { tokens: 5_000 }), "{e}");
    refused(extend(&mut other, &mut seq, 1).unwrap_err());
    refused(other.truncate(&mut seq, 3).unwrap_err());
    refused(other.truncate(&mut seq, 6_000).unwrap_err());
    refused(other.fork(&seq).unwrap_err());
    let mut steps = [&mut local, &mut seq].map(|kv| SequenceStep::new(kv, &[1], Outputs::Last));
    refused(Batch::default().admit(&mut other, &mut steps, 10, 10, &[]).unwrap_err());
    assert_eq!((format!("{seq:?} {local:?}"), other.bytes_in_use()), before, "nothing has changed");
    // Once it holds nothing it may go anywhere, whatever the other's groups are.
    assert!(own.truncate(&mut seq, 0).unwrap());
    let mut third = PageBook::new(&[CacheSpec::new(2, 4, 4), CacheSpec::new(1, 8, 8)], KvType::F32, 1000);
    extend(&mut third, &mut seq, 1).unwrap();
    refused_len(extend(&mut own, &mut seq, 1).unwrap_err(), 1);
    drop(seq);
    assert_eq!((own.bytes_in_use(), third.bytes_in_use()), (0, 0));
}

fn refused_len(error: StepError, len: usize) {
    assert!(matches!(error, StepError::OtherBackend { tokens } if tokens == len), "{error}");
}

#[test]
fn a_dropped_sequence_gives_its_pages_back_from_any_thread() {
    let mut book = with_states(1000);
    let mut seq = SequenceKv::default();
    states(&mut book, &mut seq, 500, false);
    let used = book.bytes_in_use();
    let forks: Vec<SequenceKv> = (0..4).map(|_| book.fork(&seq).unwrap()).collect();
    std::thread::scope(|scope| forks.into_iter().for_each(|fork| drop(scope.spawn(move || drop(fork)))));
    assert_eq!(book.bytes_in_use(), used, "shared with a sequence that is still there");
    // A full cache has room again for the next step.
    let mut next = SequenceKv::default();
    assert!(matches!(extend(&mut book, &mut next, 1_100), Err(StepError::CacheFull { .. })));
    drop(seq);
    let mut batch = crate::step::Batch::default();
    let tokens = [0; 1_100];
    let step = crate::step::SequenceStep::new(&mut next, &tokens, crate::step::Outputs::None);
    batch.admit(&mut book, &mut [step], 1_100, 10, &[]).unwrap();
    // A sequence may outlive its book.
    drop(book);
    drop(next);
}

#[cfg(feature = "gpu")]
#[test]
fn a_step_that_failed_leaves_no_state_to_continue_from() {
    use crate::step::{Batch, Outputs, SequenceStep};
    let mut book = with_states(1000);
    let (mut worked_on, mut new) = (SequenceKv::default(), SequenceKv::default());
    states(&mut book, &mut worked_on, 70, false);
    let mut fork = book.fork(&worked_on).unwrap();
    states(&mut book, &mut worked_on, 1, false);
    book.drop_passed(&mut worked_on, 0);
    let mut batch = Batch::default();
    let mut steps = [&mut worked_on, &mut fork, &mut new].map(|kv| SequenceStep::new(kv, &[1, 2], Outputs::Last));
    // The second one's state is shared, so that the step writes another; the first one's is its own.
    let shared = book.fork(steps[1].kv).unwrap();
    batch.admit(&mut book, &mut steps, 10, 10, &[]).unwrap();
    batch.begin();
    batch.undo(&mut book, &mut steps);
    assert_eq!([worked_on.len(), fork.len(), new.len()], [0, 70, 0]);
    drop((worked_on, fork, new, shared));
    assert_eq!(book.bytes_in_use(), 0);
}
