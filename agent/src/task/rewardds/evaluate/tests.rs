//! Which records and figures there are, what noise is measured against, and that a record's figures are its own.

use std::{collections::BTreeSet, path::Path};

use proptest::prelude::*;
use sheaf_data::{AssetStore, Backbone, Schema};
use sheaf_models::{Compute, train::supervised::response_log_p};
use sheaf_privacy::{
    Delta, Epsilon, Event, Scale,
    ledger::{Cap, Digest as Name, PrivacyUnit},
};
use sheaf_proto::{
    fedavg::{AdapterSpec, ParametersFile, Tensor},
    rewardds::{Generator, Likelihood, Measured, RewardForm},
};

use super::{super::pairs, proxies::likelihood, *};
use crate::budget::Budget;
use crate::task::parameters::sent;

fn schema() -> Schema {
    toml::from_str("[declared]\nclasses = ['a', 'b']\n").unwrap()
}

/// Records of (person, query, response, class, split).
type Line = (&'static str, &'static str, &'static str, &'static str, &'static str);

fn dataset(lines: &[Line]) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.jsonl");
    let line = |(id, text, answer, label, split): &Line| {
        let line = serde_json::json!({
            "id": id, "text": text, "answer": answer, "label": label, "split": split,
        });
        format!("{line}\n")
    };
    std::fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let source = Source::Text { path: Some(path), asset: None };
    source.open(&schema(), &AssetStore::new(folder.path().to_owned(), None)).unwrap()
}

/// Test records of four people.
const PEOPLE: &[Line] = &[
    ("p", "Is it a fever?", "Rest well.", "a", "test"),
    ("q", "Is it the body?", "It is. Ask the patient to keep to the bed", "b", "test"),
    ("q", "What is the temperature?", "12", "a", "test"),
    ("r", "To answer or to ask?", "Please answer the question.", "a", "test"),
    ("r", "And then?", "Keep it short.", "b", "test"),
    ("r", "Who?", "A patient.", "b", "test"),
    ("s", "Where?", "In bed.", "a", "test"),
];

fn adapter() -> AdapterSpec {
    let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    AdapterSpec { rank: 2, alpha: 4.0, dropout: 0.0, targets, layers: Some(1) }
}

fn target() -> Target {
    Target {
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: adapter(),
        max_tokens: 64,
        answer_tokens: 12,
        code: false,
    }
}

fn measured() -> Measured {
    let encoder = Backbone { model: "minilm-l6".to_owned(), sha256: None, image_size: 0, max_tokens: 0 };
    let generator = Generator {
        model: "tiny".to_owned(),
        model_sha256: String::new(),
        adapter: adapter(),
        control: "About {label}:".to_owned(),
        max_tokens: 64,
        answer_tokens: 12,
    };
    Measured { reward: RewardForm::Embedding { encoder }, generator }
}

fn spec(arms: &[Arm], reward: bool) -> EvaluateSpec {
    EvaluateSpec {
        schema: schema(),
        target: target(),
        arms: arms.to_vec(),
        reward: reward.then(measured),
        records: 0,
        privacy: None,
    }
}

#[test]
fn a_program_is_what_stands_between_fences() {
    for (answer, expected) in [
        ("x = 1\ny = 2", "x = 1\ny = 2"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here it is:\n```python3\nx = 1\n```\nIt sets x. ```x```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```python\r\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),
        ("```x = 1\ny = 2\n```", "x = 1\ny = 2\n"),
        ("```x = 1```", "x = 1"),
        ("```", ""),
        ("", ""),
    ] {
        assert_eq!(program(answer), expected, "{answer:?}");
    }
}

#[test]
fn a_record_counts_the_share_of_the_pairs_that_it_has() {
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(share([None; 3]), None);
    assert_eq!(share([yes, yes, yes]), Some(1.0));
    assert_eq!(share([yes, None, no]), Some(0.5));
    assert_eq!(share([no, None, None]), Some(0.0));
    assert_eq!(share([no, no, yes]), Some(1.0 / 3.0));
}

#[test]
fn test_records_are_chosen_by_what_they_say() {
    let mut lines = PEOPLE.to_vec();
    lines.push(("t", "Why?", "", "a", "test"));
    lines.push(("t", "Why not?", " ", "a", "test"));
    lines.push(("t", "When?", "Now.", "a", "train"));
    let records = dataset(&lines);
    assert_eq!(test_rows(&records, 0), [0, 1, 2, 3, 4, 5, 6], "all that have an answer, in their order");
    assert_eq!(test_rows(&records, 7), test_rows(&records, 0));
    let reversed: Vec<Line> = lines.iter().copied().rev().collect();
    let reversed = dataset(&reversed);
    let said = |records: &Dataset, most: usize| -> BTreeSet<String> {
        let rows = test_rows(records, most);
        rows.into_iter().map(|row| records.text(row).unwrap().to_owned()).collect()
    };
    for most in 1..7 {
        let chosen = said(&records, most);
        assert_eq!(chosen.len(), most);
        assert_eq!(chosen, said(&reversed, most), "in whatever order they stand");
        assert!(chosen.is_subset(&said(&records, most + 1)), "more of them are more of the same");
    }
}

#[test]
fn what_has_no_class_of_the_plan_is_not_compared() {
    let lines = [PEOPLE[0], ("p", "A tree?", "No.", "tree", "test"), PEOPLE[1]];
    let found = exchanges(&measured(), &schema(), &dataset(&lines), &[0, 1, 2]);
    let controls: Vec<(usize, &str)> = found.iter().map(|(row, e)| (*row, e.control.as_str())).collect();
    assert_eq!(controls, [(0, "About a:"), (2, "About b:")]);
    assert_eq!((found[1].1.query.as_str(), found[1].1.response.as_str()), (PEOPLE[1].1, PEOPLE[1].2));
}

fn file(value: f32) -> Vec<u8> {
    let tensor = Tensor { shape: vec![1], data: vec![value] };
    ParametersFile::encode(&Parameters::from([("w".to_owned(), tensor)])).unwrap()
}

#[test]
fn inputs_are_the_adapters_of_what_was_tuned_then_the_proxies() {
    let files = [file(1.0), file(2.0), file(3.0), file(4.0)];
    let value = |parameters: &Parameters| parameters["w"].data[0];
    let all = spec(&[Arm::Rgf, Arm::Untuned, Arm::Random], true);
    let (arms, proxies) = inputs(&all, &files).unwrap();
    let arms: Vec<(Arm, Option<f32>)> = arms.iter().map(|(arm, of)| (*arm, of.as_ref().map(value))).collect();
    assert_eq!(arms, [(Arm::Rgf, Some(1.0)), (Arm::Untuned, None), (Arm::Random, Some(2.0))]);
    let proxies = proxies.map(|(reward, generator)| (value(&reward), value(&generator)));
    assert_eq!(proxies, Some((3.0, 4.0)), "the reward's, then the generator's");
    for few in 0..files.len() {
        let error = inputs(&all, &files[..few]).unwrap_err().to_string();
        assert!(error.contains("fewer"), "{few}: {error}");
    }
    let (arms, proxies) = inputs(&spec(&[Arm::Untuned], false), &[]).unwrap();
    assert!(arms.len() == 1 && arms[0].1.is_none() && proxies.is_none(), "nothing was tuned, nothing comes");
    let error = inputs(&spec(&[Arm::Rgf], false), &[b"rubbish".to_vec()]).unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

const fn row(nll: f64, rouge_l: f64, passed: Option<bool>) -> Row {
    Row { nll, rouge: [0.9, 0.8, rouge_l], words: 5.0, passed }
}

#[test]
fn figures_come_back_where_they_belong() {
    for (code, compared) in [(false, false), (true, false), (false, true), (true, true)] {
        let rows = [
            (3, vec![row(4.0, 0.25, Some(true)), row(2.0, 0.5, Some(false))]),
            (8, vec![row(0.0, 1.0, Some(true)), row(6.0, 0.0, None)]),
        ];
        let right = [(3, [Some(true), None, Some(false)]), (8, [None; 3])];
        let counted = Counted {
            rows: BTreeMap::from(rows),
            pairs: compared.then(|| BTreeMap::from(right)),
            arms: vec![Arm::Untuned, Arm::Rgf],
            code,
        };
        let counts = counted.of(&[3, 8, 9]);
        assert_eq!(counts.len(), counted.figures());
        let found = counted.evaluation(&counts);
        assert_eq!(found.rows, 2.0, "a row without an answer is no record");
        let of = |nll, rouge_l, passed: f64| {
            let passed = code.then_some(passed);
            Figures { nll, rouge_l, passed, ..Figures::default() }
        };
        let arms = BTreeMap::from([(Arm::Untuned, of(4.0, 1.25, 2.0)), (Arm::Rgf, of(8.0, 0.5, 0.0))]);
        assert_eq!(found.arms, arms);
        let pairs = Pairs { rows: 1.0, right: 0.5, by_pair: None };
        assert_eq!(found.pairs, compared.then_some(pairs), "of two records one has pairs");
    }
}

#[test]
fn what_is_no_share_counts_as_nothing_or_a_whole() {
    let odd = [
        (f64::NAN, MOST_NLL),
        (f64::INFINITY, MOST_NLL),
        (f64::NEG_INFINITY, MOST_NLL),
        (1e300, MOST_NLL),
        (MOST_NLL, MOST_NLL),
        (-1.0, 0.0),
    ];
    for (nll, expected) in odd {
        let rows = BTreeMap::from([(0, vec![row(nll, 0.5, None)])]);
        let counted = Counted { rows, pairs: None, arms: vec![Arm::Rgf], code: false };
        let found = counted.evaluation(&counted.of(&[0]));
        assert_eq!(found.arms[&Arm::Rgf].nll, expected, "{nll}");
    }
}

/// What all arms and the reward make of a record, where it has an answer.
type OfRecord = Option<(Vec<Row>, [Option<bool>; 3])>;

/// The figures of a data set whose rows have these numbers among all.
fn counted(numbers: &[usize], made: &[OfRecord], (arms, code, compared): (usize, bool, bool)) -> Counted {
    let (mut rows, mut pairs) = (BTreeMap::new(), BTreeMap::new());
    for (row, number) in numbers.iter().enumerate() {
        if let Some((of_arms, right)) = &made[*number] {
            rows.insert(row, of_arms[..arms].to_vec());
            pairs.insert(row, *right);
        }
    }
    Counted { rows, pairs: compared.then_some(pairs), arms: Arm::ALL[..arms].to_vec(), code }
}

/// As noise is added to them, with what it is measured against.
fn on_the_grid(counted: &Counted, dataset: &Dataset, unit: &str) -> (Vec<i64>, i64) {
    let of = |rows: &[usize]| Ok(counted.of(rows));
    let counting = afl::private::Counting { of: &of, most: counted.figures() * WHOLE as usize };
    (counting.exact(unit, dataset).unwrap(), counting.sensitivity())
}

fn any_row() -> impl Strategy<Value = Row> {
    let nll = prop_oneof![prop::num::f64::ANY, -1.0..20.0_f64, Just(f64::NAN), Just(f64::INFINITY)];
    let rouge_l = prop_oneof![prop::num::f64::ANY, 0.0..=1.0_f64, Just(1.0)];
    (nll, rouge_l, any::<Option<bool>>()).prop_map(|(nll, rouge_l, passed)| row(nll, rouge_l, passed))
}

fn any_made() -> impl Strategy<Value = OfRecord> {
    let right = prop::array::uniform3(any::<Option<bool>>());
    prop::option::weighted(0.8, (prop::collection::vec(any_row(), 3), right))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The claim of the module: with one unit fewer all figures together differ by at most what the noise is measured against.
    #[test]
    fn neighbours_differ_by_at_most_the_bound(
        made in prop::collection::vec(any_made(), PEOPLE.len()),
        form in (0_usize..=3, any::<bool>(), any::<bool>()),
    ) {
        let everybody: Vec<usize> = (0..PEOPLE.len()).collect();
        let (records, all) = (dataset(PEOPLE), counted(&everybody, &made, form));
        for row in &everybody {
            let counts = all.of(&[*row]);
            prop_assert_eq!(counts.len(), all.figures());
            prop_assert!(counts.iter().all(|count| *count <= WHOLE), "{counts:?}");
        }
        for unit in ["row", "id"] {
            let (exact, bound) = on_the_grid(&all, &records, unit);
            for gone in records.units(unit, Split::Test).unwrap() {
                let left: Vec<usize> = everybody.iter().copied().filter(|row| !gone.contains(row)).collect();
                let others = counted(&left, &made, form);
                let (without, _) = on_the_grid(&others, &records.subset(&left), unit);
                let moved: i64 = exact.iter().zip(&without).map(|(a, b)| (a - b).abs()).sum();
                prop_assert!(moved <= bound, "{unit} {gone:?}: {moved} of {bound}");
            }
        }
    }
}

#[test]
fn the_bound_is_reached() {
    let worst = vec![row(f64::INFINITY, 1.0, Some(true)); 3];
    let made: Vec<OfRecord> = vec![Some((worst, [Some(true); 3]))];
    let all = counted(&[0], &made, (3, true, true));
    assert_eq!(all.of(&[0]), [WHOLE; 12], "a record, three arms of three figures, two of the reward");
    let (exact, bound) = on_the_grid(&all, &dataset(&PEOPLE[..1]), "row");
    assert_eq!(exact.iter().sum::<i64>(), bound);
}

#[test]
fn noised_figures_are_of_the_same_records_and_paid_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let budget = Budget::open(folder.path()).unwrap();
    let (name, delta) = (Name::of(b"these records"), Delta::new(1e-3).unwrap());
    let (privacy_unit, epsilon) = (PrivacyUnit::new("id").unwrap(), Epsilon::new(2000.0).unwrap());
    budget.set_cap(Cap { dataset: name, privacy_unit, epsilon, delta }).unwrap();
    let event = Event::Laplace { scale: Scale::new(1e-3).unwrap(), count: 1 };
    let privacy = PrivacySpec { unit: "id".to_owned(), delta, event, later: Vec::new(), training: None };
    let purse = budget.purse("run-1", &"ab".repeat(32), name, &privacy).unwrap();

    // Three records of three people: a unit of one row weighs as that row.
    let records = dataset(&[PEOPLE[0], PEOPLE[1], PEOPLE[3]]);
    let made: Vec<OfRecord> = [(4.0, 0.25), (2.0, 0.5), (1.0, 1.0)]
        .map(|(nll, rouge_l)| Some((vec![row(nll, rouge_l, None); 3], [Some(true), Some(true), None])))
        .to_vec();
    let counted = counted(&[0, 1, 2], &made, (2, false, true));
    let (found, paid) = counted.noised(&privacy, &records, purse).unwrap();
    let exact = counted.evaluation(&counted.of(&[0, 1, 2]));
    // Seven figures: the noise has a scale of 0.007, so that 0.3 is not seen in a billion billion draws.
    let near = |a: f64, b: f64| assert!((a - b).abs() < 0.3, "{found:?} {exact:?}");
    near(found.rows, exact.rows);
    assert_eq!(found.arms.len(), 2);
    for (arm, figures) in &exact.arms {
        near(found.arms[arm].nll / MOST_NLL, figures.nll / MOST_NLL);
        near(found.arms[arm].rouge_l, figures.rouge_l);
        assert_eq!((found.arms[arm].words, found.arms[arm].passed), (None, None));
    }
    let pairs = found.pairs.unwrap();
    near(pairs.rows, 3.0);
    near(pairs.right, 3.0);
    let Made::WithNoise(charge) = paid else { panic!("not paid for") };
    charge.release(b"answer").unwrap();
    let book = crate::budget::read(folder.path()).unwrap().unwrap();
    assert_eq!(book.pages[0].charges.len(), 1);
}

fn tiny() -> LanguageModel {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures/tiny_llama");
    LanguageModel::load(&fixture, &Compute::cpu()).unwrap()
}

/// An adapter that changes what the model says.
fn tuned(model: &LanguageModel) -> Parameters {
    let mut adapter = Adapter::new(model, &lora::config(&adapter()), 5).unwrap();
    for (name, tensor) in &mut adapter.tensors {
        if name.contains("lora_B") {
            let values = tensor.data.iter_mut().enumerate();
            values.for_each(|(at, value)| *value = 0.5 * (at % 5) as f32 - 1.0);
        }
    }
    sent(adapter.tensors)
}

/// The claim of the module: by itself a record's figures are the same to the bit, whatever stands beside it.
#[test]
fn figures_of_a_record_are_its_own_and_add_up() {
    let (model, target, records) = (tiny(), target(), dataset(PEOPLE));
    let arms = [(Arm::Untuned, None), (Arm::Rgf, Some(tuned(&model)))];
    let told = std::cell::RefCell::new(Vec::new());
    let tell = |what: &str| told.borrow_mut().push(what.to_owned());
    let measuring =
        Measuring { target: &target, model: &model, arms: &arms, alone: true, sandbox: None, tell: &tell };
    let rows = test_rows(&records, 0);
    let all = measuring.rows(&records, &rows, &|| false).unwrap();
    assert_eq!(all.len(), PEOPLE.len());
    for (row, of_record) in rows.iter().zip(&all) {
        let [untuned, tuned] = of_record.as_slice() else { panic!("{} arms", of_record.len()) };
        assert!(untuned.nll.is_finite() && untuned.nll > 0.0 && untuned.nll != tuned.nll, "{of_record:?}");
        assert!(of_record.iter().all(|row| row.rouge.iter().all(|share| (0.0..=1.0).contains(share))));
        assert_eq!((untuned.passed, tuned.passed), (None, None), "no programs");
        let by_itself = measuring.rows(&records, &[*row], &|| false).unwrap();
        assert_eq!(by_itself, std::slice::from_ref(of_record), "row {row}");
    }
    assert!(told.borrow().iter().any(|what| what.ends_with("2 of 2: rgf")), "{told:?}");

    let figures = measuring.exact(&records, &rows, &|| false).unwrap();
    for (number, (arm, _)) in arms.iter().enumerate() {
        let sum = |of: &dyn Fn(&Row) -> f64| all.iter().map(|record| of(&record[number])).sum::<f64>();
        let expected = Figures {
            nll: sum(&|row| row.nll),
            rouge_l: sum(&|row| row.rouge[2]),
            rouge_1: Some(sum(&|row| row.rouge[0])),
            rouge_2: Some(sum(&|row| row.rouge[1])),
            words: Some(sum(&|row| row.words)),
            passed: None,
        };
        assert_eq!(figures[arm], expected, "{arm:?}");
    }
    let stopped = measuring.exact(&records, &rows, &|| true);
    assert!(matches!(stopped, Err(AgentError::Cancelled)));
    assert!(measuring.exact(&records, &[], &|| false).unwrap().is_empty());

    // Together they differ by the rounding of sums alone; a fresh adapter changes nothing.
    let fresh = Adapter::new(&model, &lora::config(&target.adapter), 9).unwrap();
    let arms = [(Arm::Untuned, None), (Arm::Random, Some(sent(fresh.tensors)))];
    let together =
        Measuring { target: &target, model: &model, arms: &arms, alone: false, sandbox: None, tell: &|_| {} };
    for (of_record, alone) in together.rows(&records, &rows, &|| false).unwrap().iter().zip(&all) {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3, "{of_record:?} {alone:?}");
        near(of_record[0].nll, alone[0].nll);
        near(of_record[1].nll, alone[0].nll);
    }
}

#[test]
fn what_is_compared_of_a_record_follows_from_it_alone() {
    let (model, measured, records) = (tiny(), measured(), dataset(PEOPLE));
    let found = exchanges(&measured, &schema(), &records, &test_rows(&records, 0));
    let all: Vec<Exchange> = found.into_iter().map(|(_, exchange)| exchange).collect();
    let lora = language::adapter(&measured.generator.adapter, &tuned(&model));
    let lora = lora.to_device(model.config(), model.device()).unwrap();
    let compared = |exchanges: &[Exchange]| {
        pairs::compared(&model, &lora, &measured.generator, exchanges, true, &|| false).unwrap()
    };
    let beside_others = compared(&all);
    assert_eq!(beside_others.len(), PEOPLE.len());
    for (at, record) in beside_others.iter().enumerate() {
        assert_eq!(compared(&all[at..=at]), std::slice::from_ref(record), "{at}");
        assert_eq!(record.query, PEOPLE[at].1);
    }
    assert_eq!(beside_others[0].responses[0], "Rest well.");
    assert_eq!(beside_others[1].responses[0], "It is.", "cut at a sentence, as what is written is");
}

#[test]
fn a_proxy_is_measured_beside_the_untuned_model() {
    let (model, measured, records) = (tiny(), measured(), dataset(PEOPLE));
    let found = exchanges(&measured, &schema(), &records, &test_rows(&records, 0));
    let all: Vec<Exchange> = found.into_iter().map(|(_, exchange)| exchange).collect();
    let of = |proxy: &Parameters, exchanges: &[Exchange]| {
        likelihood(&model, (&measured.generator, proxy), exchanges, &|| false).unwrap()
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3, "{a} {b}");

    let proxy = tuned(&model);
    let together = of(&proxy, &all);
    assert_eq!(together.rows, PEOPLE.len() as u64);
    assert!(together.tuned.is_finite() && together.tuned != together.untuned, "{together:?}");
    let untuned = all.iter().map(|exchange| {
        let record = language::encoded(&model, &measured.generator, exchange, true).unwrap();
        let nll = response_log_p(&model, None, &[record]).unwrap().remove(0);
        -nll.sum / nll.tokens as f64
    });
    near(together.untuned, untuned.sum());
    let each = || all.iter().map(|exchange| of(&proxy, std::slice::from_ref(exchange)));
    near(together.untuned, each().map(|one| one.untuned).sum());
    near(together.tuned, each().map(|one| one.tuned).sum());

    let fresh = sent(Adapter::new(&model, &lora::config(&adapter()), 9).unwrap().tensors);
    let fresh = of(&fresh, &all);
    near(fresh.tuned, fresh.untuned);
    assert_eq!(of(&proxy, &[]), Likelihood::default());
}

#[test]
fn a_proxy_that_diverged_gives_a_number_and_one_of_another_model_none() {
    let (model, measured) = (tiny(), measured());
    let exchange = Exchange {
        control: "About a:".to_owned(),
        query: "Is it a fever?".to_owned(),
        response: "Rest well.".to_owned(),
    };
    let of = |proxy: &Parameters, cancelled: &dyn Fn() -> bool| {
        likelihood(&model, (&measured.generator, proxy), std::slice::from_ref(&exchange), cancelled)
    };
    let mut proxy = tuned(&model);
    assert!(matches!(of(&proxy, &|| true), Err(AgentError::Cancelled)));
    proxy.values_mut().for_each(|tensor| tensor.data.fill(1e30));
    assert_eq!(of(&proxy, &|| false).unwrap().tuned, 1e3);
    proxy.pop_first();
    assert!(matches!(of(&proxy, &|| false), Err(AgentError::Task(_))));
}
