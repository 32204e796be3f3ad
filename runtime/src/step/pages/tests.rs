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
    assert_eq!(seq.pages[0].len(), 1);
    extend(&mut book, &mut seq, PAGE_TOKENS).unwrap();
    assert_eq!((seq.len(), seq.pages[0].len()), (PAGE_TOKENS + 1, 2));
    assert!(book.truncate(&mut seq, PAGE_TOKENS));
    assert_eq!(seq.pages[0].len(), 1);
    book.release(seq);
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn a_full_cache_leaves_the_sequence_as_it_was() {
    let mut book = book(None, 64);
    let mut seq = SequenceKv::default();
    extend(&mut book, &mut seq, 500).unwrap();
    let before = seq.pages.clone();
    assert!(matches!(extend(&mut book, &mut seq, 10_000), Err(StepError::CacheFull { .. })));
    assert_eq!((seq.len(), &seq.pages), (500, &before));
}

#[test]
fn windows_drop_pages_and_refuse_to_go_back() {
    let mut book = book(Some(10), 10_000);
    let mut seq = SequenceKv::default();
    extend(&mut book, &mut seq, 1000).unwrap();
    book.drop_passed(&mut seq, 0);
    // Token 1000 sees keys 991..=1000, which begin in page 15.
    assert_eq!((seq.dropped[0], seq.pages[0].len()), (15, 1));
    assert!(!book.truncate(&mut seq, 500));
    assert!(book.truncate(&mut seq, 998));
    assert!(book.truncate(&mut seq, 0));
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn forks_share_pages_until_one_writes() {
    let mut book = book(None, 1000);
    let mut a = SequenceKv::default();
    extend(&mut book, &mut a, 70).unwrap();
    let mut b = book.fork(&a);
    assert_eq!(a.pages, b.pages);
    let tail = a.pages[0][1];
    let copies = extend(&mut book, &mut b, 1).unwrap();
    assert_eq!(copies, [PageCopy { group: 0, from: tail, to: b.pages[0][1] }]);
    assert_ne!(b.pages[0][1], tail);
    assert_eq!(a.pages[0], [b.pages[0][0], tail]);
    assert!(extend(&mut book, &mut a, 1).unwrap().is_empty());
    book.release(a);
    book.release(b);
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
    let mut b = book.fork(&a);
    // In one batch: neither may write what the other reads.
    assert_eq!(states(&mut book, &mut a, 1, false), StateStep { from: Some(0), to: 1 });
    assert_eq!(states(&mut book, &mut b, 1, false), StateStep { from: Some(0), to: 2 });
    book.drop_passed(&mut a, 0);
    book.drop_passed(&mut b, 0);
    assert_eq!(states(&mut book, &mut a, 1, false), StateStep { from: Some(1), to: 1 });
    assert_eq!(states(&mut book, &mut b, 1, true), StateStep { from: Some(2), to: 0 });
    book.release(a);
    book.release(b);
    assert_eq!(book.bytes_in_use(), 0);
}

#[test]
fn going_back_needs_a_state_that_was_kept() {
    let mut book = with_states(1000);
    let mut seq = SequenceKv::default();
    states(&mut book, &mut seq, 10, false);
    states(&mut book, &mut seq, 10, false);
    assert!(!book.truncate(&mut seq, 10), "overwritten");
    for _ in 0..5 {
        states(&mut book, &mut seq, 1, true);
        book.drop_passed(&mut seq, 3);
    }
    assert_eq!(seq.len(), 25);
    assert!(!book.truncate(&mut seq, 21), "dropped");
    assert!(book.truncate(&mut seq, 23));
    let state = states(&mut book, &mut seq, 1, false);
    assert_eq!(state.from, Some(state.to));
    assert!(book.truncate(&mut seq, 22), "what was kept before is still there");
    assert!(book.truncate(&mut seq, 0));
    assert_eq!(book.bytes_in_use(), 0);
    assert_eq!(states(&mut book, &mut seq, 1, false).from, None);
}

#[test]
fn a_refused_step_changes_nothing() {
    use crate::step::{Batch, Outputs, SequenceStep};
    let mut book = with_states(64);
    let mut a = SequenceKv::default();
    states(&mut book, &mut a, 70, false);
    let (mut b, mut c) = (book.fork(&a), SequenceKv::default());
    let before = (format!("{a:?} {b:?} {c:?}"), book.bytes_in_use());
    let made = (book.groups[0].counts.len(), book.slots.made());
    let (few, many) = (vec![0; 3], vec![0; 10_000]);
    let mut batch = Batch::default();
    for last in [&few, &many] {
        let mut steps = [&mut a, &mut b, &mut c].map(|kv| SequenceStep { kv, tokens: &few, outputs: Outputs::Last });
        steps[2].tokens = last;
        let admitted = batch.admit(&mut book, &mut steps, 100_000, 10, false);
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
    assert!(book.truncate(&mut a, 0) && book.truncate(&mut b, 0));
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
    assert_eq!([seq.pages[0].len(), seq.pages[1].len()], [n / PAGE_TOKENS, 1]);
    // A fork that goes on within the blocks' page gets a copy of that alone.
    let mut fork = book.fork(&seq);
    assert!(book.truncate(&mut fork, PAGE_TOKENS));
    let copies = extend(&mut book, &mut fork, 1).unwrap();
    assert_eq!(copies.iter().map(|c| c.group).collect::<Vec<_>>(), [1]);
    extend(&mut book, &mut seq, 1).unwrap();
    assert_eq!([seq.pages[0].len(), seq.pages[1].len()], [n / PAGE_TOKENS + 1, 2]);
}
