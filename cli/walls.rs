//! The most that the device can do: `bench` compares rates with it.

use crate::error::CliError;
use handmill_models::Engine;
use handmill_runtime::{
    cpu::arch::Isa,
    profile::{ReadBandwidth, measure_fma_peak},
};
use std::time::Duration;

/// Samples, to be taken again and again: machines drift.
pub struct Walls {
    meter: Meter,
    bandwidth: Vec<f64>,
    peak: Vec<f64>,
}

/// The part of the machine that is measured.
pub enum Meter {
    Cpu {
        threads: usize,
        isa: Isa,
        buffer: ReadBandwidth,
    },
    #[cfg(feature = "gpu")]
    Gpu,
}

/// Medians of the samples.
pub struct Medians {
    /// Bytes a second that the device reads.
    pub bandwidth: f64,
    /// Operations a second that the CPU's FMA units do; none on a GPU.
    pub fma_peak: Option<f64>,
}

impl Meter {
    /// Walls of the device that `engine` runs on; none where a CPU and a GPU share the work.
    pub fn new(engine: &mut Engine, threads: usize, isa: Isa) -> Result<Option<Self>, CliError> {
        #[cfg(feature = "gpu")]
        if engine.gpu().is_some() {
            return Ok(Some(Meter::Gpu));
        }
        if engine.gpu_stats().is_some() {
            return Ok(None);
        }
        let buffer = ReadBandwidth::new(threads, isa).map_err(unmeasured)?;
        Ok(Some(Meter::Cpu { threads, isa, buffer }))
    }

    /// Bytes a second that the device reads; none where `engine` has gone over to another.
    pub fn bandwidth(&mut self, engine: &mut Engine) -> Result<Option<f64>, CliError> {
        match self {
            Meter::Cpu { buffer, .. } => {
                let _ = engine;
                Ok(Some(buffer.sample()))
            }
            #[cfg(feature = "gpu")]
            Meter::Gpu => {
                let gpu = engine.gpu();
                gpu.map(|gpu| gpu.gpu().read_bandwidth()).transpose().map_err(unmeasured)
            }
        }
    }
}

impl Walls {
    /// The meter of the device that `engine` runs on; none where a CPU and a GPU share the work.
    pub fn new(engine: &mut Engine, threads: usize, isa: Isa) -> Result<Option<Self>, CliError> {
        let none_yet = |meter| Self { meter, bandwidth: Vec::new(), peak: Vec::new() };
        Ok(Meter::new(engine, threads, isa)?.map(none_yet))
    }

    /// Measures once.
    pub fn sample(&mut self, engine: &mut Engine) -> Result<(), CliError> {
        self.bandwidth.extend(self.meter.bandwidth(engine)?);
        if let Meter::Cpu { threads, isa, .. } = self.meter {
            self.peak.push(measure_fma_peak(threads, isa, Duration::from_millis(60)));
        }
        Ok(())
    }

    /// The medians of the samples.
    pub fn medians(mut self) -> Medians {
        let fma_peak = (!self.peak.is_empty()).then(|| median(&mut self.peak));
        Medians { bandwidth: median(&mut self.bandwidth), fma_peak }
    }
}

fn unmeasured(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CliError {
    CliError::because("the read bandwidth could not be measured (--no-walls leaves that out)", error)
}

/// Sorts the values; the middle one, or the mean of the middle two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
