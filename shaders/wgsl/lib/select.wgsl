// Scores of all keys that a row might choose.
//
// scores: array<u32>, [row][as many as the step's longest sequence has, rounded up to 64], as bits that order as the
// scores do: not a number above everything, or below it where its sign is set.

const SIGN = 0x80000000u;

fn scores_at(row: u32, every: u32) -> u32 {
    return row * ((batch[13] / every + 63u) / 64u * 64u);
}

fn ordered(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    // A negative zero is a zero.
    if (bits & SIGN) == 0u || bits == SIGN {
        return bits | SIGN;
    }
    return ~bits;
}
