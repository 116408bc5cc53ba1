//! Every accelerator that this build can drive, against the CPU. `just gpu-check` runs it on a machine with one; CI on a
//! software adapter. Without a device each test says so and passes, unless SHEAF_REQUIRE_DEVICE is set.
#![cfg(any(feature = "cuda", feature = "vulkan", feature = "wgpu"))]

#[allow(dead_code, reason = "shared with the other test binary")]
mod fixture;
#[path = "gpu/models.rs"]
mod models;
#[path = "gpu/operations.rs"]
mod operations;
#[path = "gpu/training.rs"]
mod training;

use std::sync::OnceLock;

use burn::tensor::{Device, Tensor};
use sheaf_models::{Compute, device::survey};

/// The accelerators of this machine, opened once.
fn accelerators() -> &'static [Compute] {
    static OPENED: OnceLock<Vec<Compute>> = OnceLock::new();
    OPENED.get_or_init(|| {
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        for report in survey().into_iter().skip(1) {
            match (report.compute, report.reason) {
                (Some(compute), _) => found.push(compute),
                (None, reason) => reasons.push(format!("{}: {}", report.device, reason.unwrap_or_default())),
            }
        }
        let required = std::env::var_os("SHEAF_REQUIRE_DEVICE").is_some();
        assert!(!required || !found.is_empty(), "SHEAF_REQUIRE_DEVICE is set, but: {}", reasons.join("; "));
        found
    })
}

/// Computes the same on the CPU and on every accelerator; each value may differ by `tolerance`, relative to the largest.
fn parity(what: &str, tolerance: f32, compute: impl Fn(&Device) -> Vec<f32>) {
    let accelerators = accelerators();
    if accelerators.is_empty() {
        println!("{what}: skipped, no accelerator can be used here; `sheaf-agent devices` says why");
        return;
    }
    let expected = compute(&Compute::cpu().device);
    assert!(expected.iter().all(|value| value.is_finite()), "{what}: not finite on the cpu");
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    for accelerator in accelerators {
        let found = compute(&accelerator.device);
        assert_eq!(found.len(), expected.len(), "{what} on {}", accelerator.name);
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max) / largest;
        assert!(off <= tolerance, "{what} on {}: off by {off:e} of the largest value", accelerator.name);
        println!("{what} on {}: within {off:.1e} of the cpu", accelerator.name);
    }
}

/// Values in [-1, 1] that repeat nowhere soon, the same on every device.
fn ramp<const D: usize>(shape: [usize; D], step: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| ((i * step) % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::<1>::from_floats(values.as_slice(), device).reshape(shape)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
