// tanh(x) = 1 - 2 sigmoid(-2x), but exact near zero, where that difference would lose all digits. Drivers' own tanh
// overflows to NaN beyond about 44.
fn bounded_tanh(x: E) -> E {
    return tanh(clamp(x, E(-15.0), E(15.0)));
}
