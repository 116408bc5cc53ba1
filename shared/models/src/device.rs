//! What a model computes on, chosen at run time among what this build can drive and this machine has.
//!
//! ```text
//! DeviceChoice ── open ──► Compute      one cargo feature a family: cuda, vulkan, wgpu; the cpu is always there
//! ```
//!
//! A device counts only after a small product on it came out right. Drivers answer a missing card by panicking on the
//! thread that asks, so they are asked on a thread of their own, and `auto` goes on with the next device.

mod family;
mod probe;
mod speed;
mod survey;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use family::Family;

pub use speed::Speed;
pub use survey::{DeviceReport, survey};

/// What to compute on, as it is written in a configuration: `auto`, `cpu`, `cuda:0`, `vulkan:0`, `wgpu:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first that works of CUDA, Vulkan, wgpu; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA card, by its number.
    Cuda(usize),
    /// A Vulkan adapter, by its number.
    Vulkan(usize),
    /// An adapter of whatever graphics interface the system has, by its number.
    Wgpu(usize),
}

/// A device that works.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device of burn, without gradients; training asks for them with `device.clone().autodiff()`.
    pub device: Device,
    /// What people call it, the choice first: `cpu`, `cuda:0 (NVIDIA H100 PCIe)`.
    pub name: String,
}

/// What [`DeviceChoice::open`] found.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The device.
    pub compute: Compute,
    /// Why it is not the better one that `auto` looked for, for the log.
    pub note: Option<String>,
}

/// What [`DeviceChoice::look`] expects, before anything is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Never `Auto`.
    pub choice: DeviceChoice,
    /// Why it is not the better one that `auto` looked for, for the log.
    pub note: Option<String>,
}

impl Compute {
    /// The CPU, which always works.
    pub fn cpu() -> Self {
        Self { device: Device::flex(), name: "cpu".to_owned() }
    }
}

impl DeviceChoice {
    /// Opens the device and checks a small product on it. `auto` falls back and says why; a named device is that one
    /// or an error. The first call on an accelerator takes seconds: kernels are compiled.
    ///
    /// # Errors
    /// [`ModelError::Device`] where the named device is not in this build, not in this machine, or computes wrong.
    pub fn open(self) -> Result<Opened, ModelError> {
        let Some((family, index)) = self.named() else {
            return Ok(if self == Self::Auto { open_best() } else { Opened::cpu(None) });
        };
        let device = family.device(index).map_err(|reason| self.error(reason))?;
        let compute = probe::open(self, device).map_err(|reason| self.error(reason))?;
        Ok(Opened { compute, note: None })
    }

    /// What [`DeviceChoice::open`] would take, by asking the drivers what there is; nothing is opened.
    ///
    /// # Errors
    /// As [`DeviceChoice::open`], but for a device that is there and does not work.
    pub fn look(self) -> Result<Outlook, ModelError> {
        if let Some((family, index)) = self.named() {
            family.device(index).map_err(|reason| self.error(reason))?;
            return Ok(Outlook { choice: self, note: None });
        }
        let mut missing = Vec::new();
        if self == Self::Auto {
            for family in Family::built_in() {
                match family.hardware() {
                    Ok(devices) => {
                        if let Some((choice, _)) = devices.first() {
                            return Ok(Outlook { choice: *choice, note: None });
                        }
                    }
                    Err(reason) => missing.push(format!("{family}: {reason}")),
                }
            }
        }
        Ok(Outlook { choice: Self::Cpu, note: fallback(&missing) })
    }

    fn named(self) -> Option<(Family, usize)> {
        match self {
            Self::Auto | Self::Cpu => None,
            Self::Cuda(index) => Some((Family::Cuda, index)),
            Self::Vulkan(index) => Some((Family::Vulkan, index)),
            Self::Wgpu(index) => Some((Family::Wgpu, index)),
        }
    }

    fn error(self, reason: String) -> ModelError {
        ModelError::Device { device: self.to_string(), reason }
    }
}

impl Opened {
    fn cpu(note: Option<String>) -> Self {
        Self { compute: Compute::cpu(), note }
    }
}

/// The first accelerator that works, else the CPU.
fn open_best() -> Opened {
    let mut missing = Vec::new();
    for family in Family::built_in() {
        match family.hardware() {
            Err(reason) => missing.push(format!("{family}: {reason}")),
            Ok(devices) => {
                for (choice, device) in devices {
                    match probe::open(choice, device) {
                        Ok(compute) => return Opened { compute, note: fallback(&missing) },
                        Err(reason) => missing.push(format!("{choice}: {reason}")),
                    }
                }
            }
        }
    }
    Opened::cpu(fallback(&missing))
}

/// What to say of the devices that `auto` passed over; a build without accelerators has nothing to say.
fn fallback(missing: &[String]) -> Option<String> {
    (!missing.is_empty()).then(|| missing.join("; "))
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Vulkan(index) => write!(f, "vulkan:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let bad = || ModelError::Device {
            device: format!("\"{text}\""),
            reason: "is not a device; write auto, cpu, cuda:0, vulkan:0 or wgpu:0".to_owned(),
        };
        let (family, index) =
            text.split_once(':').map_or((text, None), |(family, index)| (family, Some(index)));
        // u16 is what the drivers count in.
        let index =
            index.map(|index| index.parse::<u16>().map(usize::from).map_err(|_| bad())).transpose()?;
        match (family, index) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            ("vulkan", index) => Ok(Self::Vulkan(index.unwrap_or(0))),
            ("wgpu", index) => Ok(Self::Wgpu(index.unwrap_or(0))),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}
