//! The target by what it was tuned on: how it does on test records, and how it learnt.

use sheaf_proto::rewardds::Arm;

use super::super::markup::Escaped;
use super::super::quantity::{count, counted, measured};
use super::super::scores::{missing_cell, number_cell, share_cell};
use crate::report::{RewardArm, RewardFigures, RewardReport};

/// What the target was tuned on.
const fn words(arm: Arm) -> &'static str {
    match arm {
        Arm::Untuned => "Nothing",
        Arm::Unfiltered => "All queries, one response each",
        Arm::Random => "A draw of queries and responses",
        Arm::Rouge => "Filtered by ROUGE-L with the other candidates",
        Arm::Embedding => "Filtered by cosine with the query",
        Arm::Perplexity => "Filtered by the generation proxy’s perplexity",
        Arm::Rgf => "Reward guided filtering",
        Arm::RgfSor => "Reward guided filtering and refinement",
        Arm::NonPrivate => "The private records themselves (bound)",
    }
}

fn arm_of(report: &RewardReport, arm: Arm) -> Option<&RewardArm> {
    report.arms.iter().find(|of| of.arm == arm)
}

/// Whether an arm's figures were measured with all records at hand ([`RewardReport::figures`]).
fn is_exact(report: &RewardReport, arm: Arm) -> bool {
    report.judged.as_ref().is_some_and(|judged| judged.rows > 0 && judged.arms.contains_key(&arm))
}

/// Test records of all sites, as far as they are known.
fn rows(report: &RewardReport) -> Option<u64> {
    let judged = report.judged.as_ref().map(|judged| judged.rows).filter(|rows| *rows > 0);
    judged.or_else(|| measured(report.rows).map(|rows| rows.max(0.0).round() as u64))
}

/// How the target does on test records, arm by arm.
pub(super) fn write_figures(out: &mut String, report: &RewardReport) {
    let arms = Arm::ALL.into_iter().map(|arm| (arm, report.figures(arm)));
    let shown: Vec<_> =
        arms.filter(|(arm, figures)| figures.is_some() || arm_of(report, *arm).is_some()).collect();
    if shown.iter().all(|(_, figures)| figures.is_none()) {
        put!(out, "<p class=\"quiet\">The target was not measured on test records in this run.</p>\n");
    }
    if shown.is_empty() {
        return;
    }
    let code = shown.iter().any(|(_, figures)| figures.is_some_and(|figures| figures.pass_at_1.is_some()));
    let of = rows(report).map(|rows| format!(" ({} of them)", count(rows))).unwrap_or_default();
    put!(
        out,
        "<div class=\"scroll\"><table class=\"scores\">\n<caption>Target: {}. By what it was tuned on; means over the sites’ test \
         records{of}: negative log-likelihood (NLL) of the record’s own response in nats a token and e to it, the perplexity; \
         ROUGE F1 and words of the target’s likeliest answer. Figures are exact where all records are at hand, which only a \
         simulation has; else they are as the sites say them, with the noise that they were paid for with.</caption>\n\
         <thead><tr><th scope=\"col\">Tuned on</th>",
        Escaped(&report.target)
    );
    for head in ["Examples", "NLL", "Perplexity", "ROUGE-1", "ROUGE-2", "ROUGE-L", "Words"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    if code {
        put!(out, "<th scope=\"col\" class=\"num\">Pass@1</th>");
    }
    put!(out, "<th scope=\"col\">Figures of</th></tr></thead>\n<tbody>\n");
    for (arm, figures) in shown {
        let examples = arm_of(report, arm).and_then(|of| of.examples).map(|n| count(n as u64));
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{}</td>",
            Escaped(words(arm)),
            examples.unwrap_or_default()
        );
        let source = if is_exact(report, arm) { "all records" } else { "the sites" };
        write_cells(out, figures.as_ref(), code);
        put!(out, "<td>{}</td></tr>\n", if figures.is_some() { source } else { "" });
    }
    put!(out, "</tbody>\n</table></div>\n");
    if let Some(left_out) = report.judged.as_ref().map(|judged| judged.duplicates).filter(|n| *n > 0) {
        put!(
            out,
            "<p>{} left out since a test record nearly equals {}.</p>\n",
            Escaped(&counted(left_out, "training record was", "training records were")),
            if left_out == 1 { "it" } else { "them" }
        );
    }
}

/// An arm's figures in the order of the table's heads.
fn write_cells(out: &mut String, figures: Option<&RewardFigures>, code: bool) {
    let Some(figures) = figures else {
        out.push_str(&missing_cell().repeat(if code { 7 } else { 6 }));
        return;
    };
    for (value, places) in [
        (Some(figures.nll), 4),
        (Some(figures.perplexity), 2),
        (figures.rouge_1, 4),
        (figures.rouge_2, 4),
        (Some(figures.rouge_l), 4),
        (figures.words, 1),
    ] {
        out.push_str(&number_cell(value, places));
    }
    if code {
        out.push_str(&share_cell(figures.pass_at_1, 1));
    }
}

/// How the target came to know held-out synthetic examples while it was tuned.
pub(super) fn write_held(out: &mut String, arms: &[RewardArm]) {
    if arms.iter().all(|arm| arm.held.is_empty()) {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"held\">\n<caption>While the target was tuned: negative log-likelihood of held-out \
         synthetic examples, nats a token. The adapter after the best pass was taken. Refinement is shown in its last \
         round.</caption>\n<thead><tr><th scope=\"col\">Tuned on</th>"
    );
    for head in ["Tokens", "Passes", "Before", "Best pass", "After it", "After the last"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for arm in arms.iter().filter(|arm| !arm.held.is_empty()) {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td>{}<td class=\"num\">{}</td>{}{}</tr>\n",
            Escaped(words(arm.arm)),
            count(arm.tokens),
            count(arm.held.len().saturating_sub(1) as u64),
            number_cell(arm.held.first().copied(), 4),
            count(arm.pass as u64),
            number_cell(arm.held.get(arm.pass).copied(), 4),
            number_cell(arm.held.last().copied(), 4)
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}
