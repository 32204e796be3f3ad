// The tokens of a step.
//
// tokens: the step's token rows, then for each of the steps that may be under way the tokens that it chooses. A row has a
// number, or, with its highest bit set, the place in this buffer where an earlier step has written its token. All ones are no
// token: an earlier step could choose none.

fn token_of(row: u32) -> u32 {
    var id = tokens[row];
    if id >= 0x80000000u && id != 0xffffffffu {
        id = tokens[id & 0x7fffffffu];
    }
    return id;
}
