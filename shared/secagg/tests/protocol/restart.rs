//! Both sides killed between any two messages, and disks that fail.

use sheaf_secagg::{Ring, SecAggError, Server};

use crate::federation::{Federation, plain_sum, terms, vectors};

fn restart(federation: &mut Federation, sites: usize) {
    let saved = serde_json::to_vec(&federation.server).unwrap();
    federation.server = serde_json::from_slice::<Server>(&saved).unwrap();
    federation.parties.iter_mut().take(sites).for_each(crate::federation::Party::restart);
}

#[test]
fn a_round_goes_on_over_restarts_of_everybody() {
    let values = vectors(5, 6, Ring::FULL, 3);
    let mut federation = Federation::new(5, terms(6, Ring::FULL), 3);
    let roster = federation.advertise(|_| true).unwrap();
    restart(&mut federation, 5);
    federation.deal(&roster, |_| true).unwrap();
    restart(&mut federation, 5);
    let uploaded = federation.upload(&values, |n| n != 4).unwrap();
    restart(&mut federation, 5);
    let request = federation.vote(&uploaded, |n| n != 4).unwrap();
    restart(&mut federation, 5);
    let sum = federation.open(&request, |n| n != 4).unwrap();
    assert_eq!(sum.values, plain_sum(&values, |n| n != 4));
}

#[test]
fn after_a_restart_a_step_gives_the_same_bytes() {
    let values = vectors(4, 6, Ring::FULL, 3);
    let mut federation = Federation::new(4, terms(6, Ring::FULL), 3);
    let roster = federation.advertise(|_| true).unwrap();
    let advert = federation.parties[0].site.as_ref().unwrap().advert().clone();
    let dealt = federation.parties[0].share_keys(&roster).unwrap();
    federation.parties[0].restart();
    assert_eq!(*federation.parties[0].site.as_ref().unwrap().advert(), advert);
    assert_eq!(federation.parties[0].share_keys(&roster).unwrap(), dealt);
    federation.deal(&roster, |_| true).unwrap();
    let inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    let masked = federation.parties[0].mask(&inbox, &values[0]).unwrap();
    federation.parties[0].restart();
    assert_eq!(federation.parties[0].mask(&inbox, &values[0]).unwrap(), masked);
    assert!(matches!(federation.parties[0].mask(&inbox, &values[1]), Err(SecAggError::Changed { .. })));
}

/// What could not be saved was not sent, and the step can be tried again.
#[test]
fn a_disk_that_fails_keeps_every_message_back() {
    let values = vectors(3, 6, Ring::FULL, 3);
    let mut federation = Federation::new(3, terms(6, Ring::FULL), 3);
    let task = federation.parties[0].task(&federation.terms);
    let full = |error: SecAggError| assert_eq!(error, SecAggError::Store("disk full".to_owned()));
    federation.parties[0].disk.broken = true;
    full(federation.parties[0].begin(task).unwrap_err());
    federation.parties[0].disk.broken = false;
    let roster = federation.advertise(|_| true).unwrap();
    federation.parties[0].disk.broken = true;
    full(federation.parties[0].share_keys(&roster).unwrap_err());
    federation.parties[0].disk.broken = false;
    federation.deal(&roster, |_| true).unwrap();
    federation.parties[0].disk.broken = true;
    let inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    full(federation.parties[0].mask(&inbox, &values[0]).unwrap_err());
    federation.parties[0].disk.broken = false;
    let uploaded = federation.upload(&values, |_| true).unwrap();
    federation.parties[0].disk.broken = true;
    full(federation.parties[0].consistency(&uploaded).unwrap_err());
    federation.parties[0].disk.broken = false;
    let request = federation.vote(&uploaded, |_| true).unwrap();
    federation.parties[0].disk.broken = true;
    full(federation.parties[0].unmask(&request).unwrap_err());
    federation.parties[0].disk.broken = false;
    assert_eq!(federation.open(&request, |_| true).unwrap().values, plain_sum(&values, |_| true));
}

#[test]
fn secrets_are_not_printed() {
    let mut federation = Federation::new(3, terms(6, Ring::FULL), 3);
    let roster = federation.advertise(|_| true).unwrap();
    federation.parties[0].share_keys(&roster).unwrap();
    let site = federation.parties[0].site.as_ref().unwrap();
    let saved: serde_json::Value = serde_json::to_value(site).unwrap();
    let printed = format!("{site:?}");
    for secret in ["mask_secret", "seal_secret", "seed"] {
        let bytes: Vec<u8> = serde_json::from_value(saved[secret].clone()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert!(!printed.contains(&format!("{bytes:?}")), "{secret}");
    }
    assert!(printed.contains("mask_secret: Secret"));
}
