//! Against finite differences, plain gradient descent in f64, and averaging by hand.

use rand::Rng;

use super::*;

fn training() -> HeadTraining {
    HeadTraining {
        epochs: 1,
        batch: 0,
        learning_rate: 0.5,
        rule: Rule::Sgd { momentum: 0.0 },
        weight_decay: 0.0,
        proximal: 0.0,
        seed: 7,
    }
}

/// Rows of `classes` classes around different centres.
fn data(rows: usize, dim: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut unit = || (random.next_u64() >> 40) as f32 / (1 << 24) as f32;
    let labels: Vec<u32> = (0..rows).map(|row| (row % classes) as u32).collect();
    let centred = |label: u32, column: usize, noise: f32| {
        noise - 0.5 + if column % classes == label as usize { 1.0 } else { 0.0 }
    };
    let features = labels
        .iter()
        .flat_map(|label| (0..dim).map(|c| centred(*label, c, unit())).collect::<Vec<_>>())
        .collect();
    (features, labels)
}

fn some_head(dim: usize, classes: usize) -> Head {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut unit = || (random.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    let weight = (0..dim * classes).map(|_| unit()).collect();
    Head { dim, classes, weight, bias: (0..classes).map(|_| unit()).collect() }
}

/// Mean cross-entropy in f64, by the definition.
fn loss(weight: &[f64], bias: &[f64], rows: Rows<'_>, dim: usize) -> f64 {
    let classes = bias.len();
    let mut sum = 0.0;
    for (x, label) in rows.features.chunks_exact(dim).zip(rows.labels) {
        let scores: Vec<f64> = (0..classes)
            .map(|c| {
                bias[c]
                    + x.iter().enumerate().map(|(d, x)| f64::from(*x) * weight[d * classes + c]).sum::<f64>()
            })
            .collect();
        let total: f64 = scores.iter().map(|s| s.exp()).sum();
        sum += total.ln() - scores[*label as usize];
    }
    sum / rows.labels.len() as f64
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Central differences of [`loss`]: weights, then the bias.
fn differences(head: &Head, rows: Rows<'_>) -> Vec<f64> {
    const H: f64 = 1e-5;
    let (weight, bias) = (wide(&head.weight), wide(&head.bias));
    let at = |index: usize, shift: f64| {
        let (mut weight, mut bias) = (weight.clone(), bias.clone());
        match index.checked_sub(weight.len()) {
            None => weight[index] += shift,
            Some(class) => bias[class] += shift,
        }
        loss(&weight, &bias, rows, head.dim)
    };
    (0..weight.len() + bias.len()).map(|index| (at(index, H) - at(index, -H)) / (2.0 * H)).collect()
}

fn close(a: &[f32], b: impl IntoIterator<Item = f64>, tolerance: f64) {
    for (at, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * b.abs().max(0.1), "value {at}: {a} and {b}");
    }
}

#[test]
fn a_step_goes_along_the_finite_differences() {
    let (features, labels) = data(40, 19, 3);
    let rows = Rows { features: &features, labels: &labels };
    let head = some_head(19, 3);
    let trained = head.train(rows, &training(), &|| false).unwrap();
    let gradient = differences(&head, rows);
    let before: Vec<f64> = wide(&head.weight).into_iter().chain(wide(&head.bias)).collect();
    let after: Vec<f32> = trained.head.weight.iter().chain(&trained.head.bias).copied().collect();
    close(&after, before.iter().zip(&gradient).map(|(w, g)| w - 0.5 * g), 1e-5);
    assert!((trained.loss - loss(&wide(&head.weight), &wide(&head.bias), rows, 19)).abs() < 1e-5);
}

#[test]
fn the_proximal_term_and_the_decay_pull_as_they_should() {
    let (features, labels) = data(30, 5, 3);
    let rows = Rows { features: &features, labels: &labels };
    let start = some_head(5, 3);
    // The second step is where the distance from the start is not zero any more.
    let once = start.train(rows, &training(), &|| false).unwrap().head;
    let with = HeadTraining { epochs: 2, proximal: 0.3, ..training() };
    let twice = start.train(rows, &with, &|| false).unwrap().head;
    let gradient = differences(&once, rows);
    let expected = once
        .weight
        .iter()
        .zip(&start.weight)
        .zip(&gradient)
        .map(|((w, s), g)| f64::from(*w) - 0.5 * (g + 0.3 * f64::from(w - s)));
    close(&twice.weight, expected, 1e-4);

    let decayed =
        start.train(rows, &HeadTraining { weight_decay: 0.1, ..training() }, &|| false).unwrap().head;
    let expected = once.weight.iter().zip(&start.weight).map(|(w, s)| f64::from(w - 0.5 * 0.1 * s));
    close(&decayed.weight, expected, 1e-5);
    assert_eq!(decayed.bias, once.bias, "the bias does not shrink");
}

/// A strong pull keeps the head where it began; the loss is that of the start.
#[test]
fn a_large_mu_stays_near_the_start() {
    let (features, labels) = data(60, 6, 3);
    let rows = Rows { features: &features, labels: &labels };
    let start = some_head(6, 3);
    let distance = |mu: f32| {
        let training = HeadTraining { epochs: 50, proximal: mu, learning_rate: 0.05, ..training() };
        let head = start.train(rows, &training, &|| false).unwrap().head;
        head.weight.iter().zip(&start.weight).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
    };
    assert!(distance(10.0) < distance(1.0) && distance(1.0) < distance(0.0));
}

#[test]
fn rounds_of_one_site_with_all_rows_are_plain_gradient_descent() {
    let (features, labels) = data(50, 8, 4);
    let rows = Rows { features: &features, labels: &labels };
    let mut by_rounds = Head::zeros(8, 4);
    for round in 0..20 {
        by_rounds =
            by_rounds.train(rows, &HeadTraining { seed: round, ..training() }, &|| false).unwrap().head;
    }
    let at_once =
        Head::zeros(8, 4).train(rows, &HeadTraining { epochs: 20, ..training() }, &|| false).unwrap();
    assert_eq!(by_rounds, at_once.head, "to the bit: nothing is carried over");
}

#[test]
fn every_rule_learns_and_the_seed_decides_the_bits() {
    let (features, labels) = data(300, 12, 3);
    let rows = Rows { features: &features, labels: &labels };
    for (rule, learning_rate) in
        [(Rule::Sgd { momentum: 0.0 }, 0.3), (Rule::Sgd { momentum: 0.9 }, 0.05), (Rule::AdamW, 0.02)]
    {
        let training = HeadTraining { epochs: 20, batch: 16, rule, learning_rate, ..training() };
        let train = |seed| {
            Head::zeros(12, 3).train(rows, &HeadTraining { seed, ..training.clone() }, &|| false).unwrap()
        };
        let trained = train(1);
        assert!(trained.loss < 0.35 * 3_f64.ln(), "{rule:?}: {}", trained.loss);
        assert_eq!(trained, train(1), "the same bits");
        assert_ne!(trained, train(2), "another order");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (features, labels) = data(6, 4, 3);
    let head = Head::zeros(4, 3);
    let train = |features: &[f32], labels: &[u32], training: &HeadTraining| {
        head.train(Rows { features, labels }, training, &|| false).unwrap_err().to_string()
    };
    assert!(train(&features[1..], &labels, &training()).contains("rows of 4"));
    assert!(train(&[], &[], &training()).contains("no training rows"));
    assert!(train(&features, &[0, 1, 2, 3, 0, 0], &training()).contains("row 3"));
    let huge: Vec<f32> = features.iter().map(|x| x * 1e20).collect();
    let wild = HeadTraining { learning_rate: 1e30, epochs: 9, ..training() };
    assert!(train(&huge, &labels, &wild).contains("lower it"));
    let stopped = head.train(Rows { features: &features, labels: &labels }, &training(), &|| true);
    assert!(matches!(stopped, Err(ModelError::Stopped)));
}
