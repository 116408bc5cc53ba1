//! Adapters on the topmost layers alone, on a small random Llama.

use sheaf_models::{
    Adapter, LanguageModel, LoraConfig,
    train::{Encoded, TuneConfig, per_record::clipped_sum, supervised::Tuner},
};

use crate::{
    fixture::{apart, json, same},
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
