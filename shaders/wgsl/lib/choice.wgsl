// The records of the tokens that a step chooses, behind word 14 of the batch: CHOICE words each.
//
//   0 the output row with its logits
//   1 temperature   2 top_p   3 min_p (f32)   4 top_k (0: all)   5, 6 seed
//   7 edits_at   in the batch: 8 changes of logits, three words each: token, times that it was seen, bias (f32); then 9
//     places in `tokens` of tokens before this one that steps under way have chosen, a word each
//   8 edits   9 places
//  10 repetition   11 presence   12 frequency penalty (f32)
//  13 the number of likeliest tokens to list with their log-probabilities, or NONE where no log-probability is wanted
//  14 originals_at   where in `originals` the logits go that are changed

const CHOICE = 16u;

fn choice_at(i: u32) -> u32 {
    return batch[14] + CHOICE * i;
}

fn choice_f32(record: u32, word: u32) -> f32 {
    return bitcast<f32>(batch[record + word]);
}
