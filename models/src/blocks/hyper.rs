//! Hyper-connections (Zhu et al. 2024) in DeepSeek V4's form: a residual of several streams. Every block reads one
//! mixture of them. Then the streams mix, and each gets its share of the block's result.

use handmill_runtime::graph::{GraphBuilder, HyperOp, NormKind, NormOp, Op, StreamOp, ValueId, WeightId};

use super::Loader;
use crate::Error;

/// The RMS norm without a scale over groups of `group` elements.
pub fn plain_norm(group: usize, eps: f32) -> NormOp {
    NormOp { kind: NormKind::Rms, weight: None, weight_offset: 0.0, bias: None, eps, group }
}

/// The streams of a model.
#[derive(Clone, Debug)]
pub struct HyperConnections {
    /// Number of streams.
    pub streams: usize,
    /// Iterations that make the mixing matrix doubly stochastic.
    pub iterations: usize,
    /// Added to coefficients and sums.
    pub eps: f32,
    /// The norm over all streams, of whose result the coefficients are made.
    pub norm: NormOp,
}

/// The coefficients by which streams mix and receive a block's result.
#[derive(Clone, Copy, Debug)]
pub struct Gets {
    /// Each stream's share of the block's result.
    pub write: ValueId,
    /// For each stream, its share of every stream.
    pub mix: ValueId,
}

impl HyperConnections {
    /// Elements of a stream.
    fn width(&self) -> usize {
        self.norm.group / self.streams
    }

    /// `streams` copies of `x`.
    pub fn widen(&self, b: &mut GraphBuilder, x: ValueId) -> Result<ValueId, Error> {
        let mut h = x;
        for i in 1..self.streams {
            h = b.join("widen", (h, i * self.width()), (x, self.width()))?;
        }
        Ok(h)
    }

    /// Coefficients from the streams `h`; `weight` gives the weights `fn`, `scale` and `base`, of these shapes.
    fn coefficients(
        &self,
        b: &mut GraphBuilder,
        h: ValueId,
        out: usize,
        mut weight: impl FnMut(&mut GraphBuilder, &str, &[usize]) -> Result<WeightId, Error>,
    ) -> Result<ValueId, Error> {
        let all = b.norm("hc_norm", h, self.norm.clone())?;
        let project = weight(b, "fn", &[out, self.norm.group])?;
        let projections = b.linear("hc_fn", all, project, None)?;
        let parts = if out == self.streams { 1 } else { 3 };
        let scale = weight(b, "scale", &[parts])?;
        let base = weight(b, "base", &[out])?;
        let (streams, iterations, eps) = (self.streams, self.iterations, self.eps);
        let op = HyperOp { streams, iterations, eps, scale, base };
        Ok(b.op("hc_coefficients", Op::Hyper(op), &[projections])?)
    }

    /// The input of block `part` (`attn`, `ffn`) of layer `layer`, out of the streams `h`.
    ///
    /// # Errors
    /// Missing tensors, and shapes that do not fit.
    pub fn read(
        &self,
        b: &mut GraphBuilder,
        l: &Loader<'_>,
        layer: usize,
        h: ValueId,
        part: &str,
    ) -> Result<(ValueId, Gets), Error> {
        let n = self.streams;
        let period = n * (n + 2);
        let all = self.coefficients(b, h, period, |b, what, shape| {
            let name = format!("hc_{part}_{what}");
            l.layer(b, layer, &format!("{name}.weight"), &name, shape)
        })?;
        let read = b.columns("hc_read", all, [period, 0, n])?;
        let write = b.columns("hc_write", all, [period, n, n])?;
        let mix = b.columns("hc_mix", all, [period, 2 * n, n * n])?;
        let x = b.streams("hc_in", h, read, StreamOp::Mix { inputs: n, offset: 0.0 })?;
        Ok((x, Gets { write, mix }))
    }

    /// The streams `h` mixed, and each with its share of `y`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn write(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        h: ValueId,
        y: ValueId,
        gets: Gets,
    ) -> Result<ValueId, Error> {
        let mixture = |inputs| StreamOp::Mix { inputs, offset: 0.0 };
        let h = b.streams(&format!("{name}_mixed"), h, gets.mix, mixture(self.streams))?;
        let y = b.streams(&format!("{name}_spread"), y, gets.write, mixture(1))?;
        Ok(b.add(&format!("{name}_residual"), h, y)?)
    }

    /// One mixture of the streams, after the last layer.
    ///
    /// # Errors
    /// Missing tensors, and shapes that do not fit.
    pub fn narrow(&self, b: &mut GraphBuilder, l: &Loader<'_>, h: ValueId) -> Result<ValueId, Error> {
        let read = self.coefficients(b, h, self.streams, |b, what, shape| {
            l.global(b, &format!("output_hc_{what}.weight"), &format!("hc_head_{what}"), shape)
        })?;
        Ok(b.streams("hc_head", h, read, StreamOp::Mix { inputs: self.streams, offset: 0.0 })?)
    }
}
