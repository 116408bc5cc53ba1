//! Asking a driver something that it may answer with a panic, or not at all.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Once, mpsc},
    thread,
    time::Duration,
};

use burn::tensor::{Device, Tensor};

use super::{Compute, DeviceChoice};

/// The thread on which drivers are asked; its panics become reasons and are not printed.
const THREAD: &str = "device-probe";
/// Compiling the first kernels takes seconds; a driver that hangs takes for ever.
const PATIENCE: Duration = Duration::from_mins(2);

/// Opens a device and compares a small product on it with what it must be.
pub(super) fn open(choice: DeviceChoice, device: Device) -> Result<Compute, String> {
    aside(move || {
        let name = identity(&device).map_or_else(|| choice.to_string(), |name| format!("{choice} ({name})"));
        check(&device)?;
        Ok(Compute { device, name })
    })
}

/// X X' summed, for X = 1..=64 as [8, 8]: whole numbers that every format of a product holds exactly.
fn check(device: &Device) -> Result<(), String> {
    const SIDE: i32 = 8;
    let expected: i32 = (0..SIDE)
        .map(|column| (0..SIDE).map(|row| SIDE * row + column + 1).sum::<i32>())
        .map(|sum| sum * sum)
        .sum();
    let values: Vec<f32> = (1..=SIDE * SIDE).map(|value| value as f32).collect();
    let x = Tensor::<1>::from_floats(values.as_slice(), device).reshape([SIDE, SIDE]);
    let sum = x.clone().matmul(x.transpose()).sum();
    let found = sum.try_into_data().map_err(|e| format!("did not compute: {e}"))?;
    let found = found.iter::<f32>().next().unwrap_or(f32::NAN);
    if (found - expected as f32).abs() < 0.5 {
        Ok(())
    } else {
        Err(format!("computes wrong: a sum that is {expected} came out as {found}"))
    }
}

#[cfg(any(feature = "cuda", feature = "vulkan", feature = "wgpu"))]
fn identity(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(any(feature = "cuda", feature = "vulkan", feature = "wgpu")))]
fn identity(_device: &Device) -> Option<String> {
    None
}

/// Runs `ask` on a thread of its own. A panic there is a reason, printed nowhere; silence is one after two minutes.
pub(super) fn aside<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(THREAD) {
                before(info);
            }
        }));
    });
    let (sender, answer) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || {
            let result = panic::catch_unwind(AssertUnwindSafe(ask));
            drop(sender.send(result));
        })
        .map_err(|e| format!("no thread to ask on: {e}"))?;
    match answer.recv_timeout(PATIENCE) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(format!("the driver failed: {}", first_line(panic.as_ref()))),
        Err(_) => Err(format!("the driver did not answer within {} s", PATIENCE.as_secs())),
    }
}

fn first_line(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a message");
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a message").trim().to_owned()
}
