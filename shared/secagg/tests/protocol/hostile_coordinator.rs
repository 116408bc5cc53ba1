//! What a coordinator that breaks the protocol gets: refusals.

use sheaf_secagg::{Member, Ring, Roster, SecAggError, Stage, Uploaded};

use crate::federation::{Federation, terms, vectors};

fn federation(sites: usize) -> Federation {
    Federation::new(sites, terms(4, Ring::FULL), 5)
}

/// A federation in which every site has masked and uploaded.
fn uploaded(sites: usize) -> (Federation, Uploaded) {
    let mut federation = federation(sites);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let values = vectors(sites, 4, Ring::FULL, 2);
    let uploaded = federation.upload(&values, |_| true).unwrap();
    (federation, uploaded)
}

fn without(uploaded: &Uploaded, member: u16) -> Uploaded {
    Uploaded { members: uploaded.members.iter().copied().filter(|m| m.0 != member).collect() }
}

#[test]
fn swapped_keys_are_noticed() {
    let mut federation = federation(4);
    let roster = federation.advertise(|_| true).unwrap();
    let refused = |federation: &mut Federation, roster: &Roster| {
        let error = federation.parties[0].share_keys(roster).unwrap_err();
        assert!(matches!(&error, SecAggError::Signature { stage: Stage::Advertise, .. }), "{error}");
    };
    let mut swapped = roster.clone();
    swapped.adverts[2].mask_key[5] ^= 1;
    refused(&mut federation, &swapped);
    let mut swapped = roster.clone();
    swapped.adverts[2].seal_key[5] ^= 1;
    refused(&mut federation, &swapped);
    // Keys and signature of another site, under this one's name.
    let mut swapped = roster.clone();
    let mut borrowed = Federation::new(4, terms(4, Ring::FULL), 6).advertise(|_| true).unwrap();
    swapped.adverts[2] = borrowed.adverts.remove(2);
    refused(&mut federation, &swapped);
    // Nothing of this has moved the site.
    federation.parties[0].share_keys(&roster).unwrap();
}

#[test]
fn an_advert_of_another_round_is_no_advert() {
    let mut federation = federation(3);
    let old = federation.advertise(|_| true).unwrap();
    federation.next_round();
    let mut roster = federation.advertise(|_| true).unwrap();
    roster.adverts[1] = old.adverts[1].clone();
    let error = federation.parties[0].share_keys(&roster).unwrap_err();
    assert!(matches!(error, SecAggError::Signature { .. }), "{error}");
}

#[test]
fn rosters_that_hide_nothing_are_refused() {
    let mut federation = federation(4);
    let roster = federation.advertise(|_| true).unwrap();
    let mut alone = roster.clone();
    alone.adverts.truncate(1);
    let error = federation.parties[0].share_keys(&alone).unwrap_err();
    assert_eq!(error, SecAggError::TooFew { stage: Stage::Advertise, got: 1, needed: 2 });
    let mut twice = roster.clone();
    twice.adverts[1] = twice.adverts[0].clone();
    assert!(matches!(federation.parties[0].share_keys(&twice), Err(SecAggError::Roster { .. })));
    let mut absent = roster.clone();
    absent.adverts.remove(0);
    assert!(matches!(federation.parties[0].share_keys(&absent), Err(SecAggError::Roster { .. })));
    let mut reversed = roster;
    reversed.adverts.reverse();
    assert!(matches!(federation.parties[0].share_keys(&reversed), Err(SecAggError::Roster { .. })));
}

#[test]
fn a_plan_below_the_site_s_own_limits_is_refused() {
    let mut federation = federation(3);
    let party = &mut federation.parties[0];
    let mut task = party.task(&federation.terms);
    task.policy.min_cohort = 5;
    let error = party.begin(task.clone()).unwrap_err();
    assert_eq!(error, SecAggError::Policy { field: "min_cohort", plan: 2, policy: 5 });
    (task.policy.min_cohort, task.policy.min_survivors) = (2, 3);
    let error = party.begin(task.clone()).unwrap_err();
    assert_eq!(error, SecAggError::Policy { field: "min_survivors", plan: 2, policy: 3 });
    (task.policy.min_survivors, task.terms.min_cohort) = (0, 1);
    assert!(matches!(party.begin(task), Err(SecAggError::Terms { field: "min_cohort", .. })));
}

#[test]
fn every_step_is_answered_once() {
    let mut federation = federation(4);
    let roster = federation.advertise(|_| true).unwrap();
    let dealt = federation.parties[0].share_keys(&roster).unwrap();
    assert_eq!(federation.parties[0].share_keys(&roster).unwrap(), dealt, "a repeat gets the same bytes");
    let mut shorter = roster.clone();
    shorter.adverts.pop();
    let changed = |stage| SecAggError::Changed { stage, from: "the coordinator".to_owned() };
    assert_eq!(federation.parties[0].share_keys(&shorter).unwrap_err(), changed(Stage::ShareKeys));

    federation.deal(&roster, |_| true).unwrap();
    let values = vectors(4, 4, Ring::FULL, 2);
    let inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    let masked = federation.parties[0].mask(&inbox, &values[0]).unwrap();
    assert_eq!(federation.parties[0].mask(&inbox, &values[0]).unwrap(), masked);
    let mut fewer = inbox.clone();
    fewer.sealed.pop();
    assert_eq!(federation.parties[0].mask(&fewer, &values[0]).unwrap_err(), changed(Stage::MaskedInput));
    // Two vectors under the same masks would give their difference away.
    let error = federation.parties[0].mask(&inbox, &values[1]).unwrap_err();
    assert!(matches!(error, SecAggError::Changed { stage: Stage::MaskedInput, .. }), "{error}");

    let all = federation.upload(&values, |_| true).unwrap();
    let vote = federation.parties[0].consistency(&all).unwrap();
    assert_eq!(federation.parties[0].consistency(&all).unwrap(), vote);
    let error = federation.parties[0].consistency(&without(&all, 3)).unwrap_err();
    assert_eq!(error, changed(Stage::Consistency));
}

/// The heart of it: after a share of the seed of a site, no share of its key, whatever is asked how often.
#[test]
fn both_shares_of_one_site_are_never_given() {
    let (mut federation, all) = uploaded(4);
    let request = federation.vote(&all, |_| true).unwrap();
    let first = federation.parties[0].unmask(&request).unwrap();
    assert!(first.keys.is_empty() && first.seeds.len() == 4);
    let mut other = request.clone();
    other.members.retain(|m| m.0 != 3);
    other.votes.retain(|(m, _)| m.0 != 3);
    for _ in 0..3 {
        let error = federation.parties[0].unmask(&other).unwrap_err();
        assert!(matches!(error, SecAggError::Changed { stage: Stage::Unmask, .. }), "{error}");
        federation.parties[0].restart();
        assert!(federation.parties[0].consistency(&without(&all, 3)).is_err());
        assert_eq!(federation.parties[0].unmask(&request).unwrap(), first);
    }
}

/// Two sets, each signed by some: neither gathers enough signatures.
#[test]
fn sites_that_were_told_different_sets_open_neither() {
    let (mut federation, all) = uploaded(6);
    let other = without(&all, 5);
    let mut votes = Vec::new();
    for n in 0..5 {
        let set = if n < 3 { &all } else { &other };
        votes.push((Member(n as u16), federation.parties[n].consistency(set).unwrap().signature));
    }
    let request = |set: &Uploaded, votes: &[(Member, Vec<u8>)]| sheaf_secagg::UnmaskRequest {
        members: set.members.clone(),
        votes: votes.to_vec(),
    };
    let error = federation.parties[0].unmask(&request(&all, &votes[..3])).unwrap_err();
    assert_eq!(error, SecAggError::TooFew { stage: Stage::Unmask, got: 3, needed: 5 });
    let error = federation.parties[0].unmask(&request(&all, &votes)).unwrap_err();
    assert!(matches!(error, SecAggError::Signature { stage: Stage::Unmask, .. }), "{error}");
    let padded: Vec<_> = [&votes[..3], &votes[..2]].concat();
    let error = federation.parties[0].unmask(&request(&all, &padded)).unwrap_err();
    assert!(matches!(error, SecAggError::Message { stage: Stage::Unmask, .. }), "{error}");
    let error = federation.parties[4].unmask(&request(&other, &votes[3..])).unwrap_err();
    assert_eq!(error, SecAggError::TooFew { stage: Stage::Unmask, got: 2, needed: 5 });
}

#[test]
fn sets_that_are_too_small_or_without_the_site_are_not_signed() {
    let (mut federation, all) = uploaded(6);
    let few = Uploaded { members: all.members[..4].to_vec() };
    let error = federation.parties[0].consistency(&few).unwrap_err();
    assert_eq!(error, SecAggError::TooFew { stage: Stage::Consistency, got: 4, needed: 5 });
    let error = federation.parties[0].consistency(&without(&all, 0)).unwrap_err();
    assert!(matches!(error, SecAggError::Message { stage: Stage::Consistency, .. }), "{error}");
    let mut doubled = all.clone();
    doubled.members[1] = doubled.members[0];
    assert!(matches!(federation.parties[0].consistency(&doubled), Err(SecAggError::Roster { .. })));
    let mut beyond = all;
    beyond.members[5] = Member(6);
    let error = federation.parties[0].consistency(&beyond).unwrap_err();
    assert_eq!(error, SecAggError::Unknown { stage: Stage::Consistency, member: 6, sites: 6 });
}

#[test]
fn steps_out_of_order_are_refused() {
    let mut federation = federation(3);
    let roster = federation.advertise(|_| true).unwrap();
    let empty = Uploaded { members: Vec::new() };
    let error = federation.parties[0].consistency(&empty).unwrap_err();
    assert_eq!(error, SecAggError::Order { asked: Stage::Consistency, at: Stage::ShareKeys });
    federation.deal(&roster, |_| true).unwrap();
    let request = sheaf_secagg::UnmaskRequest { members: Vec::new(), votes: Vec::new() };
    let error = federation.parties[0].unmask(&request).unwrap_err();
    assert_eq!(error, SecAggError::Order { asked: Stage::Unmask, at: Stage::MaskedInput });
}

#[test]
fn shares_that_were_tampered_with_or_moved_do_not_open() {
    let mut federation = federation(4);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let values = vectors(4, 4, Ring::FULL, 2);
    let inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    let foreign = federation.server.inbox(&federation.parties[1].name).unwrap();
    let names: Vec<_> = federation.parties.iter().map(|party| party.name.clone()).collect();
    let mut tampered = inbox.clone();
    tampered.sealed[1].bytes[40] ^= 1;
    let error = federation.parties[0].mask(&tampered, &values[0]).unwrap_err();
    assert_eq!(error, SecAggError::Sealed { from: names[2].clone() });
    // What site 2 dealt site 1, handed to site 0.
    let mut moved = inbox.clone();
    moved.sealed[1] = foreign.sealed.iter().find(|sealed| sealed.peer == Member(2)).unwrap().clone();
    let error = federation.parties[0].mask(&moved, &values[0]).unwrap_err();
    assert_eq!(error, SecAggError::Sealed { from: names[2].clone() });
    let mut relabelled = inbox.clone();
    relabelled.sealed[1].peer = Member(3);
    relabelled.sealed.remove(2);
    let error = federation.parties[0].mask(&relabelled, &values[0]).unwrap_err();
    assert_eq!(error, SecAggError::Sealed { from: names[3].clone() });
    let mut few = inbox.clone();
    few.sealed.truncate(1);
    let error = federation.parties[0].mask(&few, &values[0]).unwrap_err();
    assert_eq!(error, SecAggError::TooFew { stage: Stage::ShareKeys, got: 2, needed: 3 });
    federation.parties[0].mask(&inbox, &values[0]).unwrap();
}

/// A peer is said to have dropped out before dealing, and later to have uploaded.
#[test]
fn a_neighbour_without_shares_cannot_have_uploaded() {
    let mut federation = federation(4);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let values = vectors(4, 4, Ring::FULL, 2);
    let mut inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    inbox.sealed.retain(|sealed| sealed.peer != Member(2));
    federation.parties[0].mask(&inbox, &values[0]).unwrap();
    let all = Uploaded { members: (0..4).map(Member).collect() };
    let error = federation.parties[0].consistency(&all).unwrap_err();
    assert!(matches!(error, SecAggError::Message { stage: Stage::Consistency, .. }), "{error}");
}
