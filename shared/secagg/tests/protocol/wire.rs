//! The byte form: it reads back, and damage is an error or another message, never a panic.

use proptest::prelude::*;
use sheaf_secagg::{
    Advert, History, Inbox, KeyShares, MaskedInput, Ring, Roster, SecAggError, Server, Site, UnmaskRequest,
    UnmaskShares, Uploaded, Vote, Wire,
};

use crate::federation::{Federation, terms};

/// Everything a small round with one site that drops out sends and keeps, in bytes, with what reads it.
type Read = fn(&[u8]) -> Option<Vec<u8>>;

fn reader<T: Wire>(bytes: &[u8]) -> Option<Vec<u8>> {
    T::from_bytes(bytes).ok().map(|value| value.to_bytes().unwrap())
}

fn round() -> Vec<(Vec<u8>, Read)> {
    fn keep<T: Wire>(kept: &mut Vec<(Vec<u8>, Read)>, value: &T) {
        kept.push((value.to_bytes().unwrap(), reader::<T>));
    }
    let mut kept = Vec::new();
    let mut federation = Federation::new(5, terms(6, Ring::new(20).unwrap()), 7);
    let roster = federation.advertise(|_| true).unwrap();
    keep(&mut kept, &roster);
    keep::<Advert>(&mut kept, &roster.adverts[2]);
    keep::<Server>(&mut kept, &federation.server);
    let shares = federation.parties[0].share_keys(&roster).unwrap();
    keep::<KeyShares>(&mut kept, &shares);
    federation.deal(&roster, |_| true).unwrap();
    let name = federation.parties[1].name.clone();
    let inbox = federation.server.inbox(&name).unwrap();
    keep::<Inbox>(&mut kept, &inbox);
    let masked = federation.parties[1].mask(&inbox, &[1; 6]).unwrap();
    keep::<MaskedInput>(&mut kept, &masked);
    let uploaded = federation.upload(&vec![vec![1; 6]; 5], |n| n != 4).unwrap();
    keep::<Uploaded>(&mut kept, &uploaded);
    keep::<Vote>(&mut kept, &federation.parties[0].consistency(&uploaded).unwrap());
    let request = federation.vote(&uploaded, |n| n != 4).unwrap();
    keep::<UnmaskRequest>(&mut kept, &request);
    keep::<UnmaskShares>(&mut kept, &federation.parties[0].unmask(&request).unwrap());
    keep::<Server>(&mut kept, &federation.server);
    keep::<Site>(&mut kept, federation.parties[0].site.as_ref().unwrap());
    keep::<History>(&mut kept, &federation.parties[0].history);
    kept
}

#[test]
fn what_is_written_reads_back_and_nothing_may_follow_it() {
    for (bytes, read) in round() {
        assert_eq!(read(&bytes).as_ref(), Some(&bytes));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(read(&longer), None);
        assert_eq!(read(&bytes[..bytes.len() - 1]), None);
    }
    let error = Roster::from_bytes(&[1]).unwrap_err();
    assert!(matches!(error, SecAggError::Encoding { what: "a roster", .. }), "{error}");
}

#[test]
fn damaged_bytes_never_panic() {
    let kept = round();
    proptest!(ProptestConfig::with_cases(2000), |(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
    )| {
        let (bytes, read) = which.get(&kept);
        let mut damaged = bytes.clone();
        *at.get_mut(&mut damaged) = value;
        if cut {
            damaged.truncate(end.index(damaged.len()));
        }
        read(&damaged);
        read(&noise);
    });
}
