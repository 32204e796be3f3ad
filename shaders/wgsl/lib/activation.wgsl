// Functions that no driver computes the same way, kept within the range of exp.

fn sigmoid(x: E) -> E {
    return 1.0 / (1.0 + exp(min(-x, E(80.0))));
}

// tanh(x) = 1 - 2 sigmoid(-2x), but exact near zero, where that difference would lose all digits. Drivers' own tanh
// overflows to NaN beyond about 44.
fn bounded_tanh(x: E) -> E {
    return tanh(clamp(x, E(-15.0), E(15.0)));
}

// x · ½ · (1 + tanh(√(2/π) · (x + 0.044715 x³))), with ½ · (1 + tanh(y)) = sigmoid(2y).
fn gelu_tanh(x: E) -> E {
    return x * sigmoid(1.5957691 * (x + 0.044715 * x * x * x));
}
