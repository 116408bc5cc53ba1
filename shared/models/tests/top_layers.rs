//! Adapters on the topmost layers alone, on a small random Llama.

use sheaf_models::{
    Adapter, LanguageModel, LoraConfig, ModelError,
    train::{
        Encoded, Frozen, TuneConfig,
        optimizer::{Named, global_norm},
        per_record::{clipped_sum, clipped_sum_from},
        supervised::Tuner,
    },
};

use crate::{
    fixture::{apart, close, json, same},
    tiny_llama::{model, records},
};

fn config(layers: Option<usize>) -> LoraConfig {
    LoraConfig { rank: 2, alpha: 4.0, layers, ..LoraConfig::default() }
}

/// An adapter that changes something: no matrix is zero.
fn adapter(model: &LanguageModel, layers: Option<usize>) -> Adapter {
    let mut adapter = Adapter::new(model, &config(layers), 3).unwrap();
    for (name, tensor) in &mut adapter.tensors {
        for (at, value) in tensor.data.iter_mut().enumerate() {
            *value = 0.1 * ((at + name.len()) as f32).sin();
        }
    }
    adapter
}

fn difference(a: &Named, b: &Named) -> Named {
    let mut difference = a.clone();
    for (name, tensor) in &mut difference {
        tensor.data.iter_mut().zip(&b[name].data).for_each(|(a, b)| *a -= b);
    }
    difference
}

fn encoded() -> Vec<Encoded> {
    records(&json("tiny_llama/expected.json"))
}

#[test]
fn the_top_layer_s_gradients_are_those_of_an_adapter_that_does_nothing_below() {
    let (model, records) = (model(), encoded());
    let top = adapter(&model, Some(1));
    assert!(top.tensors.keys().all(|name| name.contains(".layers.1.")) && top.tensors.len() == 4);
    let mut all = Adapter::new(&model, &config(None), 3).unwrap();
    assert_eq!(all.tensors.len(), 8);
    assert_eq!(Adapter::new(&model, &config(Some(2)), 3).unwrap().tensors, all.tensors);
    all.tensors.extend(top.tensors.clone());
    let each: Vec<&Encoded> = records.iter().collect();
    let (ours, wanted) =
        (clipped_sum(&model, &top, &each, 1e9).unwrap(), clipped_sum(&model, &all, &each, 1e9).unwrap());
    assert_eq!(ours.losses, wanted.losses);
    assert_eq!(ours.sum.len(), 4);
    for (name, tensor) in &ours.sum {
        assert!(same(tensor, &wanted.sum[name], 1e-6), "{name}");
        assert!(apart(&tensor.data, &vec![0.0; tensor.data.len()]) > 1e-4, "{name}");
    }
    let step = |recompute| {
        let config = TuneConfig { recompute, ..TuneConfig::default() };
        let mut tuner = Tuner::new(&model, &top, &records, &config).unwrap();
        tuner.step().unwrap();
        tuner.finish().adapter
    };
    assert_eq!(step(false), step(true), "a block that is run again is the right one");
}

#[test]
fn files_name_the_layers_and_a_model_with_fewer_is_refused() {
    let model = model();
    let top = adapter(&model, Some(1));
    let out = tempfile::tempdir().unwrap();
    top.save(out.path(), "tiny").unwrap();
    let path = out.path().join("adapter_config.json");
    let written: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(written["layers_to_transform"], serde_json::json!([1]));
    assert_eq!(Adapter::load(out.path()).unwrap(), top);
    // peft also writes a single number.
    let mut number = written.clone();
    number["layers_to_transform"] = serde_json::json!(1);
    std::fs::write(&path, number.to_string()).unwrap();
    assert_eq!(Adapter::load(out.path()).unwrap(), top);
    // Of a lower layer alone: it is one layer, but not the topmost.
    let mut lower = top.clone();
    lower.tensors =
        top.tensors.into_iter().map(|(name, t)| (name.replace(".layers.1.", ".layers.0."), t)).collect();
    assert!(lower.to_device(model.config(), model.device()).is_err());
    let refused = Adapter::new(&model, &config(Some(3)), 1).unwrap_err().to_string();
    assert!(refused.contains("layers: 3") && refused.contains("only 2"), "{refused}");
    assert!(Adapter::new(&model, &config(Some(0)), 1).is_err());
}

#[test]
fn what_is_computed_once_gives_the_same_gradients_whatever_stands_beside_a_record() {
    let (model, mut records) = (model(), encoded());
    records.push(Encoded { tokens: vec![5, 9, 7], first_target: 1 });
    let lengths: Vec<usize> = records.iter().map(|record| record.tokens.len()).collect();
    assert!(lengths.iter().any(|length| *length != lengths[0]), "there is padding");
    let top = adapter(&model, Some(1));
    let frozen = Frozen::compute(&model, &top.config, &records, &|| false).unwrap();
    let all: Vec<usize> = (0..records.len()).rev().collect();
    for rows in [all.clone(), vec![records.len() - 1], vec![0, records.len() - 1]] {
        let named: Vec<&Encoded> = rows.iter().map(|row| &records[*row]).collect();
        let wanted = clipped_sum(&model, &top, &named, 0.05).unwrap();
        // Without states it is the same code from the first layer on.
        let plain = clipped_sum_from(&model, &top, &Frozen::none(&records), &rows, 0.05).unwrap();
        assert_eq!((&plain.sum, &plain.norms), (&wanted.sum, &wanted.norms));
        let ours = clipped_sum_from(&model, &top, &frozen, &rows, 0.05).unwrap();
        let figures = ours.norms.iter().chain(&ours.losses).zip(wanted.norms.iter().chain(&wanted.losses));
        assert!(figures.into_iter().all(|(a, b)| (a - b).abs() < 1e-5 * b.abs()));
        // Of the whole gradient: a matrix whose part in it is tiny differs by its rounding.
        let most = 1e-5 * global_norm(&wanted.sum);
        assert!(global_norm(&difference(&ours.sum, &wanted.sum)) < most);
    }
    let of_all = adapter(&model, None);
    let refused = clipped_sum_from(&model, &of_all, &frozen, &all, 1.0).unwrap_err().to_string();
    assert!(refused.contains("layer 0") && refused.contains("layer 1"), "{refused}");
    let nothing_below = Frozen::compute(&model, &of_all.config, &records, &|| true).unwrap();
    assert!(clipped_sum_from(&model, &of_all, &nothing_below, &all, 1.0).is_ok());
    let stopped = Frozen::compute(&model, &top.config, &records, &|| true);
    assert!(matches!(stopped.err(), Some(ModelError::Stopped)));
}

#[test]
fn tuning_takes_the_same_steps_from_what_is_computed_once() {
    let (model, records) = (model(), encoded());
    let mut top = adapter(&model, Some(1));
    top.config.dropout = 0.2;
    let config = TuneConfig { epochs: 4.0, batch: 2, learning_rate: 1e-2, ..TuneConfig::default() };
    let tuned = |frozen: bool| {
        let mut tuner = Tuner::new(&model, &top, &records, &config).unwrap();
        if frozen {
            tuner.freeze(&|| false).unwrap();
        }
        let mut losses = Vec::new();
        while let Some(step) = tuner.step().unwrap() {
            losses.push(step.loss);
        }
        (losses, tuner.finish().adapter.tensors)
    };
    let ((ours, tensors), (wanted, others)) = (tuned(true), tuned(false));
    assert!(
        ours.len() > 4 && ours.iter().zip(&wanted).all(|(a, b)| close(*a, *b, 1e-5)),
        "{ours:?} {wanted:?}"
    );
    assert!(
        global_norm(&difference(&tensors, &others)) < 1e-3 * global_norm(&difference(&others, &top.tensors))
    );
}

#[test]
fn pieces_have_every_record_once_and_shrink_with_its_length() {
    let record = |length: usize| Encoded { tokens: vec![1; length], first_target: 1 };
    let records: Vec<Encoded> = [900, 12, 30, 2000, 12, 30, 12, 600].into_iter().map(record).collect();
    let frozen = Frozen::none(&records);
    let pieces = frozen.pieces((0..records.len()).collect(), 3);
    assert_eq!(pieces, [vec![1, 4, 6], vec![2, 5], vec![7], vec![0], vec![3]]);
    assert_eq!(frozen.pieces(vec![5, 1], 64), [vec![1, 5]]);
    assert!(frozen.pieces(Vec::new(), 3).is_empty());
}
