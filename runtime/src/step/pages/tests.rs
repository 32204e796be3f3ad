use super::*;

fn book(window: Option<usize>, tokens: usize) -> PageBook {
    let spec = CacheSpec { n_kv_heads: 2, head_dim: 4, v_dim: 4, window, v_in_k: false };
    PageBook::new(&[spec, spec], KvType::F32, tokens)
}

fn extend(book: &mut PageBook, seq: &mut SequenceKv, n: usize) -> Result<Vec<PageCopy>, StepError> {
    let mut copies = Vec::new();
    book.extend(seq, n, &mut copies).map(|()| copies)
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
