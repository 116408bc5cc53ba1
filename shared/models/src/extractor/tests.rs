use std::collections::BTreeMap;

use super::*;
use crate::backbone::efficientnet::{Config as ImageConfig, Stage};
use crate::encoder::minilm::Config as TextConfig;
use crate::weights::{HostTensor, TensorMap};

/// Numbers in [-1, 1) that a seed tells.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let mut x = seed as u64 * 2 + 1;
    (0..n)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

#[derive(Default)]
struct Random(TensorMap);

impl Random {
    fn add(&mut self, name: String, shape: &[usize]) {
        let fan = shape.iter().skip(1).product::<usize>() as f32;
        let seed = self.0.0.len();
        let data =
            numbers(shape.iter().product(), seed).into_iter().map(|x| x * (3.0 / fan).sqrt()).collect();
        self.0.0.insert(name, HostTensor { shape: shape.to_vec(), data });
    }

    fn conv(&mut self, conv: &str, norm: &str, shape: [usize; 4]) {
        self.add(format!("{conv}.weight"), &shape);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let data = numbers(shape[0], self.0.0.len()).into_iter();
            let positive = part.ends_with("var") || part == "weight";
            let data = data.map(|x| if positive { x.abs() + 0.5 } else { x }).collect();
            self.0.0.insert(format!("{norm}.{part}"), HostTensor { shape: vec![shape[0]], data });
        }
    }

    fn dense(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        self.add(format!("{name}.bias"), &[outputs]);
    }
}

/// A small network with every kind of block: without expansion, with strides 1 and 2, filters of 3 and 5, a residual, and
/// channels that fill no vector.
fn image_config() -> ImageConfig {
    let stage =
        |repeats, kernel, stride, expand, channels| Stage { repeats, kernel, stride, expand, channels };
    ImageConfig {
        stem: 20,
        stages: vec![
            stage(1, 3, 1, 1, 6),
            stage(2, 3, 2, 3, 10),
            stage(2, 5, 2, 6, 12),
            stage(1, 5, 1, 1, 12),
        ],
        head: 24,
        classes: 3,
    }
}

fn image_tensors(config: &ImageConfig) -> TensorMap {
    let mut random = Random::default();
    random.conv("_conv_stem", "_bn0", [config.stem, 3, 3, 3]);
    let (mut inputs, mut block) = (config.stem, 0);
    for stage in &config.stages {
        for _ in 0..stage.repeats {
            let (at, wide) = (format!("_blocks.{block}"), inputs * stage.expand);
            if stage.expand > 1 {
                random.conv(&format!("{at}._expand_conv"), &format!("{at}._bn0"), [wide, inputs, 1, 1]);
            }
            let side = stage.kernel;
            random.conv(&format!("{at}._depthwise_conv"), &format!("{at}._bn1"), [wide, 1, side, side]);
            random.conv(&format!("{at}._project_conv"), &format!("{at}._bn2"), [stage.channels, wide, 1, 1]);
            (inputs, block) = (stage.channels, block + 1);
        }
    }
    random.conv("_conv_head", "_bn1", [config.head, inputs, 1, 1]);
    random.dense("_fc", config.head, config.classes);
    random.0
}

/// The operations of burn, on the CPU (any name but `cpu` takes that path) and on every accelerator of this build.
fn by_burn() -> Vec<Compute> {
    let accelerators = crate::device::survey().into_iter().skip(1).filter_map(|report| report.compute);
    let cpu = Compute { name: "burn on the cpu".to_owned(), ..Compute::cpu() };
    std::iter::once(cpu).chain(accelerators).collect()
}

fn image_extractor(size: usize, compute: &Compute) -> Extractor {
    let config = image_config();
    let weights = efficientnet::Weights::take(&mut image_tensors(&config), &config).expect("whole weights");
    Extractor::of_images(&weights, size, compute).expect("a size in range")
}

fn text_extractor(max_tokens: usize, compute: &Compute) -> Extractor {
    let config = TextConfig {
        vocab_size: 40,
        hidden_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 40,
        max_position_embeddings: 32,
        ..TextConfig::minilm_l6()
    };
    let mut random = Random::default();
    random.add("embeddings.word_embeddings.weight".to_owned(), &[40, 24]);
    random.add("embeddings.position_embeddings.weight".to_owned(), &[32, 24]);
    random.add("embeddings.token_type_embeddings.weight".to_owned(), &[2, 24]);
    random.dense("embeddings.LayerNorm", 1, 24);
    for i in 0..2 {
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            random.dense(&format!("encoder.layer.{i}.attention.{part}"), 24, 24);
        }
        random.dense(&format!("encoder.layer.{i}.attention.output.LayerNorm"), 1, 24);
        random.dense(&format!("encoder.layer.{i}.intermediate.dense"), 24, 40);
        random.dense(&format!("encoder.layer.{i}.output.dense"), 40, 24);
        random.dense(&format!("encoder.layer.{i}.output.LayerNorm"), 1, 24);
    }
    for (name, tensor) in &mut random.0.0 {
        if name.ends_with("LayerNorm.weight") {
            tensor.shape = vec![24];
        }
    }
    let weights = minilm::Weights::take(&mut random.0, &config).expect("whole weights");
    let tokens = Tokens::decode(&tokenizer(), "t", max_tokens, 32, 40).expect("a good tokenizer");
    Extractor::of_texts(weights, tokens, compute)
}

/// WordPiece over single letters.
fn tokenizer() -> Vec<u8> {
    let mut vocab: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned).to_vec();
    vocab.extend(('a'..='r').flat_map(|c| [c.to_string(), format!("##{c}")]));
    let vocab: BTreeMap<_, _> = vocab.into_iter().enumerate().map(|(id, token)| (token, id)).collect();
    let special = |token: &str, id: usize| serde_json::json!({ "id": token, "ids": [id], "tokens": [token] });
    let piece = |token: &str| serde_json::json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "decoder": null,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing",
            "single": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]")],
            "pair": [piece("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, piece("[SEP]"),
                { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) } },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab }
    });
    json.to_string().into_bytes()
}

fn pictures(n: usize) -> Vec<(usize, usize, Vec<u8>)> {
    (0..n)
        .map(|i| {
            let (height, width) = (20 + i % 5 * 9, 33 + i % 3 * 11);
            let rgb = numbers(height * width * 3, i).into_iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
            (height, width, rgb)
        })
        .collect()
}

fn views(pictures: &[(usize, usize, Vec<u8>)]) -> Vec<Image<'_>> {
    pictures.iter().map(|(height, width, rgb)| Image { height: *height, width: *width, rgb }).collect()
}

fn sentences(n: usize) -> Vec<String> {
    let letter = |x: f32| if x > 0.7 { ' ' } else { (b'a' + ((x + 1.0) * 9.0) as u8) as char };
    (0..n).map(|i| numbers(1 + i * 7 % 40, i).into_iter().map(letter).collect()).collect()
}

fn bits(features: &[f32]) -> Vec<u32> {
    features.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn features_of_images_do_not_depend_on_the_batch() {
    let pictures = pictures(64);
    let images = views(&pictures);
    for size in [32, 49] {
        let extractor = image_extractor(size, &Compute::cpu());
        let together = bits(&extractor.images(&images).expect("good images"));
        for batch in [1, 7] {
            let apart = images.chunks(batch).map(|part| bits(&extractor.images(part).expect("good images")));
            assert_eq!(together, apart.collect::<Vec<_>>().concat(), "size {size}, in {batch}s");
        }
    }
}

#[test]
fn features_of_texts_do_not_depend_on_the_batch() {
    let sentences = sentences(64);
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let extractor = text_extractor(0, &Compute::cpu());
    let together = bits(&extractor.texts(&texts).expect("good texts"));
    for batch in [1, 7] {
        let apart = texts.chunks(batch).map(|part| bits(&extractor.texts(part).expect("good texts")));
        assert_eq!(together, apart.collect::<Vec<_>>().concat(), "in {batch}s");
    }
}

#[test]
fn the_operations_of_burn_agree() {
    let close = |a: &[f32], b: &[f32]| {
        let top = b.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
        let worst = a.iter().zip(b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(a.len() == b.len() && top > 0.01 && worst < 1e-4 * top, "{worst} of {top}");
    };
    let pictures = pictures(5);
    let sentences = sentences(9);
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    for other in by_burn() {
        for size in [32, 49, 100] {
            let run = |compute: &Compute| {
                image_extractor(size, compute).images(&views(&pictures)).expect("good images")
            };
            close(&run(&Compute::cpu()), &run(&other));
        }
        let run = |compute: &Compute| text_extractor(0, compute).texts(&texts).expect("good texts");
        close(&run(&Compute::cpu()), &run(&other));
        println!("small networks on {} agree with the cpu", other.name);
    }
}

#[test]
fn long_texts_are_cut_and_cost_little() {
    let extractor = text_extractor(16, &Compute::cpu());
    let text = |head: &str| format!("{head}{}", " abc".repeat(1 << 18));
    let cut = extractor.texts(&[&text("a b c")]).expect("a long text");
    assert_eq!(bits(&cut), bits(&extractor.texts(&["a b c abc abc abc abc abc abc"]).expect("a text")));
    for text in ["a".repeat(1 << 20), " ".repeat(1 << 20), "東".repeat(1 << 18), "\u{301}".repeat(1 << 18)] {
        assert_eq!(extractor.texts(&[&text]).expect("a long text").len(), extractor.dim());
    }
}

#[test]
fn an_empty_text_has_features_and_an_empty_image_an_error() {
    let extractor = text_extractor(0, &Compute::cpu());
    let norm: f32 = extractor.texts(&[""]).expect("two special tokens").iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-5);
    assert!(extractor.texts(&[]).expect("nothing").is_empty());
    assert!(extractor.images(&[]).is_err());

    let extractor = image_extractor(32, &Compute::cpu());
    let good = [9; 12];
    let images = [Image { height: 2, width: 2, rgb: &good }, Image { height: 0, width: 0, rgb: &[] }];
    let error = extractor.images(&images).expect_err("no pixels").to_string();
    assert!(error.contains("image 1") && error.contains("no pixels"), "{error}");
}

#[test]
fn damaged_weights_and_options_out_of_range_are_refused() {
    let config = image_config();
    let take = |change: &dyn Fn(&mut TensorMap)| {
        let mut tensors = image_tensors(&config);
        change(&mut tensors);
        efficientnet::Weights::take(&mut tensors, &config).map(drop).map_err(|error| error.to_string())
    };
    let name = "_blocks.1._depthwise_conv.weight";
    take(&|_| {}).expect("whole weights");
    for (change, word) in [
        (&(|t: &mut TensorMap| drop(t.0.remove(name))) as &dyn Fn(&mut TensorMap), "missing"),
        (&|t| t.0.get_mut(name).expect("there").shape[0] -= 1, "shape"),
        (&|t| t.0.get_mut(name).expect("there").data[5] = f32::NAN, "NaN"),
        (&|t| t.0.get_mut("_bn1.running_var").expect("there").data[0] = -1.0, "variance"),
    ] {
        let error = take(change).expect_err("damaged");
        assert!(error.contains(word), "{error}");
    }
    let load = |model: &str, image_size| {
        let options = ExtractorOptions { image_size, max_tokens: 0 };
        Extractor::load(model, &BTreeMap::new(), &options, &Compute::cpu()).expect_err("refused").to_string()
    };
    assert!(load("resnet", 0).contains("resnet"));
    assert!(load("efficientnet-lite0", 8).contains("image_size"));
    assert!(load("efficientnet-lite0", 0).contains("weights"));
    assert!(Tokens::decode(&tokenizer(), "t", 33, 32, 40).is_err());
    assert!(Tokens::decode(&tokenizer(), "t", 0, 32, 39).is_err());
    assert!(Tokens::decode(b"{}", "t", 0, 32, 40).is_err());
}
