//! Rounds of a small random Llama, without a coordinator.

use std::path::Path;

use sheaf_data::Schema;
use sheaf_models::Compute;
use sheaf_proto::fedavg::{AdapterSpec, Head, Optimizer, Tensor, Training};

use super::*;

pub(super) fn model() -> LanguageModel {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures");
    LanguageModel::load(&fixtures.join("tiny_llama"), &Compute::cpu()).unwrap()
}

pub(super) fn spec(round: u32, mu: f64) -> (RoundSpec, LoraSpec) {
    let lora = LoraSpec {
        schema: Schema::default(),
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: AdapterSpec {
            rank: 2,
            alpha: 4.0,
            dropout: 0.0,
            targets: vec!["q_proj".to_owned(), "v_proj".to_owned()],
            layers: None,
        },
        max_tokens: 32,
    };
    let training = Training {
        epochs: 2,
        batch: 2,
        learning_rate: 1e-2,
        optimizer: Optimizer::AdamW,
        mu,
        weight_decay: 0.0,
        seed: 7,
    };
    (RoundSpec { round, training, max_rows: 0, privacy: None, head: Head::Lora(lora.clone()) }, lora)
}

fn examples(words: &[&str]) -> Vec<Example> {
    words.iter().map(|word| Example { prompt: (*word).to_owned(), response: word.repeat(3) }).collect()
}

fn round(number: u32, mu: f64, input: Option<&[u8]>, words: &[&str]) -> Result<Update, AgentError> {
    let (spec, lora) = spec(number, mu);
    tune(&spec, &lora, input, &examples(words), &model(), &|| false)
}

/// The mean of two updates, as the coordinator makes it.
fn mean(a: &Update, b: &Update) -> Parameters {
    let half = |(x, y): (&f32, &f32)| f32::midpoint(*x, *y);
    let tensors = a.parameters.iter().zip(b.parameters.values());
    tensors
        .map(|((name, a), b)| {
            let data = a.data.iter().zip(&b.data).map(half).collect();
            (name.clone(), Tensor { shape: a.shape.clone(), data })
        })
        .collect()
}

pub(super) fn distance(a: &Parameters, b: &Parameters) -> f32 {
    let pairs = a.values().zip(b.values()).flat_map(|(a, b)| a.data.iter().zip(&b.data));
    pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

#[test]
fn rounds_of_two_sites_lower_the_loss() {
    let sites = [["money", "the card"], ["a bank", "open"]];
    let mut input: Option<Vec<u8>> = None;
    let mut losses = Vec::new();
    for number in 1..=4 {
        let updates = sites.map(|words| round(number, 0.0, input.as_deref(), &words).unwrap());
        let [one, two] = [&updates[0], &updates[1]].map(|update| update.measured.unwrap());
        assert_eq!((one.rows, two.rows), (2, 2));
        losses.push(f64::midpoint(one.loss, two.loss));
        input = Some(mean(&updates[0], &updates[1]).encode().unwrap());
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
}

#[test]
fn a_round_repeats_to_the_bit_and_another_round_is_another() {
    let words = ["money", "the card", "a bank"];
    let first = round(1, 0.0, None, &words).unwrap();
    assert_eq!(first, round(1, 0.0, None, &words).unwrap());
    assert_ne!(first.parameters, round(2, 0.0, None, &words).unwrap().parameters);
}

#[test]
fn the_proximal_term_holds_a_round_near_its_start() {
    let words = ["money", "the card"];
    let start = round(1, 0.0, None, &words).unwrap().parameters;
    let bytes = start.clone().encode().unwrap();
    let far = round(2, 0.0, Some(&bytes), &words).unwrap().parameters;
    let near = round(2, 100.0, Some(&bytes), &words).unwrap().parameters;
    assert!(distance(&near, &start) < 0.9 * distance(&far, &start));
}

#[test]
fn parameters_that_are_no_adapter_of_the_model_are_refused() {
    let words = ["money"];
    let mut start = round(1, 0.0, None, &words).unwrap().parameters;
    let name = start.keys().next().unwrap().clone();
    let tensor = start.get_mut(&name).unwrap();
    tensor.shape.swap(0, 1);
    let error = round(2, 0.0, Some(&start.clone().encode().unwrap()), &words).unwrap_err().to_string();
    assert!(error.contains(&name) || error.contains("lora"), "{error}");
    start.remove(&name);
    assert!(round(2, 0.0, Some(&start.encode().unwrap()), &words).is_err());
    assert!(matches!(round(2, 0.0, Some(b"rubbish"), &words), Err(AgentError::Task(_))));
}

#[test]
fn a_site_without_records_and_a_cancelled_round_say_so() {
    assert!(matches!(round(1, 0.0, None, &[]), Err(AgentError::Data(_))));
    let (spec, lora) = spec(1, 0.0);
    let stopped = tune(&spec, &lora, None, &examples(&["a", "b"]), &model(), &|| true);
    assert!(matches!(stopped, Err(AgentError::Cancelled)));
}

#[test]
fn another_model_than_the_catalogue_s_is_refused() {
    for hash in [None, Some("00")] {
        let refused = models::check_hash("smollm2-135m", hash);
        assert!(matches!(refused, Err(AgentError::Denied(_))), "{refused:?}");
    }
    assert!(models::check_hash("no-such-model", Some("00")).is_err());
}
