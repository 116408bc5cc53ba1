//! The device that this site's tasks compute on: leased, not grabbed. Nothing is opened before a task needs it; then
//! it is opened once for the process, however many tasks, and agents of a simulation, use it. How many compute at the
//! same time is for the turns of [`daemon::run`](crate::daemon::run) to say.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sheaf_models::{Compute, DeviceChoice};

use crate::error::AgentError;

type Known<T> = Mutex<BTreeMap<DeviceChoice, T>>;

/// Locked while a device opens: whoever wants the same one waits for it.
static OPENED: Known<Compute> = Mutex::new(BTreeMap::new());
/// Locked for a moment only.
static NAMES: Known<String> = Mutex::new(BTreeMap::new());

fn locked<T>(known: &'static Known<T>) -> MutexGuard<'static, BTreeMap<DeviceChoice, T>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device of this choice; opened by the first call, which may take seconds on an accelerator.
pub fn lease(choice: DeviceChoice) -> Result<Compute, AgentError> {
    let mut opened = locked(&OPENED);
    if let Some(compute) = opened.get(&choice) {
        return Ok(compute.clone());
    }
    let found = choice.open()?;
    note(choice, &found.compute.name, found.note.as_deref());
    opened.insert(choice, found.compute.clone());
    Ok(found.compute)
}

/// Says once what tasks will compute on, and fails where a named device is not there. Asks the drivers, opens nothing.
pub fn announce(choice: DeviceChoice) -> Result<(), AgentError> {
    if !locked(&NAMES).contains_key(&choice) {
        let outlook = choice.look()?;
        note(choice, &outlook.choice.to_string(), outlook.note.as_deref());
    }
    Ok(())
}

/// The name of what tasks compute on: of the opened device, else of the one that was announced.
pub fn name(choice: DeviceChoice) -> String {
    locked(&NAMES).get(&choice).cloned().unwrap_or_else(|| choice.to_string())
}

/// Remembers the name, and logs it where it is news.
fn note(choice: DeviceChoice, name: &str, fallback: Option<&str>) {
    if locked(&NAMES).insert(choice, name.to_owned()).as_deref() == Some(name) {
        return;
    }
    if let Some(reason) = fallback {
        tracing::warn!("computing on {name}; {reason}");
    } else {
        tracing::info!("computing on {name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_announced_and_then_leased_as_often_as_wanted() {
        announce(DeviceChoice::Cpu).unwrap();
        assert_eq!(name(DeviceChoice::Cpu), "cpu");
        for _ in 0..2 {
            assert_eq!(lease(DeviceChoice::Cpu).unwrap().name, "cpu");
        }
        lease(DeviceChoice::Auto).unwrap();
    }

    #[test]
    fn a_device_that_is_not_there_is_no_device() {
        let absent = DeviceChoice::Cuda(999);
        for error in [announce(absent).unwrap_err(), lease(absent).map(drop).unwrap_err()] {
            assert!(matches!(error, AgentError::Device(_)), "{error}");
            assert!(error.to_string().starts_with("device cuda:999: "), "{error}");
        }
    }
}
