//! How fast a device is, roughly: two figures that take about a second.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{Compute, probe};
use crate::ModelError;

/// Side of the square f32 matrices that are multiplied.
const SIDE: usize = 1024;
/// Values that are read and written, f32: 64 MiB, more than any cache.
const VALUES: usize = 1 << 24;
/// Each figure is the best of what fits into this time, at least two.
const TIME: Duration = Duration::from_millis(400);

/// What a device reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Thousands of millions of f32 additions and multiplications a second, in a product of two [1024, 1024].
    pub gflops: f64,
    /// Thousands of millions of bytes read and written a second, in an addition over 64 MiB.
    pub gbytes: f64,
}

impl Speed {
    /// Measures a device, alone on the machine if the figures are to mean something.
    ///
    /// # Errors
    /// [`ModelError::Device`] where the device fails under the load, for want of memory say.
    pub fn measure(compute: &Compute) -> Result<Self, ModelError> {
        let device = compute.device.clone();
        probe::aside(move || {
            let ramp: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 17) as f32 / 17.0).collect();
            let matrix = Tensor::<1>::from_floats(ramp.as_slice(), &device).reshape([SIDE, SIDE]);
            let product = best(&device, || drop(matrix.clone().matmul(matrix.clone())))?;
            let long = Tensor::<1>::ones([VALUES], &device);
            let addition = best(&device, || drop(long.clone().add_scalar(1.0)))?;
            let giga = |amount: f64, time: Duration| amount / time.as_secs_f64() / 1e9;
            Ok(Self {
                gflops: giga(2.0 * (SIDE as f64).powi(3), product),
                gbytes: giga(2.0 * 4.0 * VALUES as f64, addition),
            })
        })
        .map_err(|reason| ModelError::Device { device: compute.name.clone(), reason })
    }
}

/// The shortest time of `work`, the first run aside, in which kernels are compiled and memory is taken.
fn best(device: &Device, work: impl Fn()) -> Result<Duration, String> {
    let timed = || {
        let began = Instant::now();
        work();
        device.sync().map_err(|e| e.to_string())?;
        Ok::<_, String>(began.elapsed())
    };
    timed()?;
    let (began, mut best) = (Instant::now(), timed()?);
    while began.elapsed() < TIME {
        best = best.min(timed()?);
    }
    Ok(best)
}
