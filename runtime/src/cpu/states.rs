//! The memory of the CPU's per-sequence states; [`PageBook`] counts who uses which slot.

use super::{CpuError, buffer::Buffer};
use crate::{
    graph::{StateId, StateSpec},
    step::{Batch, PageBook, StateStep},
};

/// All slots, each with the states of all layers.
#[derive(Debug, Default)]
pub(crate) struct StateMemory {
    slots: Vec<Buffer>,
}

/// One sequence's state of one layer in a step, as kernels read and write it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateRows {
    /// Elements before the step; null where the sequence is new. May equal `to`.
    pub from: *const f32,
    /// Elements after the step.
    pub to: *mut f32,
}

impl StateMemory {
    /// Makes room for every slot that `book` has handed out. States that kernels change in place are first copied or
    /// zeroed.
    ///
    /// # Errors
    /// No memory.
    pub fn prepare(&mut self, book: &PageBook, specs: &[StateSpec], batch: &Batch) -> Result<(), CpuError> {
        while self.slots.len() < book.slots.made() {
            self.slots.push(Buffer::new(book.slots.bytes(), "the states of sequences")?);
        }
        let in_place = || (0u32..).map(StateId).zip(specs).filter(|(_, s)| !s.rewritten);
        for seq in batch.sequences.iter().filter(|s| s.n_rows > 0 && s.state.from != Some(s.state.to)) {
            for (id, spec) in in_place() {
                let at = book.slots.offset(id);
                // SAFETY: no step runs while the memory is borrowed mutably; the two slots differ.
                let to = unsafe { self.slots[seq.state.to as usize].slice_mut::<f32>(at, spec.elements) };
                match seq.state.from {
                    // SAFETY: as above.
                    Some(from) => to.copy_from_slice(unsafe { self.slots[from as usize].slice(at, spec.elements) }),
                    None => to.fill(0.0),
                }
            }
        }
        Ok(())
    }

    /// The state `id` of `elements` elements in a step that reads and writes the slots `step`.
    pub fn rows(&self, book: &PageBook, id: StateId, elements: usize, step: StateStep) -> StateRows {
        let at = book.slots.offset(id);
        let place = |slot: u32| self.slots[slot as usize].element::<f32>(at, elements);
        StateRows { from: step.from.map_or(std::ptr::null(), |s| place(s).cast_const()), to: place(step.to) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{KvType, Outputs, SequenceKv, SequenceStep};

    #[test]
    fn states_begin_as_zeroes_and_are_copied_for_a_fork() {
        let specs = [StateSpec { elements: 5, rewritten: true }, StateSpec { elements: 3, rewritten: false }];
        let mut book = PageBook::new(&[], KvType::F32, 1000).with_states(&specs, 1000);
        let (mut memory, mut batch) = (StateMemory::default(), Batch::default());
        let mut step = |book: &mut PageBook, memory: &mut StateMemory, kv: &mut SequenceKv| {
            let mut steps = [SequenceStep::new(kv, &[1, 2], Outputs::None)];
            batch.admit(book, &mut steps, 10, 10, &[]).unwrap();
            memory.prepare(book, &specs, &batch).unwrap();
            memory.rows(book, StateId(1), 3, batch.sequences[0].state)
        };
        let mut a = SequenceKv::default();
        let rows = step(&mut book, &mut memory, &mut a);
        assert!(rows.from.is_null());
        // SAFETY: three elements, and no step runs.
        let state = unsafe { std::slice::from_raw_parts_mut(rows.to, 3) };
        assert_eq!(state, [0.0; 3]);
        state.copy_from_slice(&[1.0, 2.0, 3.0]);
        let mut b = book.fork(&a).unwrap();
        let rows = step(&mut book, &mut memory, &mut b);
        assert_ne!(rows.to.cast_const(), rows.from);
        // SAFETY: as above.
        let copy = unsafe { std::slice::from_raw_parts_mut(rows.to, 3) };
        assert_eq!(copy, [1.0, 2.0, 3.0]);
        copy.fill(9.0);
        // The other is alone with its state now, and finds it as it was.
        book.drop_passed(&mut b, 0);
        let rows = step(&mut book, &mut memory, &mut a);
        assert_eq!(rows.to.cast_const(), rows.from);
        // SAFETY: as above.
        assert_eq!(unsafe { std::slice::from_raw_parts(rows.from, 3) }, [1.0, 2.0, 3.0]);
        // A slot that was used before is zeroed for a new sequence.
        drop(a);
        drop(b);
        let rows = step(&mut book, &mut memory, &mut SequenceKv::default());
        // SAFETY: as above.
        assert_eq!(unsafe { std::slice::from_raw_parts(rows.to, 3) }, [0.0; 3]);
    }
}
