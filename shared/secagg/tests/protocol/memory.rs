//! What a site remembers from round to round.

use sheaf_secagg::{Ring, SecAggError, Stage};

use crate::federation::{Federation, plain_sum, terms, vectors};

#[test]
fn two_runs_that_differ_by_one_site_are_refused() {
    let values = vectors(7, 4, Ring::FULL, 3);
    let mut federation = Federation::new(7, terms(4, Ring::FULL), 3);
    federation.run(&values, &[None; 7]).unwrap();
    // The same cohort again says nothing new.
    federation.next_round();
    federation.run(&values, &[None; 7]).unwrap();
    // One fewer: the difference would be that one's vector.
    federation.next_round();
    let mut leaves = [None; 7];
    leaves[6] = Some(Stage::Advertise);
    let error = federation.run(&values, &leaves).unwrap_err();
    assert_eq!(error, SecAggError::Differencing { differ: 1, needed: 2 });
    // The same by dropping out after the masks.
    federation.next_round();
    leaves[6] = Some(Stage::MaskedInput);
    let error = federation.run(&values, &leaves).unwrap_err();
    assert_eq!(error, SecAggError::Differencing { differ: 1, needed: 2 });
    // Two fewer is what this policy allows.
    federation.next_round();
    leaves[5] = Some(Stage::MaskedInput);
    let sum = federation.run(&values, &leaves).unwrap();
    assert_eq!(sum.values, plain_sum(&values, |n| n < 5));
    // Another subject has another memory.
    federation.next_round();
    let mut task = federation.parties[0].task(&federation.terms);
    task.subject = [4; 32];
    federation.parties[0].begin(task).unwrap();
}

/// Two rounds open at a time: both cohorts are signed before either is opened.
#[test]
fn rounds_that_overlap_do_not_evade_the_memory() {
    let values = vectors(4, 4, Ring::FULL, 3);
    let mut federation = Federation::new(4, terms(4, Ring::FULL), 3);
    let signed = |federation: &mut Federation, sites: usize| {
        let roster = federation.advertise(|n| n < sites).unwrap();
        federation.deal(&roster, |n| n < sites).unwrap();
        let uploaded = federation.upload(&values, |n| n < sites).unwrap();
        federation.vote(&uploaded, |n| n < sites).unwrap()
    };
    let first = signed(&mut federation, 4);
    let mut begun: Vec<_> = federation.parties.iter_mut().map(|party| party.site.take()).collect();
    federation.next_round();
    let second = signed(&mut federation, 3);
    federation.parties[0].unmask(&second).unwrap();
    federation.parties[0].site = begun[0].take();
    let error = federation.parties[0].unmask(&first).unwrap_err();
    assert_eq!(error, SecAggError::Differencing { differ: 1, needed: 2 });
}

#[test]
fn a_round_is_begun_once_and_keys_serve_one_round() {
    let mut federation = Federation::new(3, terms(4, Ring::FULL), 3);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let task = federation.parties[0].task(&federation.terms);
    assert_eq!(federation.parties[0].begin(task), Err(SecAggError::BegunBefore { round: 1 }));
    // The same generator, as of a machine restored from a snapshot, draws the same keys; its peers notice.
    let mut again = Federation::new(3, federation.terms.clone(), 3);
    again.terms.round = 2;
    std::mem::swap(&mut again.parties[1].identity, &mut federation.parties[1].identity);
    federation.next_round();
    let old = &mut again.parties[1];
    let advert = old.begin(old.task(&federation.terms)).unwrap();
    for n in [0, 2] {
        let party = &mut federation.parties[n];
        let advert = party.begin(party.task(&federation.terms)).unwrap();
        federation.server.advert(&party.name, advert, &*federation.directory).unwrap();
    }
    federation.server.advert(&again.parties[1].name, advert, &*federation.directory).unwrap();
    let roster = federation.server.close_adverts().unwrap();
    let error = federation.parties[0].share_keys(&roster).unwrap_err();
    assert_eq!(error, SecAggError::ReusedKey { site: again.parties[1].name.clone() });
}
