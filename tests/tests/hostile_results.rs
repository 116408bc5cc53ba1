//! Promise: an answer that cannot be is refused with a reason before anything changes, and the site may still give
//! a right one.

use sheaf_analytic::{Sums, SumsShape, codec};
use sheaf_data::Dataset;
use sheaf_proto::v1::{Task, Verdict};
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    operator::phase,
    random::Random,
    raw::{RawSession, RawSite},
    site::Rules,
};

/// Events of the journal that name a site. Others' answers may still be on their way into it.
fn events_about(cluster: &Cluster, site: &str) -> usize {
    let journal = cluster.hub().database.journal("run").unwrap();
    let name = format!("\"{site}\"");
    journal.iter().filter(|entry| serde_json::to_string(entry).unwrap().contains(&name)).count()
}

async fn wait_for_phase(cluster: &Cluster, name: &str) {
    cluster
        .operator
        .until("run", name, |detail| {
            phase(detail) == name && detail.phases.last().is_some_and(|p| p.delivered == 1)
        })
        .await;
}

/// Right sums with one thing changed.
fn changed(
    sums: &Sums,
    shape: &SumsShape,
    change: impl FnOnce(&mut u64, &mut Vec<u64>, &mut Vec<i64>, &mut Vec<i64>),
) -> Vec<u8> {
    let (mut rows, mut counts) = (sums.rows(), sums.counts().to_vec());
    let (mut gram, mut cross) = (sums.gram().to_vec(), sums.cross().to_vec());
    change(&mut rows, &mut counts, &mut gram, &mut cross);
    codec::encode(&Sums::from_parts(shape, rows, counts, gram, cross).unwrap())
}

fn hostile_sums(good: &Sums, shape: &SumsShape) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = codec::encode(good);
    let half = bytes.len() / 2;
    let bits = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let wider = SumsShape { dim: shape.dim + 1, ..*shape };
    let not_a_number: Vec<u8> =
        bytes[..24 + 8 * shape.classes].iter().copied().chain(f64::NAN.to_le_bytes().repeat(64)).collect();
    vec![
        ("nothing", Vec::new()),
        ("half of it", bytes[..half].to_vec()),
        ("all but a byte", bytes[..bytes.len() - 1].to_vec()),
        ("a byte too many", bytes.iter().copied().chain([0]).collect()),
        ("another signature", bits(0, b"XXXX")),
        ("another version", bits(4, &[9])),
        ("other bits", bits(5, &[3])),
        ("an absurd dimension", bits(8, &u32::MAX.to_le_bytes())),
        ("absurd classes", bits(12, &u32::MAX.to_le_bytes())),
        ("floating point NaN where the blocks are", not_a_number),
        ("sums of another width", codec::encode(&Sums::zero(wider.dim, wider.classes, wider.bits))),
        ("no rows", changed(good, shape, |rows, _, _, _| *rows = 0)),
        (
            "no rows and no counts",
            changed(good, shape, |rows, counts, _, _| {
                *rows = 0;
                counts.fill(0);
            }),
        ),
        ("absurd rows", bits(16, &u64::MAX.to_le_bytes())),
        (
            "absurd rows with counts that add up",
            changed(good, shape, |rows, counts, _, _| {
                *rows = 1 << 62;
                counts.fill(0);
                counts[0] = 1 << 62;
            }),
        ),
        ("counts that do not add up", changed(good, shape, |_, counts, _, _| counts[0] += 1)),
        ("a negative diagonal", changed(good, shape, |_, _, gram, _| gram[0] = -1)),
        (
            "a diagonal above the bound",
            changed(good, shape, |rows, _, gram, _| {
                gram[0] = *rows as i64 * shape.max_abs * shape.max_abs + 1;
            }),
        ),
        (
            "an element above the bound of Cauchy and Schwarz",
            changed(good, shape, |_, _, gram, _| gram[1] = gram[0] + gram[shape.dim]),
        ),
        ("the largest integer", changed(good, shape, |_, _, gram, _| gram[1] = i64::MAX)),
        (
            "a cross sum above the bound",
            changed(good, shape, |_, counts, _, cross| {
                cross[0] = counts[0] as i64 * shape.max_abs + 1;
            }),
        ),
        ("the smallest integer", changed(good, shape, |_, _, _, cross| cross[0] = i64::MIN)),
    ]
}

fn hostile_surveys(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let with = |path: &[&str], value: serde_json::Value| {
        let mut survey: serde_json::Value = serde_json::from_slice(good).unwrap();
        let mut at = &mut survey;
        for key in path {
            at = &mut at[*key];
        }
        *at = value;
        serde_json::to_vec(&survey).unwrap()
    };
    let mut many = serde_json::Map::new();
    for class in 0..70_000 {
        many.insert(format!("c{class}"), 0.into());
    }
    many.insert("0".to_owned(), serde_json::json!(80));
    [
        ("nothing", Vec::new()),
        ("no JSON", b"}{".to_vec()),
        ("another document", b"{\"survey\": true}".to_vec()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("deep nesting", b"[".repeat(100_000)),
        ("negative rows", with(&["rows_train"], (-1).into())),
        ("fractional rows", with(&["rows_train"], 1.5.into())),
        ("absurd rows", with(&["rows_train"], (u64::MAX).into())),
        ("counts that do not add up", with(&["classes", "0"], 1_000_000.into())),
        (
            "counts that overflow",
            with(&["classes"], serde_json::json!({"0": u64::MAX, "1": u64::MAX, "2": 3})),
        ),
        ("a class without a name", with(&["classes", ""], 0.into())),
        ("a class with a line break", with(&["classes", "a\nb"], 0.into())),
        ("a class with a very long name", with(&["classes", &"x".repeat(10_000)], 0.into())),
        ("too many classes", with(&["classes"], many.into())),
        ("no columns", with(&["inputs", "dim"], 0.into())),
        ("absurd columns", with(&["inputs", "dim"], (1_u64 << 40).into())),
        ("an unknown key", with(&["surprise"], 1.into())),
    ]
    .into_iter()
    .map(|(what, bytes)| (what.to_owned(), bytes))
    .collect()
}

/// A site may answer a task so often, for its disk may damage an answer.
const ANSWERS_A_TASK: usize = 4;

/// A site made by hand that lies first.
struct Liar {
    site: RawSite,
    session: RawSession,
    rows: Dataset,
}

impl Liar {
    /// Every answer is refused with a reason, and the journal is as long as before.
    async fn is_refused(&self, cluster: &Cluster, task: &Task, hostile: &[(String, Vec<u8>)]) {
        assert!(hostile.len() < ANSWERS_A_TASK, "one is left for the right answer");
        let before = events_about(cluster, self.site.name.as_str());
        for (what, bytes) in hostile {
            let ack = self.site.answer(task, bytes).await.unwrap_or_else(|status| panic!("{what}: {status}"));
            assert_eq!(ack.verdict(), Verdict::Refused, "{what}");
            assert!(
                ack.reason.contains(&task.phase) && ack.reason.len() > task.phase.len() + 10,
                "{what} is refused without a reason: {:?}",
                ack.reason
            );
            assert_eq!(events_about(cluster, self.site.name.as_str()), before, "{what} changed the run");
        }
    }

    async fn is_accepted(&self, task: &Task, good: &[u8]) {
        let ack = self.site.answer(task, good).await.unwrap();
        assert_eq!(ack.verdict(), Verdict::Accepted, "{}", ack.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_what_can_be_is_taken_after_it() {
    let study = features(400, 6, 3, 31, "");
    let sites = study.deal(20);
    let mut cluster = Cluster::start(Kind::Here).await;
    cluster.join(&study, &sites[0], &Rules::default()).await;
    let mut liars = Vec::new();
    for rows in &sites[1..] {
        let site = RawSite::enrol(&cluster, &rows.name).await;
        let session = site.session().await.unwrap();
        let rows = study.dataset.subset(&rows.rows);
        liars.push(Liar { site, session, rows });
    }
    cluster.operator.submit(&study.plan, "run").await;

    wait_for_phase(&cluster, "survey").await;
    let mut hostile = None;
    for liar in &mut liars {
        let task = liar.session.task("survey").await;
        let good = crate::answers::survey(&liar.site, &task, &liar.rows).await;
        let hostile = hostile.get_or_insert_with(|| hostile_surveys(&good));
        let now = hostile.split_off(hostile.len().saturating_sub(ANSWERS_A_TASK - 1));
        liar.is_refused(&cluster, &task, &now).await;
        liar.is_accepted(&task, &good).await;
    }
    assert_eq!(hostile, Some(Vec::new()), "all were tried");

    wait_for_phase(&cluster, "sums").await;
    let mut random = Random::new(32);
    let mut hostile = None;
    for liar in &mut liars {
        let task = liar.session.task("sums").await;
        let (spec, good) = crate::answers::sums_of(&liar.site, &task, &liar.rows).await;
        let shape = SumsShape::of(&spec.features, spec.encoding.classes.len());
        let hostile = hostile.get_or_insert_with(|| {
            let named = hostile_sums(&good, &shape).into_iter();
            let noise = (0..25).map(|i| (format!("noise {i}"), random.bytes(1 + i * 61)));
            named.map(|(what, bytes)| (what.to_owned(), bytes)).chain(noise).collect::<Vec<_>>()
        });
        let now = hostile.split_off(hostile.len().saturating_sub(ANSWERS_A_TASK - 1));
        liar.is_refused(&cluster, &task, &now).await;
        liar.is_accepted(&task, &codec::encode(&good)).await;
    }
    assert_eq!(hostile, Some(Vec::new()), "all were tried");

    wait_for_phase(&cluster, "evaluate").await;
    let absurd = [
        "null",
        "{}",
        r#"{"train_rows":1,"test_rows":5,"unknown_class_rows":0,"federated":null,"scores":{},"local":null}"#,
    ];
    let mut absurd = absurd.map(|text| (text.to_owned(), text.as_bytes().to_vec())).to_vec();
    let nothing = r#"{"train_rows":1,"test_rows":0,"unknown_class_rows":0,"federated":null,"scores":null,"local":null}"#;
    for liar in &mut liars {
        let task = liar.session.task("evaluate").await;
        liar.is_refused(&cluster, &task, &std::mem::take(&mut absurd)).await;
        liar.is_accepted(&task, nothing.as_bytes()).await;
    }
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_cannot_fill_the_disk_with_answers() {
    let study = features(60, 6, 3, 33, "");
    let cluster = Cluster::start(Kind::Here).await;
    let raw = RawSite::enrol(&cluster, "a").await;
    let mut session = raw.session().await.unwrap();
    cluster.operator.submit(&study.plan, "run").await;
    let task = session.task("survey").await;
    for number in 0..ANSWERS_A_TASK {
        let ack = raw.answer(&task, format!("lie {number}").as_bytes()).await.unwrap();
        assert_eq!(ack.verdict(), Verdict::Refused);
    }
    let refused = raw.answer(&task, b"one more").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
}
