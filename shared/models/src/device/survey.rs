//! What this machine can compute on, and why not on the rest.

use serde::Serialize;

use super::{
    Compute, DeviceChoice, Speed,
    family::{self, Family},
    probe,
};

/// One device, or a family that has none.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceReport {
    /// As one writes it into a configuration: `cuda:0`; the family's name where it has no device.
    pub device: String,
    /// What it is: `2 threads, AVX2 (256 bits)`, `NVIDIA H100 PCIe`.
    pub what: String,
    /// Why it cannot be used, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How fast it is, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// The opened device, where it can be used.
    #[serde(skip)]
    pub compute: Option<Compute>,
}

/// Opens every device there is and says how that went: the CPU first, then the families in the order of `auto`.
pub fn survey() -> Vec<DeviceReport> {
    let mut reports = vec![DeviceReport {
        device: DeviceChoice::Cpu.to_string(),
        what: cpu(),
        reason: None,
        speed: None,
        compute: Some(Compute::cpu()),
    }];
    for family in Family::ALL {
        match family.devices() {
            Ok(devices) => {
                reports.extend(devices.into_iter().map(|(choice, device)| {
                    let opened =
                        family::refuse_crash(&device).and_then(|()| probe::open(choice, device.clone()));
                    report(choice, &device, opened)
                }));
            }
            Err(reason) => reports.push(DeviceReport {
                device: family.to_string(),
                what: String::new(),
                reason: Some(reason),
                speed: None,
                compute: None,
            }),
        }
    }
    reports
}

fn report(
    choice: DeviceChoice,
    device: &burn::tensor::Device,
    opened: Result<Compute, String>,
) -> DeviceReport {
    let software = if family::is_software(device) { ", a software adapter: slower than the cpu" } else { "" };
    let (what, compute, reason) = match opened {
        Ok(compute) => {
            let prefix = format!("{choice} (");
            let name = compute.name.strip_prefix(&prefix).and_then(|name| name.strip_suffix(')'));
            (format!("{}{software}", name.unwrap_or("an adapter without a name")), Some(compute), None)
        }
        Err(reason) => (String::new(), None, Some(reason)),
    };
    DeviceReport { device: choice.to_string(), what, reason, speed: None, compute }
}

/// Threads, and the widest vectors that the CPU has.
fn cpu() -> String {
    format!("{} threads, {}", rayon::current_num_threads(), vectors())
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    if std::is_x86_feature_detected!("avx512f") {
        "AVX-512 (512 bits)"
    } else if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        "AVX2 (256 bits)"
    } else {
        "SSE2 (128 bits): slow, for want of AVX2"
    }
}

#[cfg(target_arch = "aarch64")]
fn vectors() -> &'static str {
    "NEON (128 bits)"
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn vectors() -> &'static str {
    "vectors as the compiler makes them"
}
