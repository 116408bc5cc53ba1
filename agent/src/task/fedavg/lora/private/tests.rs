use std::sync::Arc;

use sheaf_data::{AssetStore, Schema, Source};
use sheaf_privacy::{
    Delta, Epsilon, Event, Rate, Sigma,
    ledger::{Cap, Digest, PrivacyUnit, Standing},
};
use sheaf_proto::fedavg::ParametersFile as _;

use super::super::tests::{distance, model, spec};
use super::*;
use crate::{
    budget::{Budget, read},
    egress::Made,
};

const STEPS: u64 = 3;
const ROUNDS: u64 = 2;

fn privacy(sigma: f64, round: u64) -> PrivacySpec {
    let event = Event::PoissonGaussian {
        rate: Rate::new(0.5).unwrap(),
        sigma: Sigma::new(sigma).unwrap(),
        steps: STEPS * ROUNDS,
    };
    let training =
        Some(NoisyTraining { clip: 0.5, units: 4, steps: STEPS, rest: STEPS * (ROUNDS - round + 1) });
    PrivacySpec {
        unit: "row".to_owned(),
        delta: Delta::new(1e-3).unwrap(),
        event,
        later: Vec::new(),
        training,
    }
}

struct Site {
    folder: tempfile::TempDir,
    budget: Arc<Budget>,
    dataset: Digest,
}

impl Site {
    fn new(cap: f64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let budget = Budget::open(folder.path()).unwrap();
        let dataset = Digest::of(b"these records");
        let (privacy_unit, epsilon) = (PrivacyUnit::new("row").unwrap(), Epsilon::new(cap).unwrap());
        budget.set_cap(Cap { dataset, privacy_unit, epsilon, delta: Delta::new(1e-3).unwrap() }).unwrap();
        Self { folder, budget, dataset }
    }

    fn purse(&self, privacy: &PrivacySpec) -> Purse {
        self.budget.purse("run-1", &"ab".repeat(32), self.dataset, privacy).unwrap()
    }

    fn round(
        &self,
        number: u64,
        sigma: f64,
        input: Option<&[u8]>,
        records: &Records,
    ) -> Result<Update, AgentError> {
        let (mut round, lora) = spec(number as u32, 0.0);
        let privacy = privacy(sigma, number);
        round.privacy = Some(privacy.clone());
        let plan = Plan { round: &round, lora: &lora, privacy: &privacy };
        let (update, made) = train(&plan, input, records, &model(), self.purse(&privacy), &|| false)?;
        assert!(update.measured.is_none(), "neither rows nor loss leave");
        let Made::WithNoise(charge) = made else { panic!("not paid for") };
        charge.release(&update.encode().unwrap())?;
        Ok(update)
    }

    fn standings(&self) -> Vec<(u64, Standing)> {
        let book = read(self.folder.path()).unwrap().unwrap();
        book.pages[0].charges.iter().map(|c| (c.request.event.count(), c.standing)).collect()
    }
}

fn records(lines: &[(&str, &str)]) -> Records {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let line = |(id, word): &(&str, &str)| {
        format!("{{\"id\":\"{id}\",\"text\":\"{word}\",\"answer\":\"{word}\"}}\n")
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let source = Source::Text { path: Some(path), asset: None };
    let dataset = source.open(&Schema::default(), &AssetStore::new(folder.path().to_owned(), None)).unwrap();
    Records::of(&dataset, "id", &model(), 32).unwrap()
}

fn none() -> Records {
    Records { encoded: Vec::new(), units: Units::by_label::<usize>(&[]) }
}

#[test]
fn all_rounds_are_one_charge_and_the_last_settles_it() {
    let site = Site::new(50.0);
    let records = records(&[("a", "money"), ("b", "a bank"), ("b", "the card")]);
    let first = site.round(1, 1.0, None, &records).unwrap();
    assert_eq!(site.standings(), [(STEPS * ROUNDS, Standing::Open)]);
    let input = first.parameters.encode().unwrap();
    let second = site.round(2, 1.0, Some(&input), &records).unwrap();
    assert!(distance(&first.parameters, &second.parameters) > 0.0);
    assert_eq!(site.standings(), [(STEPS * ROUNDS, Standing::Settled(STEPS * ROUNDS))]);
}

#[test]
fn a_site_without_records_sends_noise_and_pays_like_any_other() {
    let site = Site::new(50.0);
    let (_, lora) = spec(1, 0.0);
    let start = sent(adapter(&lora, None, &model(), 7).unwrap().tensors);
    let update = site.round(1, 1.0, None, &none()).unwrap();
    assert!(
        distance(&start, &update.parameters) > 1e-3,
        "Adam moves by the learning rate whatever the gradient"
    );
    assert_eq!(site.standings().len(), 1);
}

#[test]
fn what_does_not_fit_under_the_cap_is_declined_and_costs_nothing() {
    let site = Site::new(0.5);
    let error = site.round(1, 1.0, None, &none()).unwrap_err();
    let AgentError::Denied(reason) = error else { panic!("{error}") };
    assert!(reason.contains("0.5"), "{reason}");
    assert!(site.standings().is_empty());
}

#[test]
fn draws_that_a_crash_has_used_up_are_charged_again() {
    let site = Site::new(500.0);
    let privacy = privacy(1.0, 1);
    // A process that dies with one of three steps done.
    let mut reservation = site.purse(&privacy).reserve(STEPS, STEPS * ROUNDS).unwrap();
    drop(reservation.token().unwrap());
    std::mem::forget(reservation);
    let Site { folder, dataset, budget } = site;
    drop(budget);
    let site = Site { budget: Budget::open(folder.path()).unwrap(), folder, dataset };
    site.round(1, 1.0, None, &none()).unwrap();
    assert_eq!(
        site.standings(),
        [(STEPS * ROUNDS, Standing::Open)],
        "one draw is gone, the others are there"
    );
    site.round(2, 1.0, None, &none()).unwrap();
    let rest = [(STEPS * ROUNDS, Standing::Settled(STEPS + 1)), (STEPS, Standing::Settled(STEPS))];
    assert_eq!(site.standings(), rest, "what the crash has used up is paid again by the last round");
}

#[test]
fn a_restart_between_rounds_costs_nothing() {
    let site = Site::new(50.0);
    site.round(1, 1.0, None, &none()).unwrap();
    let Site { folder, dataset, budget } = site;
    drop(budget);
    let site = Site { budget: Budget::open(folder.path()).unwrap(), folder, dataset };
    assert_eq!(site.standings(), [(STEPS * ROUNDS, Standing::Open)]);
    site.round(2, 1.0, None, &none()).unwrap();
    assert_eq!(site.standings(), [(STEPS * ROUNDS, Standing::Settled(STEPS * ROUNDS))]);
}

/// Every unit in every step, and almost no noise.
fn all_drawn() -> PrivacySpec {
    let event =
        Event::PoissonGaussian { rate: Rate::new(1.0).unwrap(), sigma: Sigma::new(1e-3).unwrap(), steps: 9 };
    PrivacySpec { event, ..privacy(1.0, 1) }
}

/// With almost no noise a step is the clipped mean: several records of one person are one unit, and no unit weighs more than
/// the clip.
#[test]
fn a_unit_weighs_at_most_the_clip_however_many_records_it_has() {
    let site = Site::new(1e9);
    let (_, lora) = spec(1, 0.0);
    let adapter = adapter(&lora, None, &model(), 7).unwrap();
    let mut reservation = site.purse(&all_drawn()).reserve(1, 9).unwrap();
    let clip = Clip::new(1e-3).unwrap();
    let mut weigh = |records: &Records| {
        let token = reservation.token().unwrap();
        let (mut sampler, mut noise) = (PoissonSampler::new().unwrap(), NoiseStream::new().unwrap());
        let units = PublicUnits::new(1).unwrap();
        let ready = Ready { units: &records.units, records: Frozen::none(&records.encoded) };
        let step =
            one_step(&adapter, &ready, &model(), clip, (&mut sampler, &mut noise), units, token).unwrap();
        step.mean.iter().flatten().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    };
    let one = weigh(&records(&[("a", "money")]));
    let many = weigh(&records(&[("a", "money"), ("a", "a bank"), ("a", "the card"), ("a", "loan")]));
    let two = weigh(&records(&[("a", "money"), ("b", "money")]));
    assert!(one <= 1e-3 * 1.05 && many <= 1e-3 * 1.05, "{one} {many}");
    assert!(two > 1.5e-3, "two units weigh twice: {two}");
}

#[test]
fn what_the_frozen_layers_make_of_records_is_computed_once_and_changes_no_step() {
    let site = Site::new(1e9);
    let (round, mut lora) = spec(1, 0.0);
    lora.adapter.layers = Some(1);
    let (model, privacy) = (model(), all_drawn());
    let start = adapter(&lora, None, &model, 7).unwrap();
    let records = records(&[("a", "money"), ("b", "a bank"), ("c", "the card"), ("c", "loan")]);
    let plan = Plan { round: &round, lora: &lora, privacy: &privacy };
    let training = plan.training().unwrap();
    let mut reservation = site.purse(&privacy).reserve(2, 9).unwrap();
    let clip = Clip::new(1e-3).unwrap();
    let mut step = |ready: &Ready<'_>| {
        let token = reservation.token().unwrap();
        let (mut sampler, mut noise) = (PoissonSampler::new().unwrap(), NoiseStream::new().unwrap());
        let units = PublicUnits::new(1).unwrap();
        let made = one_step(&start, ready, &model, clip, (&mut sampler, &mut noise), units, token).unwrap();
        made.mean.concat()
    };
    let ready = Ready::new(&plan, training, &start, &records, &model, &|| false).unwrap();
    let once = step(&ready);
    let plain = step(&Ready { units: &records.units, records: Frozen::none(&records.encoded) });
    let length = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let off = length(&mut once.iter().zip(&plain).map(|(a, b)| a - b));
    assert!(off < 0.1 * length(&mut plain.iter().copied()), "{off}");
    let stopped = Ready::new(&plan, training, &start, &records, &model, &|| true);
    assert!(matches!(stopped.err(), Some(AgentError::Cancelled)));
}
