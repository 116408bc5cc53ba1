//! Reports of the shapes a coordinator writes. The numbers are drawn from a fixed sequence and mean nothing.

use crate::report::{
    ClassScores, Comparison, Environment, LocalScores, Metrics, MissedRound, ModelInfo, PhaseTiming, Report,
    RoundReport, RunInfo, Scores, SiteMetrics, SiteReport, TextSample, Timing,
};

/// A fixed sequence in 0..1 (Lehmer's generator, as in C++'s minstd_rand).
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> f64 {
        self.0 = self.0 * 48271 % 0x7fff_ffff;
        self.0 as f64 / f64::from(0x7fff_ffff_u32)
    }
}

fn scores(classes: &[String], rows: u64, accuracy: f64, measured_on: &str) -> Scores {
    let n = classes.len().max(1) as u64;
    let each = rows / n;
    let right = (each as f64 * accuracy) as u64;
    let confusion: Vec<Vec<u64>> = (0..n)
        .map(|i| {
            let near = if n > 1 { (i + 1) % n } else { i };
            let wrong = each - right;
            let far = if n > 2 { wrong / 3 } else { 0 };
            let cell = |j| match j {
                j if j == i => right,
                j if j == near => wrong - far,
                j if n > 2 && j == (i + 2) % n => far,
                _ => 0,
            };
            (0..n).map(cell).collect()
        })
        .collect();
    let per_class = classes
        .iter()
        .enumerate()
        .map(|(i, class)| ClassScores {
            class: class.clone(),
            support: each,
            recall: Some(accuracy),
            precision: Some(accuracy - 0.002 * (i % 9) as f64),
        })
        .collect();
    Scores {
        rows,
        accuracy,
        balanced_accuracy: accuracy - 0.004,
        auc: (n == 2).then_some(0.9731),
        per_class,
        confusion,
        measured_on: measured_on.to_owned(),
    }
}

fn site(name: String, classes: usize, skew: i32, draw: &mut Sequence) -> SiteReport {
    let size = 200.0 + 3000.0 * draw.next().powi(3);
    let class_counts: Vec<u64> = (0..classes).map(|_| (size * draw.next().powi(skew)) as u64).collect();
    let rows: u64 = class_counts.iter().sum();
    SiteReport {
        name,
        rows: Some(rows),
        status: "in".to_owned(),
        reason: None,
        bytes_up: 1_310_720 + rows,
        bytes_down: 41_000,
        seconds: 2.0 + draw.next() * 9.0,
        class_counts,
        metrics: SiteMetrics {
            test_rows: rows / 5,
            accuracy: Some(0.93 + 0.05 * draw.next()),
            balanced_accuracy: Some(0.91 + 0.05 * draw.next()),
            local_accuracy: Some(0.70 + 0.24 * draw.next()),
        },
        privacy: None,
    }
}

fn report(name: &str, classes: Vec<String>, sites: Vec<SiteReport>) -> Report {
    let rows: u64 = sites.iter().map(|s| s.metrics.test_rows).sum();
    let local = sites.iter().filter_map(|s| s.metrics.local_accuracy).sum::<f64>() / sites.len() as f64;
    let hash = "9f2c1f0f6a1f4b7f6f5e0f1c7d8a43b2e19c5d60718293a4b5c6d7e8f9012345".to_owned();
    Report {
        schema: 1,
        run: RunInfo {
            id: "01JD7Q4Z9M3X".to_owned(),
            name: name.to_owned(),
            workload: "afl".to_owned(),
            plan_sha256: "5b1d8f3e2a4c69708192a3b4c5d6e7f80123456789abcdef0123456789abcdef".to_owned(),
            status: "done".to_owned(),
            version: 1,
            started_at: "2025-11-23T09:14:02.518Z".to_owned(),
            finished_at: Some("2025-11-23T09:14:31Z".to_owned()),
            plan: "name = \"sample\"\nworkload = \"afl\"\n\n[sites]\nminimum = 3\ndeadline = \"10m\"\n"
                .to_owned(),
        },
        metrics: Metrics {
            test: Some(scores(&classes, rows, 0.953, "sites")),
            pooled: Some(scores(&classes, rows, 0.953, "central")),
            local: Some(LocalScores { mean_accuracy: local, sites_measured: sites.len() }),
        },
        model: ModelInfo {
            file: "model.safetensors".to_owned(),
            sha256: hash.clone(),
            classes,
            dim: 512,
            pooled_sha256: Some(hash),
            backbone: None,
            equal_to_pooled: Some(true),
        },
        sites,
        rounds: Vec::new(),
        comparison: None,
        samples: Vec::new(),
        transfer: None,
        reward: None,
        privacy: None,
        timing: Timing {
            total_s: 29.1,
            phases: [("invite", 1.2), ("sums", 17.4), ("solve", 0.62), ("evaluate", 8.1), ("publish", 0.04)]
                .map(|(name, seconds)| PhaseTiming { name: name.to_owned(), seconds })
                .into(),
        },
        environment: Environment {
            version: "0.1.0".to_owned(),
            backend: "faer (cpu, f64)".to_owned(),
            threads: 2,
        },
    }
}

/// Four sites, two classes, equal to pooled.
pub(in crate::report::html) fn hospitals() -> Report {
    let mut draw = Sequence(7);
    let names = ["St Vincent, Dublin", "Rigshospitalet", "Charité Berlin", "Hospital Clínic de Barcelona"];
    let sites = names.map(|n| site(n.to_owned(), 2, 1, &mut draw));
    report("Pneumonia on chest radiographs", vec!["normal".to_owned(), "pneumonia".to_owned()], sites.into())
}

/// `sites` sites and `classes` classes with unequal shares.
pub(super) fn many(sites: usize, classes: usize) -> Report {
    let mut draw = Sequence(11);
    let list = (0..sites).map(|i| site(format!("site-{i:04}"), classes, 6, &mut draw)).collect();
    let classes = (0..classes).map(|i| format!("class {i}")).collect();
    report(&format!("Simulation over {sites} sites"), classes, list)
}

/// Nine sites of which three are not in, nothing pooled, some numbers missing or not finite.
pub(super) fn drop_outs() -> Report {
    let mut draw = Sequence(23);
    let mut sites: Vec<SiteReport> =
        (0..9).map(|i| site(format!("Clinic {}", i + 1), 7, 3, &mut draw)).collect();
    for (i, status, reason) in [
        (2, "dropped", "no result before the deadline of 10 min; last seen 09:14:20"),
        (4, "declined", "policy: the smallest cohort is 500 rows, the task would use 212"),
        (7, "withdrawn", "asked to leave after the run; the model was solved again without its sums"),
    ] {
        let site = &mut sites[i];
        status.clone_into(&mut site.status);
        site.reason = Some(reason.to_owned());
        site.metrics =
            SiteMetrics { test_rows: 0, accuracy: None, balanced_accuracy: None, local_accuracy: None };
    }
    sites[4].class_counts.clear();
    sites[4].rows = Some(0);
    sites[5].metrics.local_accuracy = Some(f64::NAN);
    let classes =
        ["actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma"];
    let classes =
        classes.into_iter().chain(["melanocytic naevus", "vascular lesion"]).map(str::to_owned).collect();
    let mut report = report("Skin lesions, seven classes", classes, sites);
    report.metrics.pooled = None;
    report.metrics.local = Some(LocalScores { mean_accuracy: f64::NAN, sites_measured: 5 });
    report.model.pooled_sha256 = None;
    report.model.equal_to_pooled = None;
    report.run.version = 2;
    report
}

/// A run that has just begun: no sites, no scores, no model.
pub(super) fn empty() -> Report {
    let mut report = report("Nothing yet", Vec::new(), Vec::new());
    report.metrics = Metrics { test: None, pooled: None, local: None };
    report.model.sha256.clear();
    report.model.pooled_sha256 = None;
    report.model.equal_to_pooled = None;
    report.run.finished_at = None;
    "running".clone_into(&mut report.run.status);
    report.timing = Timing { total_s: f64::NAN, phases: Vec::new() };
    report
}

/// A run of rounds of which some are not measured, one has a missing site with a hostile name, and one no number.
pub(super) fn rounds(count: u32, text: bool) -> Report {
    let mut report = hospitals();
    report.run.workload = "fedavg".to_owned();
    (report.model.pooled_sha256, report.model.equal_to_pooled) = (None, None);
    let round = |round: u32| {
        let measured = round.is_multiple_of(2).then(|| 1.0 - 0.4 / f64::from(round));
        RoundReport {
            round,
            asked: 4,
            sites: report.sites.iter().skip(usize::from(round == 3)).map(|site| site.name.clone()).collect(),
            missed: (round == 3)
                .then(|| MissedRound {
                    site: "<b>St Vincent".to_owned(),
                    reason: "no answer & late".to_owned(),
                })
                .into_iter()
                .collect(),
            rows: Some(800),
            loss: Some(if round == 5 { f64::NAN } else { 1.0 / f64::from(round) }),
            accuracy: measured.filter(|_| !text),
            test_loss: measured.filter(|_| text),
            bytes_up: 4 * 1300,
            bytes_down: 4 * 1250,
            parameters: format!("{}:1250", "ab".repeat(32)),
        }
    };
    report.rounds = (1..=count).map(round).collect();
    if text {
        report.samples.push(TextSample {
            prompt: "What is a <fever>?".to_owned(),
            reference: "A body temperature over 38 degrees.".to_owned(),
            before: "I can help with that.".to_owned(),
            after: "A fever is a raised body temperature.\nIt is a sign, not an illness.".to_owned(),
        });
    }
    report.comparison =
        (!text).then(|| Comparison { name: "AFL, one round".to_owned(), accuracy: 0.951, bytes_up: 90_000 });
    report
}
