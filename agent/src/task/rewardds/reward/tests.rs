//! What a reward proxy learns from pairs, and what a privacy unit can move of it.

use std::path::{Path, PathBuf};

use sheaf_data::{AssetStore, Backbone, Schema};
use sheaf_models::{Adapter, Compute, DeviceChoice};
use sheaf_privacy::{
    Delta, Epsilon, Event, Rate, Sigma,
    ledger::{Cap, Digest, PrivacyUnit},
};
use sheaf_proto::{
    fedavg::AdapterSpec,
    rewardds::{Generator, Round},
};

use super::*;
use crate::budget::Budget;

/// Features of a toy response.
const WIDTH: usize = 4;

/// -0.5 to 0.5, the same for the same place.
fn jitter(record: usize, response: usize, value: usize) -> f32 {
    let place = ((record * 3 + response) * 4096 + value + 1) as u32;
    let mixed = place.wrapping_mul(2_654_435_761);
    let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519);
    ((mixed ^ (mixed >> 13)) % 1000) as f32 / 1000.0 - 0.5
}

/// Features of three responses a record: the first value says which is better, the others say nothing.
fn features(first: usize, records: usize, width: usize) -> Vec<Vec<f32>> {
    let of = |place: usize| {
        let (record, response) = (first + place / 3, place % 3);
        let mut values: Vec<f32> = (0..width).map(|value| 0.5 * jitter(record, response, value)).collect();
        values[0] += 1.0 - response as f32;
        values
    };
    (0..3 * records).map(of).collect()
}

fn compared(responses: [&str; 3]) -> Compared {
    Compared { query: "Is it a fever?".to_owned(), responses: responses.map(str::to_owned) }
}

/// Records whose responses are features made by hand.
struct Toy {
    compared: Vec<Compared>,
    responses: Responses<'static>,
}

impl Toy {
    fn of(features: Vec<Vec<f32>>) -> Self {
        let compared = vec![compared(["own", "proxy", "untuned"]); features.len() / 3];
        Self { compared, responses: Responses(Read::Embedding(features)) }
    }

    fn new(first: usize, records: usize) -> Self {
        Self::of(features(first, records, WIDTH))
    }

    fn corpus(&self) -> Corpus<'_> {
        Corpus { compared: &self.compared, responses: &self.responses }
    }

    /// The share of all pairs that a proxy puts in the right order.
    fn right(&self, proxy: &Named) -> f64 {
        let scores = self.responses.scores(proxy, &|| false).unwrap();
        let (mut right, mut all) = (0, 0);
        for (record, scores) in self.compared.iter().zip(scores.chunks_exact(3)) {
            for (_, (better, worse)) in record.pairs() {
                right += usize::from(scores[better] > scores[worse]);
                all += 1;
            }
        }
        right as f64 / f64::from(all)
    }
}

/// The mean loss over a record's pairs.
fn loss(corpus: &Corpus<'_>, proxy: &Named, record: usize) -> f64 {
    let scores = corpus.responses.scores(proxy, &|| false).unwrap();
    let of = |(_, (better, worse)): (usize, (usize, usize))| {
        bradley_terry(scores[3 * record + better], scores[3 * record + worse]).0
    };
    let losses: Vec<f64> = corpus.compared[record].pairs().map(of).collect();
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

/// A proxy that has learnt nothing.
fn start(width: usize) -> Named {
    EmbeddingHead::linear(width, 1).parameters().clone()
}

fn adapter() -> AdapterSpec {
    let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    AdapterSpec { rank: 2, alpha: 4.0, dropout: 0.0, targets, layers: Some(1) }
}

fn embedding() -> RewardForm {
    let encoder = Backbone { model: "minilm-l6".to_owned(), sha256: None, image_size: 0, max_tokens: 0 };
    RewardForm::Embedding { encoder }
}

fn spec(epochs: usize, learning_rate: f64) -> RewardSpec {
    RewardSpec {
        schema: Schema::default(),
        generator: Generator {
            model: "tiny".to_owned(),
            model_sha256: String::new(),
            adapter: adapter(),
            control: "Q:".to_owned(),
            max_tokens: 64,
            answer_tokens: 16,
        },
        reward: embedding(),
        tuning: Tuning { epochs, batch: 8, learning_rate, seed: 3 },
        alone: true,
        round: Round { round: 1, max_rows: 0, privacy: None },
    }
}

fn training(clip: f64, units: u64, steps: u64) -> NoisyTraining {
    NoisyTraining { clip, units, steps, rest: steps }
}

/// A reservation, and the folder of the ledger that it is written in.
struct Draws {
    reservation: Reservation,
    _folder: tempfile::TempDir,
}

impl Draws {
    fn new(rate: f64, sigma: f64, steps: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget::open(folder.path()).unwrap();
        let (dataset, delta) = (Digest::of(b"these records"), Delta::new(1e-3).unwrap());
        let (privacy_unit, epsilon) = (PrivacyUnit::new("id").unwrap(), Epsilon::new(1e9).unwrap());
        budget.set_cap(Cap { dataset, privacy_unit, epsilon, delta }).unwrap();
        let (rate, sigma) = (Rate::new(rate).unwrap(), Sigma::new(sigma).unwrap());
        let event = Event::PoissonGaussian { rate, sigma, steps };
        let privacy = PrivacySpec { unit: "id".to_owned(), delta, event, later: Vec::new(), training: None };
        let purse = budget.purse("run-1", &"ab".repeat(32), dataset, &privacy).unwrap();
        Self { reservation: purse.reserve(steps, steps).unwrap(), _folder: folder }
    }
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn slopes_are_those_of_the_mean_over_pairs_that_differ() {
    let near = |found: Vec<f64>, expected: [f64; 3]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
        assert!(found.iter().sum::<f64>().abs() < 1e-12, "what one gains others lose: {found:?}");
    };
    let scores = [0.7, -0.2, 0.1];
    let doubt = |margin: f64| 1.0 / (1.0 + margin.exp());
    let (first, second, third) = (doubt(0.6), doubt(0.9), doubt(-0.3));
    let expected = [-(first + second) / 3.0, (second - third) / 3.0, (first + third) / 3.0];
    near(slopes(&compared(["a", "b", "c"]), &scores), expected);
    let expected = [-first / 2.0, -third / 2.0, f64::midpoint(first, third)];
    near(slopes(&compared(["a", "a", "c"]), &scores), expected);
    near(slopes(&compared(["a", "b", "a"]), &scores), [-second / 2.0, (second - third) / 2.0, third / 2.0]);
    near(slopes(&compared(["a", "b", "b"]), &[0.0; 3]), [-0.5, 0.25, 0.25]);
    assert_eq!(slopes(&compared(["a", "a", "a"]), &scores), [0.0; 3]);
}

#[test]
fn a_records_gradient_is_that_of_the_mean_loss_over_its_pairs() {
    let texts = [["a", "b", "c"], ["a", "a", "c"], ["a", "a", "a"], ["a", "b", "a"]];
    let toy = Toy { compared: texts.map(compared).to_vec(), ..Toy::new(7, texts.len()) };
    let mut proxy = start(WIDTH);
    proxy.get_mut(REWARD_WEIGHT).unwrap().data = vec![0.5, -0.75, 0.25, 1.0];
    for record in 0..texts.len() {
        let gradient = toy.corpus().gradient(&proxy, record).unwrap();
        let found = &gradient[REWARD_WEIGHT];
        assert_eq!((gradient.len(), &found.shape), (1, &proxy[REWARD_WEIGHT].shape));
        for (at, slope) in found.data.iter().enumerate() {
            let moved = |by: f32| {
                let mut moved = proxy.clone();
                moved.get_mut(REWARD_WEIGHT).unwrap().data[at] += by;
                loss(&toy.corpus(), &moved, record)
            };
            let step = 1.0_f32 / 128.0;
            let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!((numeric - f64::from(*slope)).abs() < 1e-4, "{record} {at}: {numeric} {slope}");
        }
    }
    let equal = toy.corpus().gradient(&proxy, 2).unwrap();
    assert!(equal[REWARD_WEIGHT].data.iter().all(|slope| *slope == 0.0), "nothing to compare");
}

#[test]
fn tuning_without_noise_learns_what_is_preferred() {
    let (toy, held_out, spec) = (Toy::new(0, 40), Toy::new(1000, 20), spec(10, 0.05));
    let tuned = |spec: &RewardSpec| exact(spec, start(WIDTH), &toy.corpus(), &|| false).unwrap();
    let proxy = tuned(&spec);
    assert_eq!(held_out.right(&start(WIDTH)), 0.0, "equal scores are no order");
    assert_eq!(held_out.right(&proxy), 1.0);
    assert_eq!(tuned(&spec), proxy, "it repeats to the bit");
    let mut next = spec.clone();
    next.round.round = 2;
    assert_ne!(tuned(&next), proxy, "another round takes the records in another order");
    let stopped = exact(&spec, start(WIDTH), &toy.corpus(), &|| true);
    assert!(matches!(stopped, Err(AgentError::Cancelled)));
    let none = exact(&spec, start(WIDTH), &Toy::new(0, 0).corpus(), &|| false).unwrap();
    assert_eq!(none, start(WIDTH), "without records there is nothing to learn");
}

#[test]
fn proxies_of_another_form_are_refused() {
    let toy = Toy::new(0, 1);
    let mut other = start(WIDTH);
    other.insert("b".to_owned(), HostTensor::zeros(&[1, 1]));
    for proxy in [Named::new(), other] {
        assert!(matches!(toy.responses.scores(&proxy, &|| false), Err(AgentError::Task(_))));
    }
    assert!(toy.responses.scores(&start(WIDTH + 1), &|| false).is_err(), "of another encoder");
}

/// With the least noise that plans may ask for.
#[test]
fn tuning_with_little_noise_learns_what_is_preferred_and_makes_every_step() {
    let (toy, held_out, steps) = (Toy::new(0, 40), Toy::new(1000, 20), 60);
    let (mut draws, units) = (Draws::new(0.5, 0.3, steps), Units::each_row(40));
    let training = training(1.0, 40, steps);
    let of = (&toy.corpus(), &units);
    let proxy =
        noisy(&spec(1, 0.05), &training, start(WIDTH), of, &mut draws.reservation, &|| false).unwrap();
    // In 300 simulations the least margin of a pair was eight times its deviation away from 0.
    assert_eq!(held_out.right(&proxy), 1.0, "{proxy:?}");
    assert_eq!((draws.reservation.issued(), draws.reservation.remaining()), (steps, 0));
}

/// Adam divides by a gradient's size, and by this beside it: gradients that are as small move by less than the rate, and by how
/// much less tells their size.
const SMALL: f64 = 1e-8;

/// The noised mean of one step in which every unit is, from how far it moves a proxy of zeros.
fn one_step(toy: &Toy, units: &Units, sigma: f64, (public, width): (u64, usize)) -> Vec<f64> {
    let (mut draws, training) = (Draws::new(1.0, sigma, 1), training(SMALL, public, 1));
    let of = (&toy.corpus(), units);
    let proxy = noisy(&spec(1, 1.0), &training, start(width), of, &mut draws.reservation, &|| false).unwrap();
    let gradient = |value: &f32| {
        let share = f64::from(value.abs());
        -f64::from(value.signum()) * SMALL * share / (1.0 - share)
    };
    proxy[REWARD_WEIGHT].data.iter().map(gradient).collect()
}

/// What a unit of these records may put into a step's sum: their mean gradient, clipped.
fn of_unit(toy: &Toy, records: &[usize]) -> Vec<f64> {
    let mut mean = vec![0.0; WIDTH];
    for record in records {
        let gradient = toy.corpus().gradient(&start(WIDTH), *record).unwrap();
        for (sum, value) in mean.iter_mut().zip(&gradient[REWARD_WEIGHT].data) {
            *sum += f64::from(*value) / records.len() as f64;
        }
    }
    let clip = SMALL * (1.0 - 1.0 / 1024.0);
    let factor = clip / length(&mean).max(clip);
    mean.into_iter().map(|value| factor * value).collect()
}

#[test]
fn a_units_records_are_averaged_and_then_clipped_as_one() {
    // One record weighs five times as much: clipped by itself it would not.
    let mut features = features(50, 4, WIDTH);
    features[..3].iter_mut().flatten().for_each(|value| *value *= 5.0);
    let toy = Toy::of(features);
    let found = one_step(&toy, &Units::by_label(&["a", "a", "b", "a"]), 1e-3, (2, WIDTH));
    let units = [of_unit(&toy, &[0, 1, 3]), of_unit(&toy, &[2])];
    for ((found, a), b) in found.iter().zip(&units[0]).zip(&units[1]) {
        assert!((found - (a + b) / 2.0).abs() < 0.005 * SMALL, "{found:e} {a:e} {b:e}");
    }
}

#[test]
fn a_unit_weighs_at_most_the_clip_however_many_records_it_has() {
    let toy = Toy::of(vec![features(5, 1, WIDTH); 100].concat());
    let weigh = |units: &Units| length(&one_step(&toy, units, 1e-3, (1, WIDTH))) / SMALL;
    let (one, many) = (weigh(&Units::by_label(&[0; 100])), weigh(&Units::each_row(100)));
    assert!((0.98..1.02).contains(&one), "a hundred records of one person: {one}");
    assert!((95.0..105.0).contains(&many), "a hundred persons: {many}");
}

#[test]
fn a_record_whose_gradient_is_no_number_is_left_out_without_a_word() {
    let mut features = features(5, 2, WIDTH);
    features[3][0] = f32::NAN;
    let toy = Toy::of(features);
    let found = one_step(&toy, &Units::each_row(2), 1e-3, (1, WIDTH));
    for (found, expected) in found.iter().zip(of_unit(&toy, &[0])) {
        assert!((found - expected).abs() < 0.01 * SMALL, "{found:e} {expected:e}");
    }
}

#[test]
fn a_site_without_records_sends_noise_like_any_other() {
    let width = 2000;
    let none = one_step(&Toy::new(0, 0), &Units::by_label::<usize>(&[]), 1.0, (1, width));
    let some = one_step(&Toy::of(features(0, 3, width)), &Units::each_row(3), 1.0, (1, width));
    for found in [none, some] {
        // Of 2000 numbers: six times the error.
        let deviation = length(&found) / (width as f64).sqrt() / SMALL;
        assert!((deviation - 1.0).abs() < 0.1, "{deviation}");
    }
}

#[test]
fn steps_are_those_that_were_reserved() {
    let (toy, units, mut draws) = (Toy::new(0, 0), Units::by_label::<usize>(&[]), Draws::new(0.5, 1.0, 10));
    let mut round = |stop: bool| {
        let (of, training) = ((&toy.corpus(), &units), training(1.0, 40, 4));
        let made = noisy(&spec(1, 0.05), &training, start(WIDTH), of, &mut draws.reservation, &|| stop);
        (made, draws.reservation.remaining())
    };
    assert!(matches!(round(true), (Err(AgentError::Cancelled), 10)), "nothing is drawn for nothing");
    let (first, left) = round(false);
    assert_eq!(left, 6, "also without records");
    let moved = first.unwrap()[REWARD_WEIGHT].data.iter().map(|value| value.abs()).fold(0.0, f32::max);
    assert!(moved > 1e-3, "Adam moves by the learning rate whatever the gradient");
    assert!(matches!(round(false), (Ok(_), 2)));
    assert!(matches!(round(false), (Err(AgentError::Ledger(_)), 0)), "no step without a draw");
}

#[test]
fn the_result_is_the_mean_over_the_later_half_of_the_steps() {
    let one =
        |value: f32| Named::from([("w".to_owned(), HostTensor { shape: vec![1, 1], data: vec![value] })]);
    let after = |gradient: f32, steps: usize, taken: usize| {
        let mut descent = Descent::new(one(2.0), 0.5, steps);
        (0..taken).for_each(|_| descent.step(&one(gradient)));
        descent.finish()["w"].data[0]
    };
    // A gradient that stays the same moves by the rate: 1.5, 1.0, 0.5, 0.0.
    for (steps, expected) in [(1, 1.5), (2, 1.0), (3, 0.75), (4, 0.25)] {
        let found = after(3.0, steps, steps);
        assert!((found - expected).abs() < 1e-3, "{steps}: {found}");
        assert!((after(0.0, steps, steps) - 2.0).abs() < 1e-6, "without a gradient nothing moves");
    }
    assert_eq!(after(3.0, 4, 0), 2.0, "no step, no mean");
}

fn tiny() -> LanguageModel {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
    LanguageModel::load(&fixture, &Compute::cpu()).unwrap()
}

#[test]
fn a_language_model_learns_too_and_its_gradients_are_shaped_as_the_proxy() {
    let model = tiny();
    let form = RewardForm::LanguageModel { adapter: adapter(), max_tokens: 48 };
    let records = [
        compared(["Rest well.", "It is the body.", "x x x x"]),
        compared(["Keep to the bed.", "Keep the patient.", "x y z"]),
    ];
    let all = texts(&records);
    let sequences = Sequences::of(&form, &model, &all).unwrap();
    let assets = AssetStore::new(PathBuf::from("unused"), None);
    let resources = Resources::new(&assets, Path::new("unused"), None, DeviceChoice::Cpu);
    let responses = Responses::of(&form, &model, (&all, &sequences), &resources, &|| false).unwrap();
    let corpus = Corpus { compared: &records, responses: &responses };
    let drawn = Adapter::new(&model, &lora::config(&adapter()), 1).unwrap();
    let start = RewardModel::untrained(&model, &drawn).parameters();

    let shapes = |named: &Named| -> Vec<(String, Vec<usize>, usize)> {
        named.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone(), tensor.data.len())).collect()
    };
    assert_eq!(shapes(&corpus.gradient(&start, 1).unwrap()), shapes(&start), "as the clipped sum takes them");
    let learnt = exact(&spec(30, 1e-2), start.clone(), &corpus, &|| false).unwrap();
    let mean = |proxy: &Named| f64::midpoint(loss(&corpus, proxy, 0), loss(&corpus, proxy, 1));
    assert!(mean(&learnt) < 0.9 * mean(&start), "{} {}", mean(&learnt), mean(&start));

    let (mut draws, units) = (Draws::new(1.0, 1.0, 1), Units::each_row(2));
    let training = training(1.0, 2, 1);
    let noised =
        noisy(&spec(1, 1e-3), &training, start, (&corpus, &units), &mut draws.reservation, &|| false);
    assert_eq!(shapes(&noised.unwrap()), shapes(&learnt));
}

#[test]
fn of_what_is_too_long_the_response_is_kept() {
    let model = tiny();
    let form = RewardForm::LanguageModel { adapter: adapter(), max_tokens: 32 };
    let query = format!("{}Is it a fever,\n please?", "The patient asks. ".repeat(20));
    let long = "Rest well. ".repeat(30);
    let all = [(query.as_str(), "Rest well."), ("Is it?", long.as_str()), (query.as_str(), long.as_str())];
    let sequences = Sequences::of(&form, &model, &all).unwrap();
    let ends =
        ["Is it a fever, please?\nRest well.", "Is it?\nRest well. Rest well.", "?\nRest well. Rest well."];
    for (Encoded { tokens, .. }, end) in sequences.0.iter().zip(ends) {
        // What begins a text and what ends it, beside at most so many.
        assert!(tokens.len() <= 33, "{}", tokens.len());
        let text = model.vocabulary().decode(tokens).unwrap();
        assert!(text.ends_with(end), "{text:?}");
    }
    assert!(Sequences::of(&embedding(), &model, &all).unwrap().0.is_empty(), "an encoder reads texts");
}
