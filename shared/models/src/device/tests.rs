//! Names, fallback and refusals, in whatever build the tests are run.

use super::{family::Family, *};

#[test]
fn names_are_read_as_they_are_written() {
    for (text, choice) in [
        ("auto", DeviceChoice::Auto),
        ("cpu", DeviceChoice::Cpu),
        ("cuda:0", DeviceChoice::Cuda(0)),
        ("vulkan:1", DeviceChoice::Vulkan(1)),
        ("wgpu:12", DeviceChoice::Wgpu(12)),
    ] {
        assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
        assert_eq!(choice.to_string(), text);
        let json = serde_json::to_string(&choice).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
    }
    assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
}

#[test]
fn other_names_are_refused_with_the_ones_there_are() {
    for text in
        ["", "gpu", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:one", "CUDA:0", "cuda:0:0", "cuda:99999999"]
    {
        let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("vulkan:0"), "{error}");
    }
}

#[test]
fn auto_always_opens_something_and_says_what_it_missed() {
    let opened = DeviceChoice::Auto.open().unwrap();
    let outlook = DeviceChoice::Auto.look().unwrap();
    if opened.compute.name == "cpu" {
        assert_eq!(opened.note.is_some(), Family::built_in().next().is_some(), "{:?}", opened.note);
        assert_eq!(outlook.note, opened.note);
    }
    assert!(opened.compute.name.starts_with(&outlook.choice.to_string()), "{outlook:?}");
    assert_eq!(DeviceChoice::Cpu.open().unwrap().compute.name, "cpu");
}

#[test]
fn a_family_that_is_not_built_in_is_named_with_its_feature() {
    for family in Family::ALL.into_iter().filter(|family| !family.is_built_in()) {
        let choice: DeviceChoice = format!("{family}:0").parse().unwrap();
        for error in [choice.open().unwrap_err(), choice.look().unwrap_err()] {
            let expected = format!("device {family}:0: not in this build; build with `--features {family}`");
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn a_device_that_the_machine_lacks_is_an_error() {
    for family in Family::built_in() {
        let choice: DeviceChoice = format!("{family}:999").parse().unwrap();
        let error = choice.open().unwrap_err().to_string();
        assert!(error.contains("on this machine") || error.contains("this machine has only"), "{error}");
    }
}

#[test]
fn a_panic_of_a_driver_is_a_reason() {
    let reason = probe::aside(|| -> Result<(), String> { panic!("libcuda.so is broken\nand more") });
    assert_eq!(reason.unwrap_err(), "the driver failed: libcuda.so is broken");
    assert_eq!(probe::aside(|| Ok(7)).unwrap(), 7);
}

#[test]
fn the_survey_has_the_cpu_and_a_reason_for_all_that_cannot_be_used() {
    let reports = survey();
    assert_eq!(reports[0].device, "cpu");
    assert!(reports[0].what.contains("threads"), "{}", reports[0].what);
    for report in &reports {
        assert_eq!(report.compute.is_some(), report.reason.is_none(), "{report:?}");
    }
    for family in Family::ALL {
        assert!(reports.iter().any(|report| report.device.starts_with(&family.to_string())));
    }
}

#[test]
fn the_cpu_has_a_speed() {
    let speed = Speed::measure(&Compute::cpu()).unwrap();
    assert!(speed.gflops > 0.1 && speed.gbytes > 0.1, "{speed:?}");
}
