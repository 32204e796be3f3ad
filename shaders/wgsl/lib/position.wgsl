// A factor that grows with a token row's position: 1 + beta ln(1 + floor((position + offset) / length)).

#import batch

fn position_factor(beta: f32, length: u32, offset: u32, row: u32) -> f32 {
    let position = batch[batch[3] + row];
    return 1.0 + beta * log(1.0 + f32((position + offset) / length));
}
