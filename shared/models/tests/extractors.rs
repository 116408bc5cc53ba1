//! Backbones and readers against PyTorch and transformers: small random networks always, the published weights where
//! `SHEAF_CACHE` names a folder that has them (`sheaf-agent model pull efficientnet-lite0` and `minilm-l6`).

use std::{collections::BTreeMap, path::PathBuf};

use sheaf_models::{
    Compute, Extractor, ExtractorOptions, Image, LanguageModel, ModelError,
    backbone::efficientnet::{Config, Weights},
    slm::decode::Decoder,
    weights,
};

use crate::fixture::{apart, asset, folder, ids, json, tensors};

fn files<const N: usize>(files: [(&str, PathBuf); N]) -> BTreeMap<String, PathBuf> {
    files.into_iter().map(|(role, path)| (role.to_owned(), path)).collect()
}

fn texts(expected: &serde_json::Value) -> Vec<&str> {
    expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn a_small_encoder_gives_the_reference_s_embeddings() {
    let at = |file: &str| folder("tiny_bert").join(file);
    let files = files([
        ("weights", at("model.safetensors")),
        ("tokenizer", at("tokenizer.json")),
        ("config", at("config.json")),
    ]);
    let options = ExtractorOptions { max_tokens: 16, image_size: 0 };
    let wanted = &tensors("tiny_bert/expected.safetensors").0["embeddings"];
    // Under the name that is shipped, and under one of somebody's own.
    for name in ["minilm-l6", "tiny-bert"] {
        let extractor = Extractor::load(name, &files, &options, &Compute::cpu()).unwrap();
        let ours = extractor.texts(&texts(&json("tiny_bert/expected.json"))).unwrap();
        assert_eq!(wanted.shape, [5, extractor.dim()]);
        assert!(apart(&ours, &wanted.data) < 1e-5, "{name}: {}", apart(&ours, &wanted.data));
    }
}

#[test]
fn sentences_lie_where_the_reference_encoder_puts_them() {
    let Some(model) = asset("minilm-l6", "safetensors") else { return };
    let beside = |file: &str| model.parent().unwrap().join(file);
    let files = files([
        ("weights", model.clone()),
        ("tokenizer", beside("tokenizer.json")),
        ("config", beside("config.json")),
    ]);
    let options = ExtractorOptions { max_tokens: 256, image_size: 0 };
    let extractor = Extractor::load("minilm-l6", &files, &options, &Compute::cpu()).unwrap();
    let expected = json("minilm/expected.json");
    let texts = texts(&expected);
    assert_eq!(texts.len(), 100);
    let ours = extractor.texts(&texts).unwrap();
    let wanted = &tensors("minilm/expected.safetensors").0["embeddings"].data;
    let cosines = ours.chunks_exact(384).zip(wanted.chunks_exact(384)).map(|(a, b)| {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    let lowest = cosines.fold(1.0, f64::min);
    eprintln!("lowest cosine of 100 sentences: {lowest:.7}");
    assert!(lowest > 0.9999, "{lowest}");
}

/// Images `[n, side, side, 3]` of whole numbers, each pixel repeated `times` by `times`.
fn enlarged(images: &[f32], side: usize, times: usize) -> Vec<Vec<u8>> {
    let wide = side * times;
    images
        .chunks_exact(side * side * 3)
        .map(|image| {
            let pixel = |at: usize| {
                let (y, x) = (at / wide / times, at % wide / times);
                std::array::from_fn::<u8, 3, _>(|c| image[(y * side + x) * 3 + c] as u8)
            };
            (0..wide * wide).flat_map(pixel).collect()
        })
        .collect()
}

#[test]
fn images_have_the_reference_s_features_and_the_flower_is_a_daisy() {
    const DAISY: usize = 985;
    let Some(file) = asset("efficientnet-lite0", "pth") else { return };
    let network = Weights::take(&mut weights::read(&file).unwrap(), &Config::lite0()).unwrap();
    let (inputs, wanted) = (images(), tensors("efficientnet_lite0/expected.safetensors"));
    let features = |size: usize, rgb: &[Vec<u8>]| {
        let extractor = Extractor::of_images(&network, size, &Compute::cpu()).unwrap();
        let views: Vec<_> = rgb.iter().map(|rgb| Image { height: size, width: size, rgb }).collect();
        extractor.images(&views).unwrap()
    };
    let relative = |ours: &[f32], name: &str| {
        let wanted = &wanted.0[name].data;
        let off = apart(ours, wanted) / wanted.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
        eprintln!("{name}: within {off:.1e} of the largest feature");
        assert!(off < 1e-4, "{name}: {off}");
    };
    relative(&features(96, &enlarged(&inputs["images"], 32, 3)), "features_96");
    let few = json("efficientnet_lite0/expected.json");
    let few: Vec<usize> = ids(&few["images_at_224"]).into_iter().map(|i| i as usize).collect();
    let few: Vec<f32> = few.iter().flat_map(|i| inputs["images"][i * 3072..][..3072].to_vec()).collect();
    relative(&features(224, &enlarged(&few, 32, 7)), "features_224");
    let daisy = features(192, &enlarged(&inputs["daisy"], 192, 1));
    relative(&daisy, "daisy_features");
    let logits = network.logits(&daisy);
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    assert_eq!(best, Some(DAISY));
}

/// The fixture's images are bytes, which the readers of weights leave out.
fn images() -> BTreeMap<String, Vec<f32>> {
    let bytes = std::fs::read(folder("efficientnet_lite0/images.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| file.tensor(name).unwrap().data().iter().map(|x| f32::from(*x)).collect();
    ["images", "daisy"].into_iter().map(|name| (name.to_owned(), tensor(name))).collect()
}

#[test]
fn a_torch_file_gives_its_values_whatever_their_strides() {
    let wanted = tensors("torch_parts/torch_expected.safetensors");
    assert!(wanted.0.len() > 5);
    let read = weights::read(&folder("torch_parts/legacy.pth")).unwrap();
    let mut left_out = Vec::new();
    for (name, tensor) in &wanted.0 {
        let Some(ours) = read.0.get(name) else {
            left_out.push(name.as_str());
            continue;
        };
        assert_eq!(ours.shape, tensor.shape, "{name}");
        assert!(apart(&ours.data, &tensor.data) < 1e-6, "{name}");
    }
    assert_eq!(left_out, ["counter"], "integers are no weights, all else is there");
    // The newer format is a zip archive of storages; no model of the catalogue comes in it.
    let error = weights::read(&folder("torch_parts/zip.pth")).expect_err("another format").to_string();
    assert!(error.contains("zip") && error.contains("safetensors"), "{error}");
}

#[test]
fn a_model_with_an_output_of_its_own_gives_the_reference_s_logits() {
    // It has no tokenizer; one of as many tokens stands in, since the ids are given.
    let home = tempfile::tempdir().unwrap();
    for (from, to) in
        [("tiny_untied/config.json", "config.json"), ("tiny_untied/model.safetensors", "model.safetensors")]
    {
        std::fs::copy(folder(from), home.path().join(to)).unwrap();
    }
    let missing = LanguageModel::load(home.path(), &Compute::cpu()).map(drop).expect_err("no tokenizer");
    assert!(matches!(missing, ModelError::Io { .. } | ModelError::Format { .. }), "{missing}");
    let vocabulary: serde_json::Map<_, _> = (0..64_u32).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] }
    });
    std::fs::write(home.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let model = LanguageModel::load(home.path(), &Compute::cpu()).unwrap();
    let sequence = ids(&json("tiny_untied/expected.json")["sequence"]);
    let mut decoder = Decoder::new(&model, None, sequence.len()).unwrap();
    let mut logits = decoder.begin(&sequence[..1]).unwrap();
    for token in &sequence[1..] {
        logits.extend(decoder.step(&[0], &[*token]).unwrap());
    }
    let wanted = &tensors("tiny_untied/expected.safetensors").0["logits"].data;
    assert!(apart(&logits, wanted) < 1e-3, "{}", apart(&logits, wanted));
}
