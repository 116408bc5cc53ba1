use proptest::prelude::*;

use super::*;
use crate::sample::{BITS, ONE, sums};

fn shape(sums: &Sums) -> SumsShape {
    SumsShape { dim: sums.dim(), classes: sums.classes(), bits: BITS, max_abs: ONE }
}

#[test]
fn sums_survive_the_wire() {
    for (n, dim, classes) in [(1, 1, 1), (2, 2, 3), (30, 46, 2), (100, 47, 5), (60, 130, 10)] {
        let sums = sums(dim as u64, n, dim, classes);
        let bytes = encode(&sums);
        assert_eq!(decode(&bytes, &shape(&sums)).unwrap(), sums);
        let header = check(&bytes, &shape(&sums)).unwrap();
        assert_eq!((header.rows, header.counts.as_slice()), (n as u64, sums.counts()));
    }
}

#[test]
fn encoding_saves_at_least_a_third() {
    let sums = sums(1, 500, 200, 10);
    let raw = 8 * (sums.gram().len() + sums.cross().len());
    assert!(encode(&sums).len() * 3 < raw * 2, "{} of {raw}", encode(&sums).len());
}

#[test]
fn adding_and_subtracting_encoded_sums_equals_doing_it_decoded() {
    let sites: Vec<Sums> = (0..4).map(|k| sums(k, 20 + k as usize, 60, 4)).collect();
    let (mut ours, mut expected) = (Sums::zero(60, 4, BITS), Sums::zero(60, 4, BITS));
    for site in &sites {
        decode_add(&encode(site), &mut ours, ONE).unwrap();
        expected.add(site).unwrap();
    }
    assert_eq!(ours, expected);
    decode_subtract(&encode(&sites[1]), &mut ours, ONE).unwrap();
    expected.subtract(&sites[1]).unwrap();
    assert_eq!(ours, expected);
    let again = decode_subtract(&encode(&sums(9, 1000, 60, 4)), &mut ours, ONE);
    assert!(matches!(again, Err(AnalyticError::NotContained { .. })));
    assert_eq!(ours, expected);
}

#[test]
fn a_bad_upload_leaves_the_total_as_it_was() {
    let total = sums(1, 30, 50, 3);
    let mut bytes = encode(&sums(2, 30, 50, 3));
    // The last block belongs to B: everything before it is good.
    let last = bytes.len() - 1;
    bytes.truncate(last);
    let mut into = total.clone();
    assert_eq!(decode_add(&bytes, &mut into, ONE), Err(AnalyticError::Truncated { section: "cross" }));
    assert_eq!(into, total);
    into.gram[3] = i64::MAX;
    let held = into.clone();
    let mut other = sums(2, 30, 50, 3);
    other.gram[3] = 1;
    assert_eq!(decode_add(&encode(&other), &mut into, ONE), Err(AnalyticError::Overflow { what: "gram" }));
    assert_eq!(into, held);
}

#[test]
fn each_kind_of_damage_has_its_own_error() {
    let sums = sums(5, 30, 40, 3);
    let (good, shape) = (encode(&sums), shape(&sums));
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let error = decode(&bytes, &shape).unwrap_err();
        assert_eq!(check(&bytes, &shape).unwrap_err(), error);
        error
    };
    assert!(matches!(damaged(&|b| b[0] = b'X'), AnalyticError::Format { .. }));
    assert!(matches!(damaged(&|b| b[4] = 2), AnalyticError::Format { .. }));
    assert!(matches!(damaged(&|b| b[6] = 1), AnalyticError::Format { .. }));
    assert_eq!(damaged(&|b| b[5] = 13), AnalyticError::Shape { what: "bits", expected: 14, got: 13 });
    assert!(matches!(damaged(&|b| b[8] += 1), AnalyticError::Shape { what: "dim", .. }));
    assert!(matches!(damaged(&|b| b[15] = 255), AnalyticError::Shape { what: "classes", .. }));
    assert!(matches!(damaged(&|b| b[16] += 1), AnalyticError::Counts { .. }));
    assert!(matches!(damaged(&|b| b[23] = 255), AnalyticError::TooManyRows { .. }));
    assert_eq!(damaged(&|b| b.push(0)), AnalyticError::Trailing { extra: 1 });
    assert!(matches!(damaged(&|b| b.truncate(20)), AnalyticError::Truncated { section: "the header" }));
    assert!(matches!(damaged(&|b| b[48] = 65), AnalyticError::Format { .. }));
    let plain = Sums::zero(2, 2, BITS);
    assert_eq!(decode(&encode(&plain), &self::shape(&plain)), Err(AnalyticError::NoRows));
}

#[test]
fn a_short_message_does_not_get_a_large_buffer() {
    let header = Sums { rows: 1, counts: vec![1], ..Sums::zero(1, 1, BITS) };
    let mut bytes = encode(&header);
    bytes[8..12].copy_from_slice(&65_536_u32.to_le_bytes());
    let expected = SumsShape { dim: 65_536, classes: 1, bits: BITS, max_abs: ONE };
    assert_eq!(decode(&bytes, &expected), Err(AnalyticError::Truncated { section: "gram" }));
}

proptest! {
    #[test]
    fn random_sums_survive(seed: u64, n in 1_usize..60, dim in 1_usize..60, classes in 1_usize..6) {
        let sums = sums(seed, n, dim, classes);
        prop_assert_eq!(&decode(&encode(&sums), &shape(&sums)).unwrap(), &sums);
    }

    /// Whatever is flipped, the result is an error or sums that are plausible and encode again.
    #[test]
    fn flipped_bytes_never_panic(seed: u64, flips in prop::collection::vec((any::<usize>(), 1_u8..), 1..8)) {
        let sums = sums(seed, 20, 30, 3);
        let mut bytes = encode(&sums);
        let length = bytes.len();
        for &(at, mask) in &flips {
            bytes[at % length] ^= mask;
        }
        let mut total = sums.clone();
        match decode(&bytes, &shape(&sums)) {
            Ok(decoded) => {
                prop_assert_eq!(decoded.validate(ONE), Ok(()));
                prop_assert_eq!(decode_add(&bytes, &mut total, ONE), Ok(()));
                prop_assert_eq!(decode_subtract(&bytes, &mut total, ONE), Ok(()));
            }
            Err(error) => prop_assert_eq!(decode_add(&bytes, &mut total, ONE), Err(error)),
        }
        prop_assert_eq!(total, sums);
    }

    #[test]
    fn random_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..4000), keep in 0_usize..60) {
        let sums = sums(1, 20, 30, 3);
        let bytes = [&encode(&sums)[..keep], &tail].concat();
        let _ = decode(&bytes, &shape(&sums));
        let _ = check(&bytes, &shape(&sums));
    }
}
