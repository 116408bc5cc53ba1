use std::collections::BTreeMap;

use sheaf_proto::rewardds::{Figures, Likelihood, Share};
use sheaf_text::{
    Funnel, Step,
    reward::{Histogram, Variety},
};

use super::*;
use crate::report::{
    LlmUse, PoolRound, Report, RewardArm, RewardFigures, RewardJudged, Spread,
    html::{
        render,
        tests::{assert_balanced, samples::hospitals},
    },
};

const EVIL: &str = "</td></svg><script>alert(\"1\")</script>' onload='x\u{202e}";

fn arm(arm: Arm, nll: f64, rouge_l: f64) -> RewardArm {
    let said = RewardFigures {
        nll,
        perplexity: nll.exp(),
        rouge_l,
        rouge_1: Some(0.4),
        rouge_2: None,
        words: Some(21.5),
        pass_at_1: None,
    };
    RewardArm { arm, examples: None, tokens: 0, held: Vec::new(), pass: 0, said: Some(said) }
}

fn round(round: u32) -> PoolRound {
    let histogram = |counts: [u64; 4]| Histogram { low: -4.0, high: 4.0, counts: counts.to_vec() };
    let variety =
        |texts| Variety { texts, mean_words: 12.0 * f64::from(round), distinct_1: 0.25, distinct_2: 0.75 };
    PoolRound {
        round,
        queries: 300,
        accepted: 38,
        pool: 1038,
        threshold: (round > 1).then_some(-0.25),
        verdicts: BTreeMap::from([("accepted".to_owned(), 38), ("in the pool already".to_owned(), 1262)]),
        scores: Spread {
            candidates: histogram([0, 30, 10, 0]),
            chosen: histogram([0, 0, 10, 5]),
            pool: histogram([0; 4]),
        },
        variety: Spread { candidates: variety(1800), chosen: variety(300), pool: variety(0) },
    }
}

fn sample() -> RefinementSample {
    RefinementSample {
        round: 2,
        query: "What is a fever?".to_owned(),
        chosen: "A raised temperature.".to_owned(),
        rejected: "A bird.".to_owned(),
        feedback: "Say when it is raised.".to_owned(),
        revision: "A temperature over 38 degrees.".to_owned(),
        scores: [0.5, -1.25, f64::NAN],
        verdict: "accepted".to_owned(),
    }
}

fn report() -> RewardReport {
    let refined = RewardArm {
        examples: Some(1375),
        tokens: 12_345,
        held: vec![2.4, 2.1, 2.3],
        pass: 1,
        ..arm(Arm::RgfSor, 2.0, 0.25)
    };
    let mut step = Step::new("different queries", 450);
    step.drop_one("duplicate");
    RewardReport {
        target: "SmolLM2 with an adapter".to_owned(),
        proxies: vec![ProxyReport {
            owner: "clinic".to_owned(),
            generator_bytes: 1_900_000,
            reward_bytes: 6200,
        }],
        arms: vec![
            arm(Arm::Untuned, 3.0, 0.1),
            arm(Arm::Random, 2.6, 0.2),
            arm(Arm::Perplexity, 2.7, 0.15),
            refined,
        ],
        rows: Some(40.2),
        pairs: Some(Pairs { rows: 40.0, right: 30.0, by_pair: None }),
        rounds: vec![round(1), round(2)],
        funnel: Funnel { steps: vec![step] },
        samples: vec![sample()],
        llm: None,
        judged: None,
    }
}

fn empty() -> RewardReport {
    RewardReport {
        target: String::new(),
        proxies: Vec::new(),
        arms: Vec::new(),
        rows: None,
        pairs: None,
        rounds: Vec::new(),
        funnel: Funnel::default(),
        samples: Vec::new(),
        llm: None,
        judged: None,
    }
}

fn page(report: &RewardReport) -> String {
    let mut out = String::new();
    write(&mut out, report);
    out
}

/// The whole page of a run with such a report.
fn whole(reward: RewardReport) -> String {
    let mut report: Report = hospitals();
    report.metrics = crate::report::Metrics::default();
    report.reward = Some(reward);
    render(&report)
}

/// The table's row under a head.
fn row<'a>(page: &'a str, head: &str) -> &'a str {
    page.lines().find(|line| line.contains(&format!("<th scope=\"row\">{head}</th>"))).unwrap()
}

#[test]
fn the_parts_stand_in_the_order_of_reading() {
    let page = page(&report());
    let parts = [
        "Target: SmolLM2 with an adapter",
        "in the right order, on 40 records",
        "Rewards in round 1",
        "Rewards in round 2",
        "Rising length with falling distinct-n is reward hacking",
        "The filtering, then each round of refinement",
        "While the target was tuned",
        "A few refinements side by side",
        "What was dropped on the way",
        "The proxies as they reached the coordinator",
    ];
    let places = parts.map(|part| page.find(part).unwrap_or_else(|| panic!("{part}")));
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(page.matches("<table").count(), page.matches("<caption>").count());
}

#[test]
fn nothing_is_written_of_empty_parts() {
    let page = page(&empty());
    assert!(page.contains("was not measured"));
    assert!(!page.contains("<table") && !page.contains("<svg") && page.matches('\n').count() == 1, "{page}");
}

#[test]
fn exact_figures_go_before_what_the_sites_say() {
    let mut report = report();
    let sums = |nll| Figures { nll, rouge_l: 3.0, passed: Some(4.0), ..Figures::default() };
    report.judged = Some(RewardJudged {
        rows: 10,
        arms: BTreeMap::from([(Arm::RgfSor, sums(12.5)), (Arm::NonPrivate, sums(7.5))]),
        pairs: Some(Pairs { rows: 8.0, right: 7.0, by_pair: Some([Share { right: 3, of: 4 }; 3]) }),
        generator: Some(Likelihood { rows: 8, untuned: 27.6, tuned: 24.96 }),
        duplicates: 2,
    });
    let page = page(&report);
    let refined = row(&page, "Reward guided filtering and refinement");
    for part in [">1,375<", ">1.2500<", ">0.3000<", ">40.0%<", "<td>all records</td>"] {
        assert!(refined.contains(part), "{part} in {refined}");
    }
    assert!(row(&page, "Nothing").contains("<td>the sites</td>"));
    assert!(row(&page, "The private records themselves (bound)").contains(">0.7500<"));
    assert!(row(&page, "All pairs").contains(">87.5%<"));
    assert!(row(&page, "The record’s own response before the untuned model’s").contains(">75.0%<"));
    assert!(page.contains("records (10 of them)") && page.contains("2 training records were left out"));
    assert!(page.contains("The generation proxy on test records: 3.120 nats a token (untuned 3.450)"));
}

#[test]
fn missing_figures_are_said_to_be_missing() {
    let page = page(&report());
    assert!(page.contains("records (40 of them)") && !page.contains("Pass@1") && !page.contains("NaN"));
    assert!(!page.contains("The generation proxy on test records"));
    // ROUGE-2, which noised figures lack.
    assert_eq!(row(&page, "Nothing").matches("title=\"not measured\"").count(), 1);
    // A revision's score and the filtering's threshold.
    assert!(page.contains("score –, accepted") && row(&page, "1").contains("all candidates"));
    // The variety of an empty pool.
    assert_eq!(page.lines().filter(|line| line.contains("<td>pool</td><td class=\"num\">0</td>")).count(), 2);

    let mut hosted = report();
    hosted.pairs = None;
    for arm in &mut hosted.arms {
        arm.said = None;
    }
    let page = self::page(&hosted);
    assert!(page.contains("The target was not measured") && !page.contains("in the right order"));
    assert_eq!(row(&page, "Reward guided filtering and refinement").matches("not measured").count(), 6);
    assert!(tiles(&hosted).iter().all(|(_, _, value, _)| value == "not measured"));
}

#[test]
fn the_held_out_curve_is_told_in_numbers() {
    let page = page(&report());
    let (_, held) = page.split_once("While the target was tuned").unwrap();
    let refined = row(held, "Reward guided filtering and refinement");
    for part in [">12,345<", ">2<", ">2.4000<", ">1<", ">2.1000<", ">2.3000<"] {
        assert!(refined.contains(part), "{part} in {refined}");
    }
}

#[test]
fn rounds_are_drawn_side_by_side_and_the_middle_ones_of_many_are_left_out() {
    let two = page(&report());
    assert_eq!(two.matches("<svg").count(), 2);
    for part in [
        "All candidates (40)",
        "Each query’s best (15)",
        "Pool (0)",
        "the highest bar (30) from −2.00 to 0.00",
        "Pool: none",
    ] {
        assert!(two.contains(part), "{part}");
    }
    assert!(two.contains("All candidates, −2.00 to 0.00: 30 of 40"));
    assert!(row(&two[two.find("The filtering, then").unwrap()..], "2").contains(">−0.250<"));

    let rounds: Vec<_> = (1..=9).map(round).collect();
    let many = page(&RewardReport { rounds, ..empty() });
    assert_eq!(many.matches("<svg").count(), 6);
    assert!(many.contains("the last 5 of 9 rounds") && many.contains("<figcaption>Rewards in round 1:"));
    assert!(!many.contains("Rewards in round 4") && many.contains("Rewards in round 5"));
}

#[test]
fn the_top_speaks_of_the_main_arm_and_of_the_reward() {
    let [nll, rouge, accuracy] = tiles(&report()).map(|(_, _, value, note)| (value, note));
    assert_eq!(nll.0, "2.000");
    assert!(nll.1.contains("refined; −1.000 nats a token against untuned"), "{nll:?}");
    assert_eq!(rouge.0, "0.250");
    assert!(rouge.1.contains("+0.050 against the best naive filter (random)"), "{rouge:?}");
    assert_eq!(accuracy.0, "75.0%");
    assert!(accuracy.1.contains("40 test records"), "{accuracy:?}");
}

#[test]
fn a_page_has_the_section_in_the_place_of_accuracy() {
    let page = whole(report());
    assert_balanced(&page);
    assert!(page.contains("<h2>What the target learnt</h2>") && !page.contains("<h2>Accuracy</h2>"));
    assert!(page.contains("Proxies of 4 sites wrote and rewarded") && page.contains("Reward accuracy"));
    assert!(!page.contains("trained one model together") && !page.contains("NaN"));
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn outside_text_stays_text() {
    let mut report = report();
    let text = || EVIL.to_owned();
    report.target = text();
    report.proxies[0].owner = text();
    report.rounds[0].verdicts = BTreeMap::from([(text(), 3)]);
    report.funnel.steps[0].name = text();
    report.funnel.steps[0].dropped = BTreeMap::from([(text(), 1)]);
    let RefinementSample { query, chosen, rejected, feedback, revision, verdict, .. } =
        &mut report.samples[0];
    for written in [query, chosen, rejected, feedback, revision, verdict] {
        *written = text();
    }
    report.llm = Some(LlmUse {
        model: text(),
        requests: 1200,
        from_cache: 0,
        prompt_tokens: 1,
        completion_tokens: 1,
        cost: Some(0.5),
        seconds: 0.0001,
    });
    let page = whole(report);
    assert_balanced(&page);
    assert!(!page.contains("<script") && !page.contains("' onload") && !page.contains('\u{202e}'));
    // Target twice, owner, verdict, step, reason, six of the sample, model.
    assert_eq!(page.matches("&lt;script&gt;").count(), 13);
    assert!(page.contains("answered 1,200 requests") && page.contains("in &lt;1 ms. It cost 0.50."));
}
