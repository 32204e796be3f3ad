//! The tables of angles, without a device.

use std::ops::Range;

use super::{Fresh, KEPT, KeyTables, LEAST_ROOM, Want};

const WIDTH: usize = 6;
const LOTS: usize = 1 << 30;

fn want(rope: usize, regime: usize, rows: usize) -> Want {
    Want { rope, regime, width: WIDTH, rows }
}

/// What a device would have: the rope, regime and position of each row that was written.
#[derive(Default)]
struct Simulated {
    tables: KeyTables,
    rows: Vec<Option<(usize, usize, usize)>>,
}

impl Simulated {
    /// A step; returns the rows written, by regime, after checking that all that the step reads is there.
    fn step(&mut self, wants: &[Want], most: usize) -> Vec<(usize, Range<usize>)> {
        self.tables.admit(wants, most);
        // As the step's own rows do, what lies behind the tables is overwritten.
        let behind = self.rows.len().min(self.tables.len / WIDTH);
        self.rows[behind..].fill(None);
        self.rows.resize(self.tables.len / WIDTH, None);
        let mut written = Vec::new();
        for Fresh { rope, regime, rows, at } in self.tables.fresh() {
            assert_eq!(at % WIDTH, 0);
            for (i, position) in rows.clone().enumerate() {
                self.rows[at / WIDTH + i] = Some((rope, regime, position));
            }
            written.push((regime, rows));
        }
        for w in wants {
            let at = self.tables.at(w.rope, w.regime) / WIDTH;
            for position in 0..w.rows {
                assert_eq!(self.rows[at + position], Some((w.rope, w.regime, position)), "{w:?} of {wants:?}");
            }
        }
        written
    }
}

#[test]
fn only_new_rows_are_written() {
    let mut s = Simulated::default();
    assert_eq!(s.step(&[want(0, 0, 10)], LOTS), [(0, 0..10)]);
    assert_eq!(s.step(&[want(0, 0, 11)], LOTS), [(0, 10..11)]);
    // Another sequence, one that was cut off: its positions are there.
    assert_eq!(s.step(&[want(0, 0, 5)], LOTS), []);
    assert_eq!(s.step(&[want(0, 0, 5), want(0, 0, 13), want(0, 0, 12)], LOTS), [(0, 11..13)]);
    // The buffer is a new one.
    s.tables.forget();
    assert_eq!(s.step(&[want(0, 0, 7)], LOTS), [(0, 0..7)]);
}

#[test]
fn a_step_that_never_ran_leaves_nothing_out() {
    let mut s = Simulated::default();
    s.step(&[want(0, 0, 10)], LOTS);
    s.tables.admit(&[want(0, 0, 20), want(0, 9, 20)], LOTS);
    assert_eq!(s.step(&[want(0, 9, 15), want(0, 0, 12)], LOTS), [(0, 10..12), (9, 0..15)]);
}

#[test]
fn tables_grow_now_and_then() {
    let mut s = Simulated::default();
    let (n, mut written, mut most) = (1000, 0, 0);
    for len in 1..=n {
        let rows: usize = s.step(&[want(0, 0, len)], LOTS).into_iter().map(|(_, rows)| rows.len()).sum();
        most += usize::from(rows > 1);
        written += rows;
    }
    assert!(written < 3 * n && most <= (n / LEAST_ROOM).ilog2() as usize + 1, "{written} rows, {most} times many");
    assert_eq!(s.tables.tables.len(), 1);
}

#[test]
fn a_sequence_that_turns_otherwise_has_another_table() {
    let mut s = Simulated::default();
    s.step(&[want(0, 0, 16)], LOTS);
    assert_eq!(s.step(&[want(0, 17, 17)], LOTS), [(17, 0..17)]);
    assert_eq!(s.step(&[want(0, 17, 18)], LOTS), [(17, 17..18)]);
    // Both in one step, and steps of one and the other: nothing is filled anew.
    assert_eq!(s.step(&[want(0, 0, 17), want(0, 17, 19)], LOTS), [(0, 16..17), (17, 18..19)]);
    for len in 20..40 {
        assert_eq!(s.step(&[want(0, 0, len)], LOTS).len(), usize::from(len > 17));
        assert_eq!(s.step(&[want(0, 17, len)], LOTS), [(17, len - 1..len)]);
    }
    // Ropes share nothing.
    assert_eq!(s.step(&[want(0, 17, 39), want(1, 17, 3)], LOTS), [(17, 0..3)]);
}

#[test]
fn tables_are_reused() {
    let mut s = Simulated::default();
    // New frequencies every step, beside a sequence whose frequencies stay.
    for len in 100..400 {
        let written = s.step(&[want(0, len, len), want(0, 0, 50)], LOTS);
        assert!(written.contains(&(len, 0..len)), "{len}: {written:?}");
        assert!(s.tables.tables.len() <= 2 + KEPT);
    }
    // Many at once, then few: no more than were ever there.
    for round in 0..10 {
        let many: Vec<Want> = (0..8).map(|i| want(0, 1000 * round + i, 100 + i)).collect();
        s.step(&many, LOTS);
        s.step(&[want(0, 0, 60 + round)], LOTS);
        assert!(s.tables.tables.len() <= 8 + 1 + KEPT, "{} tables", s.tables.tables.len());
    }
    // With the next layout only the latest are left.
    s.step(&[want(0, 0, 1000)], LOTS);
    assert_eq!(s.tables.tables.len(), 1 + KEPT);
}

#[test]
fn little_room_is_enough() {
    let mut s = Simulated::default();
    // Not what is unused, nor more than is needed.
    for len in 1..200 {
        s.step(&[want(0, len, len), want(0, 0, 90)], (90 + len) * WIDTH);
        assert!(s.tables.len <= (90 + len) * WIDTH, "{len}");
    }
    // More than there can be: whoever makes the buffer says so.
    s.step(&[want(0, 0, 300)], 299 * WIDTH);
    assert_eq!(s.tables.len, 300 * WIDTH);
}
