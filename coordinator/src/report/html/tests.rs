//! The page as a reader, a browser and an attacker meet it.

pub(super) mod samples;

use super::markup::{Escaped, shortened};
use super::quantity::{bytes, count, duration, moment, number, percent, points, signed};
use super::render;
use super::svg::Scale;
use crate::report::Report;

fn all_samples() -> Vec<Report> {
    vec![
        samples::hospitals(),
        samples::drop_outs(),
        samples::empty(),
        samples::many(1, 1),
        samples::many(40, 12),
        samples::many(41, 13),
        samples::many(100, 10),
        samples::many(61, 150),
        samples::many(1000, 20),
        samples::rounds(1, false),
        samples::rounds(6, false),
        samples::rounds(150, false),
        samples::rounds(6, true),
    ]
}

/// Walks the tags of a page and fails on the first that does not close what was opened.
pub(super) fn assert_balanced(page: &str) {
    const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("</style>").unwrap().1;
    for piece in body.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag that ends");
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            if name == "head" {
                continue; // opened before the style
            }
            let last = open.pop();
            assert!(last == Some(name) || name == "html", "</{name}> closes {last:?}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn every_sample_is_one_sound_self_contained_page() {
    for report in all_samples() {
        let page = render(&report);
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert_balanced(&page);
        for outside in
            ["<script", "<link", "<img", "@import", "url(", "http://", "https://", " src=", " href="]
        {
            assert!(!page.contains(outside), "{outside} in {}", report.run.name);
        }
        for number in ["NaN", "inf\"", ">inf", "Infinity"] {
            assert!(!page.contains(number), "{number} in {}", report.run.name);
        }
        assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
        assert_eq!(page.matches("<table").count(), page.matches("<caption>").count());
        assert!(page.len() < 2_000_000, "{} bytes", page.len());
    }
}

#[test]
fn ids_are_unique() {
    let page = render(&samples::many(12, 5));
    let mut ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    assert!(all >= 8);
}

#[test]
fn outside_text_stays_text_wherever_it_stands() {
    const EVIL: &str = "</title></svg><script>alert(\"1\")</script>' onload='x\u{202e}\0&amp;";
    let mut report = samples::hospitals();
    let Report { run, model, metrics, sites, timing, environment, .. } = &mut report;
    for text in [
        &mut run.id,
        &mut run.name,
        &mut run.workload,
        &mut run.plan_sha256,
        &mut run.status,
        &mut run.started_at,
    ] {
        EVIL.clone_into(text);
    }
    EVIL.clone_into(&mut run.plan);
    for text in [&mut model.file, &mut model.sha256, &mut environment.version, &mut environment.backend] {
        EVIL.clone_into(text);
    }
    model.pooled_sha256 = Some(EVIL.to_owned());
    for class in &mut model.classes {
        EVIL.clone_into(class);
    }
    for scores in [&mut metrics.test, &mut metrics.pooled].into_iter().flatten() {
        EVIL.clone_into(&mut scores.measured_on);
        for class in &mut scores.per_class {
            EVIL.clone_into(&mut class.class);
        }
    }
    for site in sites.iter_mut() {
        EVIL.clone_into(&mut site.name);
        EVIL.clone_into(&mut site.status);
        site.reason = Some(EVIL.to_owned());
    }
    EVIL.clone_into(&mut timing.phases[0].name);
    let page = render(&report);
    assert_balanced(&page);
    assert!(
        !page.contains("<script")
            && !page.contains("' onload")
            && !page.contains('\u{202e}')
            && !page.contains('\0')
    );
    assert!(page.contains(
        "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39; onload=&#39;x\u{fffd}\u{fffd}&amp;amp;"
    ));
}

#[test]
fn hashes_are_compared_only_when_the_pooled_hash_is_known() {
    let (equal, differ) = ("pooled model are equal, bit for bit", "pooled model differ.");
    let mut report = samples::hospitals();
    let page = render(&report);
    assert!(page.contains(equal) && !page.contains(differ) && page.contains('✓'));

    report.model.pooled_sha256 = Some("00".repeat(32));
    let page = render(&report);
    assert!(!page.contains(equal) && page.contains(differ) && page.contains('✗'));

    // Two statements that contradict each other must not be shown as proof of equality.
    report.model.pooled_sha256 = Some(report.model.sha256.clone());
    report.model.equal_to_pooled = Some(false);
    assert!(!render(&report).contains(equal));

    // A run that made no model has nothing to compare.
    let mut failed = report.clone();
    failed.model.sha256.clear();
    assert!(!render(&failed).contains("class=\"verdict"));

    report.model.pooled_sha256 = None;
    report.model.equal_to_pooled = None;
    let page = render(&report);
    assert!(!page.contains(equal) && !page.contains(differ) && !page.contains("class=\"verdict"));
}

#[test]
fn the_headline_claims_only_what_happened() {
    assert!(
        render(&samples::hospitals())
            .contains("4 sites trained one model together; no record left its site.")
    );
    assert!(render(&samples::many(1, 1)).contains("One site trained a model; no record left the site."));
    let page = render(&samples::empty());
    assert!(page.contains("This run has not finished") && !page.contains("trained one model"));
    let mut failed = samples::hospitals();
    "failed".clone_into(&mut failed.run.status);
    assert!(render(&failed).contains("This run ended without a model"));
}

#[test]
fn absent_sites_are_named_with_their_reasons() {
    let page = render(&samples::drop_outs());
    assert!(
        page.contains("3 of 9 invited sites are not in the model: 1 declined, 1 dropped out, 1 withdrawn.")
    );
    assert!(page.contains("policy: the smallest cohort is 500 rows, the task would use 212"));
    assert!(page.contains("(Clinic 3)"));

    // Beyond the hundredth row of the table, too.
    let mut report = samples::many(300, 3);
    "dropped".clone_into(&mut report.sites[299].status);
    let page = render(&report);
    assert!(page.contains("site-0299") && page.contains("no reason was given"));
    assert!(page.contains("The first 100 of 300 sites; the rest are in"));
}

#[test]
fn missing_numbers_are_said_to_be_missing() {
    let page = render(&samples::drop_outs());
    assert!(page.contains("<strong>not measured</strong>"));
    assert!(page.contains("<abbr title=\"not measured\">–</abbr>"));
}

#[test]
fn forms_change_with_size() {
    let small = render(&samples::many(40, 12));
    assert!(small.contains("weakest local-only model first") && small.contains("class=\"c11\""));
    let large = render(&samples::many(41, 13));
    assert!(large.contains("each curve sorted on its own") && large.contains("class=\"q8\""));
    assert!(small.contains("Confusion matrix of") && !small.contains("kinds of mistake"));
    assert!(render(&samples::many(3, 21)).contains("The 15 most frequent of 42 kinds of mistake"));
    let many = render(&samples::many(61, 150));
    assert!(many.contains("The 60 largest of 61 sites are drawn"));
    assert!(many.contains("The 100 most frequent of 150 classes are drawn."));
    assert!(many.contains("The 30 of 150 classes with the lowest recall"));
}

#[test]
fn counts_and_names_of_different_length_do_no_harm() {
    let mut report = samples::hospitals();
    report.model.classes.truncate(1);
    report.sites[0].class_counts = vec![u64::MAX, u64::MAX, 1];
    report.sites[1].class_counts = Vec::new();
    let scores = report.metrics.test.as_mut().unwrap();
    scores.confusion = vec![vec![u64::MAX], Vec::new(), vec![1, u64::MAX, 3, 4]];
    scores.accuracy = 7.5;
    report.sites[2].metrics.accuracy = Some(-3.0);
    report.timing.phases[0].seconds = f64::INFINITY;
    let page = render(&report);
    assert_balanced(&page);
    assert!(page.contains("class 3"));
}

#[test]
fn shares_do_not_round_up_to_perfect() {
    let shares = [(0.9534, 1), (0.99999, 1), (1.0, 1), (0.00001, 1), (0.0, 0), (0.999, 0), (0.996, 2)];
    let texts = shares.map(|(share, decimals)| percent(share, decimals));
    assert_eq!(texts, ["95.3%", ">99.9%", "100.0%", "<0.1%", "0%", ">99%", "99.60%"]);
    assert_eq!([0.1234, -0.05, 0.0, -0.00001].map(points), ["+12.3", "−5.0", "0.0", "0.0"]);
}

#[test]
fn quantities_read_well() {
    assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!(
        [0, 999, 1000, 999_499, 999_500, 41_300_000, 512_000_000, u64::MAX].map(bytes),
        ["0 B", "999 B", "1.0 kB", "999 kB", "1.0 MB", "41.3 MB", "512 MB", "18447 PB"]
    );
    assert_eq!(
        [0.0, 0.0002, 0.25, 12.34, 75.0, 3725.0, 200_000.0, f64::NAN, -1.0].map(duration),
        [
            "0 s",
            "<1 ms",
            "250 ms",
            "12.3 s",
            "1 min 15 s",
            "1 h 2 min",
            "2 d 7 h",
            "not measured",
            "not measured"
        ]
    );
    assert_eq!(moment("2025-11-23T09:14:02.518Z"), "2025-11-23 09:14:02 UTC");
    assert_eq!(moment("2025-11-23T09:14:02+02:00"), "2025-11-23 09:14:02 +02:00");
    assert_eq!(["", "yesterday", "12T3", "Tééééééé"].map(moment), ["", "yesterday", "12T3", "Tééééééé"]);
}

#[test]
fn numbers_have_the_sign_that_is_seen() {
    let numbers = [2.5, -0.25, -0.0004, -0.0, 1_234_567.0, f64::NAN].map(|value| number(value, 3));
    assert_eq!(numbers, ["2.500", "−0.250", "0.000", "0.000", "1.23e6", "not measured"]);
    let differences = [0.05, -1.0, 0.0004, f64::INFINITY].map(|value| signed(value, 3));
    assert_eq!(differences, ["+0.050", "−1.000", "0.000", "not measured"]);
}

#[test]
fn labels_are_cut_to_columns() {
    assert_eq!(shortened("Rigshospitalet", 14), "Rigshospitalet");
    assert_eq!(shortened("Hospital Clínic de Barcelona", 16), "Hospital Clínic…");
    assert_eq!(shortened("東京大学医学部附属病院", 9), "東京大学…");
    assert_eq!(Escaped("a\r\nb\u{7}").to_string(), "a\nb\u{fffd}");
}

#[test]
fn scales_hold_their_values() {
    let scale = Scale::of_shares([0.953, 0.955].into_iter(), (0.0, 100.0));
    assert!(scale.at(0.953) > 0.0 && scale.at(0.955) < 100.0);
    assert!(scale.at(-9.0) >= 0.0 && scale.at(9.0) <= 100.0);
    for values in [vec![], vec![0.0], vec![1.0], vec![0.0, 1.0], vec![0.71, 0.98]] {
        let ticks = Scale::of_shares(values.into_iter(), (0.0, 1.0)).share_ticks();
        assert!((3..=9).contains(&ticks.len()), "{ticks:?}");
    }
}

#[test]
fn rounds_are_drawn_against_what_was_sent_and_name_who_missed_one() {
    let page = render(&samples::rounds(6, false));
    for part in [
        "Accuracy by round against bytes sent",
        "AFL, one round",
        "3 of 4",
        "&lt;b&gt;St Vincent (no answer &amp; late)",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let page = render(&samples::rounds(6, true));
    assert!(page.contains("Test loss by round") && page.contains("What the model writes"));
    assert!(page.contains("Perplexity") && !page.contains("accuracy</span>"));
    assert!(page.contains("What is a &lt;fever&gt;?") && page.contains("a sign, not an illness"));
    assert!(render(&samples::rounds(150, false)).contains("The last 100 of 150"));
    assert!(!render(&samples::hospitals()).contains("by round"), "a run of one round has no such section");
}
