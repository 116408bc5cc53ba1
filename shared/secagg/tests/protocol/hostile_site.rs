//! What a site that breaks the protocol can do: stop the round, with its name in the error where it can be known.

use sheaf_secagg::{Member, Ring, SecAggError, Stage};

use crate::federation::{Federation, terms, vectors};

fn asked(sites: usize) -> (Federation, sheaf_secagg::UnmaskRequest) {
    let mut federation = Federation::new(sites, terms(4, Ring::FULL), 5);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let values = vectors(sites, 4, Ring::FULL, 2);
    let uploaded = federation.upload(&values, |n| n > 0).unwrap();
    let request = federation.vote(&uploaded, |n| n > 0).unwrap();
    (federation, request)
}

#[test]
fn a_false_share_is_noticed_and_no_wrong_sum_comes_out() {
    let (mut federation, request) = asked(4);
    for n in 1..4 {
        let mut answer = federation.parties[n].unmask(&request).unwrap();
        if n == 1 {
            answer.seeds[2].bytes[0] ^= 1;
        }
        federation.server.answer(&federation.parties[n].name, answer).unwrap();
    }
    let error = federation.server.finish().unwrap_err();
    assert_eq!(error, SecAggError::FalseShare { site: federation.parties[3].name.clone() });
    let (mut federation, request) = asked(4);
    for n in 1..4 {
        let mut answer = federation.parties[n].unmask(&request).unwrap();
        if n == 1 {
            // Not the first byte: X25519 ignores its low bits, and the same key would come out.
            answer.keys[0].bytes[1] ^= 1;
        }
        federation.server.answer(&federation.parties[n].name, answer).unwrap();
    }
    let error = federation.server.finish().unwrap_err();
    assert_eq!(error, SecAggError::FalseShare { site: federation.parties[0].name.clone() });
}

#[test]
fn the_coordinator_takes_no_share_it_must_not_have() {
    let (mut federation, request) = asked(4);
    let answer = federation.parties[1].unmask(&request).unwrap();
    let mut wrong = answer.clone();
    wrong.keys.push(wrong.seeds[1].clone());
    let name = federation.parties[1].name.clone();
    let error = federation.server.answer(&name, wrong).unwrap_err();
    assert!(matches!(error, SecAggError::Message { stage: Stage::Unmask, .. }), "{error}");
    let absent = federation.parties[0].name.clone();
    let error = federation.server.answer(&absent, answer).unwrap_err();
    assert!(matches!(error, SecAggError::Message { .. }), "it uploaded nothing: {error}");
}

#[test]
fn messages_of_others_late_or_twice_do_not_count() {
    let mut federation = Federation::new(4, terms(4, Ring::FULL), 5);
    let mut adverts = Vec::new();
    for party in &mut federation.parties {
        adverts.push(party.begin(party.task(&federation.terms)).unwrap());
    }
    let names: Vec<_> = federation.parties.iter().map(|party| party.name.clone()).collect();
    let (server, directory) = (&mut federation.server, &*federation.directory);
    let error = server.advert(&names[1], adverts[0].clone(), directory).unwrap_err();
    assert!(matches!(error, SecAggError::Message { stage: Stage::Advertise, .. }), "{error}");
    for (name, advert) in names.iter().zip(&adverts).take(3) {
        server.advert(name, advert.clone(), directory).unwrap();
        server.advert(name, advert.clone(), directory).unwrap();
    }
    let roster = server.close_adverts().unwrap();
    let error = server.advert(&names[3], adverts[3].clone(), directory).unwrap_err();
    assert_eq!(error, SecAggError::Order { asked: Stage::Advertise, at: Stage::ShareKeys });
    let shares = federation.parties[0].share_keys(&roster).unwrap();
    let error = federation.server.shares(&names[3], shares.clone()).unwrap_err();
    assert!(matches!(error, SecAggError::Message { .. }), "not in the roster: {error}");
    let mut short = shares;
    short.sealed.pop();
    assert!(matches!(federation.server.shares(&names[0], short), Err(SecAggError::Message { .. })));
    federation.deal(&roster, |n| n < 3).unwrap();

    let values = vectors(4, 4, Ring::FULL, 2);
    let inbox = federation.server.inbox(&names[0]).unwrap();
    let mut input = federation.parties[0].mask(&inbox, &values[0]).unwrap();
    federation.server.input(&names[0], &input).unwrap();
    federation.server.input(&names[0], &input).unwrap();
    input.packed[0] ^= 1;
    let error = federation.server.input(&names[0], &input).unwrap_err();
    assert!(matches!(error, SecAggError::Changed { stage: Stage::MaskedInput, .. }), "{error}");
    input.packed.pop();
    assert!(matches!(federation.server.input(&names[1], &input), Err(SecAggError::Length { .. })));
    // The repeat was not added twice.
    let uploaded = federation.upload(&values, |n| n < 3).unwrap();
    let request = federation.vote(&uploaded, |n| n < 3).unwrap();
    let sum = federation.open(&request, |n| n < 3).unwrap();
    assert_eq!(sum.values, crate::federation::plain_sum(&values, |n| n < 3));
    assert_eq!(request.members, (0..3).map(Member).collect::<Vec<_>>());
}

#[test]
fn values_that_could_wrap_never_leave() {
    let mut federation = Federation::new(3, terms(2, Ring::new(16).unwrap()), 5);
    let roster = federation.advertise(|_| true).unwrap();
    federation.deal(&roster, |_| true).unwrap();
    let inbox = federation.server.inbox(&federation.parties[0].name).unwrap();
    let error = federation.parties[0].mask(&inbox, &[0, 10_923]).unwrap_err();
    assert_eq!(error, SecAggError::OutOfRange { index: 1, bound: 10_922 });
    assert!(matches!(federation.parties[0].mask(&inbox, &[0]), Err(SecAggError::Length { .. })));
    federation.parties[0].mask(&inbox, &[0, -10_922]).unwrap();
}
