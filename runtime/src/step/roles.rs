//! The roles of a step's rows.
//!
//! A row was either written by somebody (a prompt) or chosen by the model. Kernels follow that role and never the number of
//! rows, so that a row's result depends neither on how its prompt is cut nor on what else is in the step. A GPU that runs the
//! whole plan runs a step with rows of both roles in two parts, one behind the other; where it shares the plan with the
//! CPU, such a step runs as a prompt.

use super::{Batch, ChoiceRow, SequenceKv, SequenceRows};

/// Who made the rows of a sequence's step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// The rows of a prompt, or of a part of it.
    #[default]
    Prompt,
    /// One token that was chosen.
    Generated,
}

impl Role {
    /// The role of the last `rows` rows of `kv`. One row alone is a token that was chosen, unless a longer prompt was
    /// announced, whose last part it then is.
    pub fn of(kv: &SequenceKv, rows: usize) -> Self {
        if rows == 1 && kv.len() > kv.expected { Role::Generated } else { Role::Prompt }
    }
}

impl Batch {
    /// The role as which the step's rows run.
    pub fn role(&self) -> Role {
        let generated = self.sequences.iter().all(|s| s.role == Role::Generated);
        if generated { Role::Generated } else { Role::Prompt }
    }

    /// The sequences by their role, as the step runs them: one list where all have the same.
    pub fn by_role(&self) -> Vec<Vec<usize>> {
        let of = |role| (0..self.sequences.len()).filter(|i| self.sequences[*i].role == role).collect::<Vec<_>>();
        let both = [of(Role::Generated), of(Role::Prompt)];
        if both.iter().any(Vec::is_empty) { vec![(0..self.sequences.len()).collect()] } else { both.into() }
    }

    /// The rows of the sequences `of`, as a step of their own. Pages are copied before the `first` part.
    pub fn part(&self, of: &[usize], first: bool) -> Self {
        let mut part = Self::default();
        if first {
            part.copies.clone_from(&self.copies);
        }
        for &s in of {
            let whole = self.sequences[s];
            let rows = whole.first_row..whole.first_row + whole.n_rows;
            let outputs = whole.first_output..whole.first_output + whole.n_outputs;
            let (first_row, first_output) = (part.tokens.len(), part.outputs.len());
            // Numbers of rows and outputs, counted from the sequence's first.
            let moved = |list: &[u32], range: &std::ops::Range<usize>, to: usize| -> Vec<u32> {
                let own = list.iter().map(|i| *i as usize).filter(|i| range.contains(i));
                own.map(|i| (i - range.start + to) as u32).collect()
            };
            part.tokens.extend_from_slice(&self.tokens[rows.clone()]);
            part.positions.extend_from_slice(&self.positions[rows.clone()]);
            part.outputs.extend(moved(&self.outputs[outputs.clone()], &rows, first_row));
            part.wanted.extend(moved(&self.wanted, &outputs, first_output));
            part.hidden.extend(moved(&self.hidden, &outputs, first_output));
            let choices = self.choices.iter().filter(|c| outputs.contains(&c.output));
            part.choices.extend(choices.map(|c| ChoiceRow { output: c.output - outputs.start + first_output, ..*c }));
            part.sequences.push(SequenceRows { first_row, first_output, first_key: part.cached, ..whole });
            part.cached += whole.cached;
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::CacheSpec,
        sample::{Choice, SamplingParams},
        step::{KvType, Outputs, PageBook, SequenceStep},
    };

    #[test]
    fn parts_have_the_rows_of_their_sequences() {
        let mut book = PageBook::new(&[CacheSpec::new(1, 4, 4)], KvType::F32, 1000);
        let mut batch = Batch::default();
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| SequenceKv::default());
        let mut steps = [
            SequenceStep::new(&mut a, &[1, 2, 3], Outputs::None),
            SequenceStep::new(&mut b, &[4], Outputs::None),
            SequenceStep::new(&mut c, &[5], Outputs::None),
        ];
        batch.admit(&mut book, &mut steps, 100, 10, &[]).unwrap();
        c.expect(2);
        let greedy = SamplingParams::greedy();
        let choice = Choice::new(&greedy);
        let mut steps = [
            SequenceStep::new(&mut a, &[6, 7], Outputs::All).choosing(choice),
            SequenceStep::new(&mut b, &[8], Outputs::None).choosing(choice),
            SequenceStep::new(&mut c, &[9], Outputs::Last),
            SequenceStep::new(&mut d, &[1], Outputs::Last).with_hidden(Outputs::All),
        ];
        batch.admit(&mut book, &mut steps, 100, 10, &[]).unwrap();
        // The third is the end of its prompt, of however many rows.
        let roles = batch.by_role();
        assert_eq!(roles, [vec![1, 3], vec![0, 2]]);
        let generated = batch.part(&roles[0], true);
        assert_eq!((&generated.tokens[..], &generated.positions[..]), (&[8, 1][..], &[1, 0][..]));
        assert_eq!(
            (&generated.outputs[..], &generated.wanted[..], &generated.hidden[..]),
            (&[0, 1][..], &[1][..], &[1][..])
        );
        assert_eq!(generated.choices, [ChoiceRow { step: 1, output: 0, position: 1 }]);
        let prompts = batch.part(&roles[1], false);
        assert_eq!((&prompts.tokens[..], &prompts.positions[..]), (&[6, 7, 9][..], &[3, 4, 1][..]));
        assert_eq!((&prompts.outputs[..], &prompts.wanted[..]), (&[0, 1, 2][..], &[0, 1, 2][..]));
        assert_eq!(prompts.choices, [ChoiceRow { step: 0, output: 1, position: 4 }]);
        let steps: Vec<usize> = prompts.sequences.iter().map(|s| s.step).collect();
        assert_eq!((steps, prompts.cached, prompts.sequences[1].first_key), (vec![0, 2], 7, 5));
        // All of one role are one part.
        let mut steps =
            [SequenceStep::new(&mut b, &[8], Outputs::Last), SequenceStep::new(&mut d, &[8], Outputs::Last)];
        batch.admit(&mut book, &mut steps, 100, 10, &[]).unwrap();
        assert_eq!(batch.by_role(), [[0, 1]]);
    }
}
