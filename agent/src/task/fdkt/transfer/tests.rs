//! Which models there are, what is counted of them, and what a privacy unit can move of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sheaf_data::{AssetStore, Encoding, Schema};
use sheaf_models::{Compute, LanguageModel};
use sheaf_privacy::{
    Delta, Epsilon, Event, Scale,
    ledger::{Cap, Digest, PrivacyUnit},
};
use sheaf_proto::{
    fdkt::{Labelled, TRANSFER, Texts, Tuning},
    fedavg::AdapterSpec,
    privacy::PrivacySpec,
};

use super::{super::Fdkt, *};
use crate::{budget::Budget, task::Workload as _};

fn spec() -> TransferSpec {
    let schema: Schema = toml::from_str("text_dim = 64\n[declared]\nclasses = ['car', 'boat']\n").unwrap();
    let encoding = Encoding::declared(&schema).unwrap().unwrap();
    let features = sheaf_analytic::FeatureSpec {
        input_dim: encoding.input_dim(),
        map: sheaf_analytic::FeatureMap::Identity,
        normalize: sheaf_analytic::Normalize::L2,
        bits: 14,
        bias: false,
    };
    let adapter = AdapterSpec {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        targets: vec!["q_proj".to_owned(), "v_proj".to_owned()],
        layers: Some(1),
    };
    TransferSpec {
        sums: SumsSpec { schema, encoding, features, privacy: None },
        lambda: 1.0,
        weight: 4,
        texts: vec![Texts::Synthetic, Texts::Fdkt],
        task: TaskModel::ALL.to_vec(),
        classifier: Some(ClassifierSpec {
            model: "smollm2-135m".to_owned(),
            model_sha256: "0".repeat(64),
            adapter,
            max_tokens: 24,
            tuning: Tuning { epochs: 20, batch: 4, learning_rate: 2e-2, seed: 1 },
        }),
    }
}

fn laplace() -> PrivacySpec {
    let event = Event::Laplace { scale: Scale::new(0.1).unwrap(), count: 1 };
    PrivacySpec {
        unit: "id".to_owned(),
        delta: Delta::new(1e-3).unwrap(),
        event,
        later: Vec::new(),
        training: None,
    }
}

/// Records of (person, text, label, split).
fn dataset(lines: &[(&str, &str, &str, &str)]) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let line = |(id, text, label, split): &(&str, &str, &str, &str)| {
        format!("{{\"id\":\"{id}\",\"text\":\"{text}\",\"label\":\"{label}\",\"split\":\"{split}\"}}\n")
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let source = Source::Text { path: Some(path), asset: None };
    source.open(&spec().sums.schema, &AssetStore::new(folder.path().to_owned(), None)).unwrap()
}

const RECORDS: &[(&str, &str, &str, &str)] = &[
    ("a", "a red car", "car", "train"),
    ("b", "a blue boat", "boat", "train"),
    ("a", "the red car", "car", "test"),
    ("c", "my blue boat", "boat", "test"),
    ("c", "one blue boat", "boat", "test"),
    ("c", "that red car", "car", "test"),
    ("d", "an old tree", "tree", "test"),
];

/// Models that are right on all rows, on none, and on those of boats.
fn models() -> Vec<Model<'static>> {
    let given = |classes: [usize; 5]| Says::Given((2..7).zip(classes).collect());
    let model = |task, arm, classes| Model { task, arm, says: given(classes) };
    vec![
        model(TaskModel::Analytic, Arm::Local, [0, 1, 1, 0, 0]),
        model(TaskModel::Analytic, Arm::Fdkt, [1, 0, 0, 1, 1]),
        model(TaskModel::LanguageModel, Arm::Local, [1, 1, 1, 1, 1]),
    ]
}

fn counted(records: &Dataset, rows: &[usize]) -> Vec<u64> {
    counts(&spec().sums, &models(), records, rows, &|| false).unwrap()
}

#[test]
fn counts_are_of_known_classes_by_model_and_arm() {
    let records = dataset(RECORDS);
    let test = records.rows(Split::Test);
    assert_eq!(counted(&records, &test), [4, 4, 0, 2], "a tree is no class of the plan");
    let transfer = answer(&models(), &counted(&records, &test));
    assert_eq!((transfer.rows, transfer.correct.len()), (4, 2));
    assert_eq!(transfer.accuracy(TaskModel::LanguageModel, Arm::Local), Some(0.5));
    let said = measured_given(&spec().sums, vec![(Arm::Local, BTreeMap::from([(2, 0), (3, 0)]))], &records);
    assert_eq!(said.unwrap().correct[&TaskModel::LanguageModel][&Arm::Local], 1);
}

/// The claim of the module: the models stay as they are, a person's test records go, and all counts together move by at most
/// what the noise is measured against.
#[test]
fn a_unit_moves_all_counts_together_by_at_most_one_each() {
    let records = dataset(RECORDS);
    let gone = |person: &str| -> Vec<usize> {
        (0..records.len()).filter(|row| RECORDS[*row].0 == person && RECORDS[*row].3 == "test").collect()
    };
    let exact = |without: &[usize], unit: &str| {
        // A row that is gone is in no count; rows keep their numbers, by which models know them.
        let of = |rows: &[usize]| {
            let left: Vec<usize> = rows.iter().copied().filter(|row| !without.contains(row)).collect();
            Ok(counted(&records, &left))
        };
        let counting = afl::private::Counting { of: &of, most: models().len() + 1 };
        (counting.exact(unit, &records).unwrap(), counting.sensitivity())
    };
    for unit in ["id", "row"] {
        let (all, bound) = exact(&[], unit);
        for person in ["a", "c", "d"] {
            let rows = gone(person);
            let rows = if unit == "row" { &rows[..1] } else { &rows[..] };
            let moved: i64 = exact(rows, unit).0.iter().zip(&all).map(|(a, b)| (a - b).abs()).sum();
            assert!(moved <= bound, "{unit} {person}: {moved} of {bound}");
        }
    }
    // All models right on one row: nothing less would do.
    let of = |rows: &[usize]| Ok(vec![rows.iter().filter(|row| **row == 2).count() as u64; 4]);
    let counting = afl::private::Counting { of: &of, most: 4 };
    let moved: i64 = counting.exact("row", &records).unwrap().iter().sum();
    assert_eq!(moved, counting.sensitivity());
}

#[test]
fn noised_counts_are_of_the_same_models_and_paid_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::open(folder.path()).unwrap();
    let dataset_name = Digest::of(b"these records");
    let (privacy_unit, epsilon) = (PrivacyUnit::new("id").unwrap(), Epsilon::new(20.0).unwrap());
    let delta = Delta::new(1e-3).unwrap();
    budget.set_cap(Cap { dataset: dataset_name, privacy_unit, epsilon, delta }).unwrap();
    let privacy = laplace();
    let purse = budget.purse("run-1", &"ab".repeat(32), dataset_name, &privacy).unwrap();
    let records = dataset(&[&RECORDS[..4], &RECORDS[6..]].concat());
    let models = &models()[..];
    let of = |rows: &[usize]| counts(&spec().sums, models, &records, rows, &|| false);
    let counting = afl::private::Counting { of: &of, most: models.len() + 1 };
    let (noised, made) = afl::private::noised_counts(&privacy, &counting, &records, purse).unwrap();
    let transfer = answer(models, &noised);
    let exact = answer(models, &of(&records.rows(Split::Test)).unwrap());
    // Four counts: the noise has a scale of 0.4, so that 12 is not seen in ten million million draws.
    assert!(transfer.rows.abs_diff(exact.rows) < 12);
    for (task, arms) in &exact.correct {
        assert_eq!(arms.len(), transfer.correct[task].len());
        for (arm, right) in arms {
            assert!(transfer.correct[task][arm].abs_diff(*right) < 12, "{task:?} {arm:?}: {noised:?}");
        }
    }
    let Made::WithNoise(charge) = made else { panic!("not paid for") };
    charge.release(b"answer").unwrap();
    let book = crate::budget::read(folder.path()).unwrap().unwrap();
    assert_eq!(book.pages[0].charges.len(), 1);
}

fn tiny() -> LanguageModel {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
    LanguageModel::load(&fixture, &Compute::cpu()).unwrap()
}

fn written(pairs: &[(&str, &str)]) -> Vec<Labelled> {
    pairs.iter().map(|(text, label)| Labelled::new(*text, *label)).collect()
}

#[test]
fn classifiers_learn_from_what_their_arm_names() {
    let mut spec = spec();
    let how = spec.classifier.clone().unwrap();
    let (model, records) = (tiny(), dataset(RECORDS));
    // The sites' texts are right; the others say the opposite of the records, and are of a class that nobody declared.
    let right = [("this red car", "car"), ("his blue boat", "boat"), ("her red car", "car")];
    let wrong = [("this red car", "boat"), ("his blue boat", "car"), ("x", "tree")];
    let texts = [written(&right), written(&wrong)];
    let told = std::cell::RefCell::new(Vec::new());
    let tell = |what: &str| told.borrow_mut().push(what.to_owned());
    let job = Job { how: &how, model: &model, texts: &texts, tell: &tell, keep: &|_| Ok(None) };
    let given = job.given(&spec, &records, false).unwrap();
    let arms: BTreeSet<Arm> = given.iter().map(|(arm, _)| *arm).collect();
    assert_eq!(arms, spec.arms().into_iter().collect());
    let of = |given: &[(Arm, Given)], arm| {
        given.iter().find(|(of, _)| *of == arm).map(|(_, given)| given.clone()).unwrap()
    };
    let all = BTreeMap::from([(2, 0), (3, 1), (4, 1), (5, 0)]);
    for arm in [Arm::Local, Arm::Synthetic, Arm::SyntheticAlone] {
        assert_eq!(of(&given, arm), all, "{arm:?}: rows of declared classes alone");
    }
    assert_ne!(of(&given, Arm::FdktAlone), all, "it has learnt from wrong texts alone");
    assert!(told.borrow().iter().any(|what| what == "training classifiers of records, 2 of 3"), "{told:?}");

    let kept = tempfile::tempdir().unwrap();
    let into = |name: &str| Ok(Some(kept.path().join(name)));
    spec.sums.privacy = Some(laplace());
    let private = Job { keep: &into, ..job }.given(&spec, &records, false).unwrap();
    assert_eq!(private.len(), given.len(), "the site's own figures are of all arms");
    assert!(spec.arms().iter().all(|arm| !arm.reads_records()), "and none of a record is counted for others");
    let files = ["adapter_model.safetensors", "adapter_config.json", "head.safetensors"];
    assert!(files.iter().all(|file| kept.path().join("task-model").join(file).exists()));
    let stopped = job.given(&spec, &records, true);
    assert!(matches!(stopped, Err(AgentError::Cancelled)));

    let none = dataset(&RECORDS[2..]);
    let given = job.given(&spec, &none, false).unwrap();
    let local = of(&given, Arm::Local);
    assert!(local.values().all(|class| *class == 0), "a site without records answers like any other");

    let how = ClassifierSpec { max_tokens: 1 << 20, ..how.clone() };
    let refused = Job { how: &how, ..job }.given(&spec, &records, false).unwrap_err().to_string();
    assert!(refused.contains("at most"), "{refused}");
}

/// What classifiers are made of, but for the specification, which tests change.
#[derive(Clone, Copy)]
struct Job<'a> {
    how: &'a ClassifierSpec,
    model: &'a LanguageModel,
    texts: &'a [Vec<Labelled>],
    tell: &'a dyn Fn(&str),
    keep: &'a dyn Fn(&str) -> Result<Option<PathBuf>, AgentError>,
}

impl Job<'_> {
    fn given(
        self,
        spec: &TransferSpec,
        records: &Dataset,
        cancelled: bool,
    ) -> Result<Vec<(Arm, Given)>, AgentError> {
        let Self { how, model, texts, tell, keep } = self;
        classifier::given(&classifier::Job { spec, how, model, texts, tell, keep }, records, &|| cancelled)
    }
}

/// The claim of the module: what is counted knows nothing of a record, to the bit.
#[test]
fn a_record_changes_nothing_of_what_models_without_records_answer() {
    let mut spec = spec();
    spec.sums.privacy = Some(laplace());
    let how = spec.classifier.clone().unwrap();
    let model = tiny();
    let texts = [
        written(&[("this red car", "car"), ("his blue boat", "boat")]),
        written(&[("her red car which is much longer than all the others", "car"), ("a boat", "boat")]),
    ];
    let answers = |lines: &[(&str, &str, &str, &str)]| {
        let job = Job { how: &how, model: &model, texts: &texts, tell: &|_| {}, keep: &|_| Ok(None) };
        let given = job.given(&spec, &dataset(lines), false).unwrap();
        let alone = given.into_iter().filter(|(arm, _)| !arm.reads_records());
        // By the text, since rows move.
        let of = |(arm, given): (Arm, Given)| {
            let texts = given.into_iter().map(|(row, class)| (lines[row].1.to_owned(), class));
            (arm, texts.collect::<BTreeMap<_, _>>())
        };
        alone.map(of).collect::<BTreeMap<_, _>>()
    };
    let all = answers(RECORDS);
    assert_eq!(answers(&RECORDS[1..]), all, "without a training record");
    let without: Vec<_> = RECORDS.iter().copied().filter(|record| record.1 != "one blue boat").collect();
    for (arm, given) in answers(&without) {
        assert!(given.iter().all(|(text, class)| all[&arm][text] == *class), "without a test record");
    }
}

#[test]
fn what_could_fail_for_a_record_or_without_end_is_refused_beforehand() {
    let refused = |change: &dyn Fn(&mut TransferSpec), problem: &str| {
        let mut spec = spec();
        spec.sums.privacy = Some(laplace());
        change(&mut spec);
        let error = check(&spec, 2).map(drop).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    refused(&|spec| spec.sums.encoding.classes.push("tree".to_owned()), "classes");
    refused(&|spec| spec.sums.schema.declared = None, "classes");
    refused(&|spec| spec.lambda = 0.0, "lambda");
    refused(&|spec| spec.sums.features.normalize = Normalize::None, "bounded length");
    refused(&|spec| spec.weight = 0, "weigh");
    refused(&|spec| spec.weight = u32::MAX, "weigh");
    refused(&|spec| spec.classifier.as_mut().unwrap().tuning.epochs = 10_000, "epochs");
    assert!(check(&TransferSpec { lambda: 0.0, ..spec() }, 2).is_ok(), "without noise nothing is hidden");
}

#[test]
fn what_does_not_go_together_is_refused_and_both_models_are_named_to_the_policy() {
    let mut spec = spec();
    let backbone = "[declared]\nclasses = ['car', 'boat']\ndim = 384\n[backbone]\nmodel = 'minilm-l6'\n";
    spec.sums.schema = toml::from_str(backbone).unwrap();
    let assignment = |spec: &TransferSpec| Assignment {
        phase: TRANSFER.to_owned(),
        spec: serde_json::to_vec(spec).unwrap(),
        inputs: Vec::new(),
        min_rows: 0,
    };
    assert_eq!(Fdkt.models(&assignment(&spec)).unwrap(), ["minilm-l6", "smollm2-135m"]);
    let stage = sheaf_proto::secure::phase(TRANSFER, sheaf_secagg::Stage::MaskedInput);
    let summed = Assignment { phase: stage, ..assignment(&spec) };
    assert_eq!(
        Fdkt.models(&summed).unwrap(),
        ["minilm-l6", "smollm2-135m"],
        "in a stage of a secure sum, too"
    );
    assert!(check(&spec, 2).unwrap().is_some());
    assert!(check(&spec, 1).unwrap_err().to_string().contains("2 sets of texts and comes with 1"));
    spec.classifier = None;
    assert!(check(&spec, 2).unwrap_err().to_string().contains("not how it is tuned"));
    spec.task = vec![TaskModel::Analytic];
    assert!(check(&spec, 2).unwrap().is_none());
    assert_eq!(Fdkt.models(&assignment(&spec)).unwrap(), ["minilm-l6"]);
}
