//! The families of accelerators, what each build has of them, and what a machine has.

use std::fmt;

use burn::tensor::Device;

use super::{DeviceChoice, probe};

/// One way to an accelerator; a cargo feature of the same name builds it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Cuda,
    Vulkan,
    Wgpu,
}

/// A family's devices, in the driver's order.
pub(super) type Devices = Vec<(DeviceChoice, Device)>;

impl Family {
    /// Best first: what `auto` goes through.
    pub(super) const ALL: [Self; 3] = [Self::Cuda, Self::Vulkan, Self::Wgpu];

    pub(super) fn built_in() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|family| family.is_built_in())
    }

    pub(super) const fn is_built_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
        }
    }

    const fn choice(self, index: usize) -> DeviceChoice {
        match self {
            Self::Cuda => DeviceChoice::Cuda(index),
            Self::Vulkan => DeviceChoice::Vulkan(index),
            Self::Wgpu => DeviceChoice::Wgpu(index),
        }
    }

    const fn absence(self) -> &'static str {
        match self {
            Self::Cuda => "no NVIDIA driver (libcuda) on this machine, or it sees no card",
            Self::Vulkan => "no Vulkan driver on this machine, or it has no adapter",
            Self::Wgpu => "no graphics driver on this machine, or it has no adapter",
        }
    }

    /// Everything of this family that the drivers name, software adapters too; at least one.
    pub(super) fn devices(self) -> Result<Devices, String> {
        if !self.is_built_in() {
            return Err(format!("not in this build; build with `--features {self}`"));
        }
        let found = probe::aside(move || Ok(self.enumerate()))?;
        if found.is_empty() {
            return Err(self.absence().to_owned());
        }
        Ok(found.into_iter().enumerate().map(|(index, device)| (self.choice(index), device)).collect())
    }

    /// What `auto` may take of this family; at least one.
    pub(super) fn hardware(self) -> Result<Devices, String> {
        let mut devices = self.devices()?;
        devices.retain(|(_, device)| !is_software(device));
        if devices.is_empty() {
            return Err("only a software adapter, which is slower than the cpu".to_owned());
        }
        Ok(devices)
    }

    /// One device by its number.
    pub(super) fn device(self, index: usize) -> Result<Device, String> {
        let mut devices = self.devices()?;
        if index >= devices.len() {
            let names: Vec<_> = devices.iter().map(|(choice, _)| choice.to_string()).collect();
            return Err(format!("this machine has only {}", names.join(", ")));
        }
        let device = devices.swap_remove(index).1;
        refuse_crash(&device)?;
        Ok(device)
    }

    fn enumerate(self) -> Vec<Device> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
            #[allow(unreachable_patterns, reason = "with every feature there is no other family")]
            _ => Vec::new(),
        }
    }
}

/// The SPIR-V kernels that the `vulkan` feature brings crash the process inside a software adapter, which no one can
/// catch; the WGSL kernels of `wgpu` alone run there.
pub(super) fn refuse_crash(device: &Device) -> Result<(), String> {
    if cfg!(feature = "vulkan") && is_software(device) {
        return Err(
            "a software adapter, on which the kernels of the `vulkan` feature crash; use cpu, or build with \
             `--features wgpu` alone"
                .to_owned(),
        );
    }
    Ok(())
}

/// True for an adapter that computes on the CPU, such as lavapipe.
pub(super) fn is_software(device: &Device) -> bool {
    #[cfg(any(feature = "vulkan", feature = "wgpu"))]
    if *device == Device::wgpu(burn::tensor::DeviceKind::Cpu) {
        return true;
    }
    #[cfg(feature = "vulkan")]
    if *device == Device::vulkan(burn::tensor::DeviceKind::Cpu) {
        return true;
    }
    let _ = device;
    false
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
