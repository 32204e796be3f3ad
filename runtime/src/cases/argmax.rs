//! Cases of the choice of the largest logit.

use super::{LENGTHS, random};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// Rows of the same length, and the place of each one's largest logit: of equals the first, never NaN, none where there is
/// nothing else.
#[derive(Clone, Debug)]
pub struct ArgmaxCase {
    /// Elements of a row.
    pub n: usize,
    /// Logits, and where the largest is.
    pub rows: Vec<(Vec<f32>, Option<usize>)>,
    /// Whether benches time it.
    pub speed: bool,
}

/// All choices: rows of some lengths, then short ones that are special.
pub fn argmaxes() -> Vec<ArgmaxCase> {
    // The last is Qwen2.5's vocabulary.
    let lengths = LENGTHS.into_iter().chain([5, 1024, 3000, 5000, 151_936]);
    let mut cases: Vec<ArgmaxCase> = lengths.map(|n| ArgmaxCase { n, rows: rows(n), speed: n > 100_000 }).collect();
    let special: [(&[f32], Option<usize>); 7] = [
        (&[], None),
        (&[NAN, NAN], None),
        (&[NAN, -INF, NAN], Some(1)),
        (&[-3.0, -2.0, -2.0], Some(1)),
        (&[NAN, -1.0, NAN], Some(1)),
        (&[0.0, INF, NAN, INF], Some(1)),
        (&[0.0, -0.0], Some(0)),
    ];
    cases.extend(special.map(|(x, best)| ArgmaxCase { n: x.len(), rows: vec![(x.to_vec(), best)], speed: false }));
    cases
}

/// The largest anywhere, alone and among equals and NaN; equal, infinite and no numbers.
fn rows(n: usize) -> Vec<(Vec<f32>, Option<usize>)> {
    let mut rows = Vec::new();
    for at in [0, n / 3, n / 2, n - 1] {
        let mut alone = random(at as u64 + 3, n);
        alone[n / 2] = NAN;
        alone[n - 1] = NAN;
        alone[at] = 2.0;
        rows.push((alone.clone(), Some(at)));
        alone[n - 1] = 2.0;
        rows.push((alone, Some(at)));
    }
    let mut infinite = random(1, n);
    infinite[n / 3] = INF;
    rows.push((infinite, Some(n / 3)));
    rows.extend([(vec![-1.0; n], Some(0)), (vec![-INF; n], Some(0)), (vec![NAN; n], None)]);
    rows
}
