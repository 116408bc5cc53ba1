//! A small random Llama that learns which words a text has.

use std::{cell::Cell, collections::BTreeMap, path::Path};

use super::*;
use crate::{Compute, LoraConfig, train::Encoded};

fn model() -> LanguageModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_llama");
    LanguageModel::load(&folder, &Compute::cpu()).unwrap()
}

/// Of the topmost of two layers.
fn top() -> LoraConfig {
    LoraConfig { rank: 4, alpha: 8.0, layers: Some(1), ..LoraConfig::default() }
}

fn config() -> TuneConfig {
    TuneConfig { epochs: 20.0, batch: 4, learning_rate: 2e-2, warmup: 0.0, seed: 5, ..TuneConfig::default() }
}

/// Texts of three classes by their words, the last six to be asked about.
fn texts(model: &LanguageModel) -> (Vec<Encoded>, Vec<Case>, Vec<usize>) {
    let words = [["red", "car"], ["blue", "boat"], ["old", "tree"]];
    let (mut records, mut cases) = (Vec::new(), Vec::new());
    for number in 0..24 {
        let class = number % 3;
        let [first, second] = words[class];
        let text = format!("{}{} {first} {second}", "so ".repeat(number % 4), number / 3);
        records.push(model.encode_text(&text, 32).unwrap());
        cases.push(Case { record: number, class, weight: 1.0 });
    }
    let asked = (18..24).collect();
    cases.truncate(18);
    (records, cases, asked)
}

#[test]
fn a_classifier_learns_and_equal_seeds_give_equal_ones() {
    let model = model();
    let (records, cases, asked) = texts(&model);
    let adapter = Adapter::new(&model, &top(), 1).unwrap();
    let frozen = Frozen::compute(&model, &top(), &records, &|| false).unwrap();
    let trained = |config: &TuneConfig| {
        Classifier::train(&model, &adapter, &frozen, (&cases, 3), config, &|| false).unwrap()
    };
    let one = trained(&config());
    let right = one.classes(&model, &frozen, &asked, &|| false).unwrap();
    assert_eq!(right, asked.iter().map(|record| record % 3).collect::<Vec<_>>(), "new texts");
    let backwards: Vec<usize> = asked.iter().rev().copied().collect();
    let again = one.classes(&model, &frozen, &backwards, &|| false).unwrap();
    assert_eq!(again.into_iter().rev().collect::<Vec<_>>(), right, "in the order that is asked for");
    assert_ne!(one.adapter, adapter, "adapter and head learn together");
    assert_eq!(one, trained(&config()));
    assert_ne!(one, trained(&TuneConfig { seed: 6, ..config() }));
    let short = TuneConfig { epochs: 0.1, ..config() };
    assert_ne!(trained(&short).head, SequenceHead::new(3, 32), "a part of a pass is a step too");
}

#[test]
fn a_gradient_is_the_same_from_frozen_states_in_pieces_and_by_record() {
    let model = model();
    let (records, cases, _) = texts(&model);
    let mut adapter = Adapter::new(&model, &top(), 1).unwrap();
    for tensor in adapter.tensors.values_mut() {
        for (at, value) in tensor.data.iter_mut().enumerate() {
            *value = 0.1 * (at as f32).sin();
        }
    }
    let mut classifier = Classifier::untrained(&model, &adapter, 3);
    for (at, value) in classifier.head.weight.data.iter_mut().enumerate() {
        *value = 0.1 * (at as f32).cos();
    }
    let cases: Vec<Case> = cases[..5]
        .iter()
        .zip([1.0, 4.0, 1.0, 4.0, 2.0])
        .map(|(case, weight)| Case { weight, ..*case })
        .collect();
    let (none, frozen) =
        (Frozen::none(&records), Frozen::compute(&model, &top(), &records, &|| false).unwrap());
    let of = |frozen: &Frozen<'_>, batch, recompute| {
        let config = TuneConfig { batch, recompute, ..config() };
        classifier.gradient(&model, frozen, (&cases, 12.0), &config, 0).unwrap()
    };
    let (loss, wanted) = of(&none, 5, false);
    // The same record by record, by the function that keeps them apart.
    let sequences: Vec<Vec<u32>> = cases.iter().map(|case| records[case.record].run().to_vec()).collect();
    let by_record = classifier
        .head
        .gradients(&model, &adapter, &sequences, |scores| {
            let slopes = scores.iter().zip(&cases).map(|(scores, case)| {
                let (_, slopes) = classification(scores, case.class);
                slopes.into_iter().map(|slope| slope * case.weight / 12.0).collect()
            });
            slopes.collect()
        })
        .unwrap();
    let mut summed: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (name, tensor) in by_record.stacked {
        let size = tensor.data.len() / cases.len();
        let mut sum = vec![0.0; size];
        for record in tensor.data.chunks_exact(size) {
            sum.iter_mut().zip(record).for_each(|(sum, value)| *sum += value);
        }
        summed.insert(name, sum);
    }
    for (what, (other_loss, other)) in [
        ("frozen", of(&frozen, 5, false)),
        ("in pieces", of(&frozen, 2, false)),
        ("run again", of(&frozen, 5, true)),
    ] {
        assert!((other_loss - loss).abs() < 1e-5, "{what}: {other_loss} {loss}");
        assert_eq!(other.len(), 5, "two matrices of two modules, and the head");
        for (name, tensor) in &other {
            assert_eq!(tensor.shape, wanted[name].shape);
            for (ours, others) in tensor.data.iter().zip(&wanted[name].data).zip(&summed[name]) {
                let ((a, b), c) = (ours, others);
                assert!((a - b).abs() < 1e-4 && (a - c).abs() < 1e-4, "{what}, {name}: {a} {b} {c}");
            }
        }
    }
}

#[test]
fn a_case_that_weighs_more_wins() {
    let model = model();
    let records = [model.encode_text("the same text", 24).unwrap()];
    let adapter = Adapter::new(&model, &top(), 1).unwrap();
    let frozen = Frozen::compute(&model, &top(), &records, &|| false).unwrap();
    let case = |class, weight| Case { record: 0, class, weight };
    // Three say 1, but the one that says 0 weighs as four. Small steps: what is best lies close to the middle.
    let config = TuneConfig { epochs: 60.0, learning_rate: 2e-3, ..config() };
    for (weight, wanted) in [(4.0, 0), (1.0, 1)] {
        let cases = [case(1, 1.0), case(0, weight), case(1, 1.0), case(1, 1.0)];
        let trained = Classifier::train(&model, &adapter, &frozen, (&cases, 2), &config, &|| false).unwrap();
        assert_eq!(trained.classes(&model, &frozen, &[0], &|| false).unwrap(), [wanted]);
    }
}

#[test]
fn it_stops_between_batches_and_says_what_is_wrong() {
    let model = model();
    let (records, cases, asked) = texts(&model);
    let adapter = Adapter::new(&model, &top(), 1).unwrap();
    let frozen = Frozen::none(&records);
    let asked_so_often = Cell::new(0);
    let third = || {
        asked_so_often.set(asked_so_often.get() + 1);
        asked_so_often.get() > 2
    };
    let train = |cases: &[Case], config: &TuneConfig, cancelled: &dyn Fn() -> bool| {
        Classifier::train(&model, &adapter, &frozen, (cases, 3), config, cancelled)
    };
    assert!(matches!(train(&cases, &config(), &third), Err(ModelError::Stopped)));
    let untrained = train(&[], &config(), &|| false).unwrap();
    assert_eq!(untrained, Classifier::untrained(&model, &adapter, 3), "nothing to learn from");
    assert_eq!(untrained.classes(&model, &frozen, &asked, &|| false).unwrap(), [0; 6]);
    assert!(matches!(untrained.classes(&model, &frozen, &asked, &|| true), Err(ModelError::Stopped)));
    for (case, part) in [
        (Case { record: 99, ..cases[0] }, "24 records"),
        (Case { class: 3, ..cases[0] }, "3 classes"),
        (Case { weight: 0.0, ..cases[0] }, "weight"),
    ] {
        let refused = train(&[cases[1], case], &config(), &|| false).unwrap_err().to_string();
        assert!(refused.contains("case 1") && refused.contains(part), "{refused}");
    }
    let rounds = TuneConfig { proximal: 0.1, ..config() };
    assert!(train(&cases, &rounds, &|| false).unwrap_err().to_string().contains("proximal"));
}

#[test]
fn a_text_is_cut_and_an_empty_one_still_has_a_state() {
    let model = model();
    let long = model.encode_text(&"word ".repeat(50), 10).unwrap();
    assert_eq!((long.run().len(), long.targets()), (10, 1));
    let empty = model.encode_text("", 10).unwrap();
    assert_eq!((empty.run().len(), empty.targets()), (1, 1));
    assert!(model.encode_text("word", 1).is_err());
}
