//! A target that was tuned on rewarded synthetic data: how it does, how good the reward is, and how the pool came about.

mod arms;
mod histograms;
mod pools;

use sheaf_proto::rewardds::{Arm, Pairs};

use super::markup::Escaped;
use super::quantity::{MISSING, bytes, count, counted, measured, number, percent_or_missing, signed};
use super::scores::share_cell;
use super::{funnel, llm};
use crate::report::{ProxyReport, RefinementSample, RewardReport};

/// Rows of a long table; the rest is in `report.json`.
const PROXIES_SHOWN: usize = 100;
/// What is compared, in the order of [`Pairs::by_pair`].
const PAIRS: [&str; 3] = [
    "The record’s own response before the untuned model’s",
    "The record’s own response before the generation proxy’s",
    "The generation proxy’s response before the untuned model’s",
];

pub(super) fn write(out: &mut String, report: &RewardReport) {
    arms::write_figures(out, report);
    write_accuracy(out, report);
    write_generator(out, report);
    histograms::write(out, &report.rounds);
    pools::write_variety(out, &report.rounds);
    pools::write_rounds(out, &report.rounds);
    arms::write_held(out, &report.arms);
    write_samples(out, &report.samples);
    let caption = "What was dropped on the way from draws to queries with candidate responses.";
    funnel::write(out, caption, &[(None, &report.funnel)]);
    write_proxies(out, &report.proxies);
    if let Some(used) = &report.llm {
        put!(out, "<p>The target was {}. {}</p>\n", Escaped(&report.target), Escaped(&llm::sentence(used)));
    }
}

/// The pairs that [`RewardReport::accuracy`] speaks of, and whether they are exact.
fn pairs(report: &RewardReport) -> Option<(&Pairs, bool)> {
    let exact = report.judged.as_ref().and_then(|judged| judged.pairs.as_ref());
    let known = [(exact, true), (report.pairs.as_ref(), false)].into_iter();
    known.filter_map(|(pairs, exact)| Some((pairs?, exact))).find(|(pairs, _)| pairs.accuracy().is_some())
}

fn write_accuracy(out: &mut String, report: &RewardReport) {
    let Some((pairs, exact)) = pairs(report) else { return };
    put!(
        out,
        "<div class=\"scroll\"><table class=\"scores\">\n<caption>How often the reward proxies put two responses to the query \
         of a test record in the right order, on {} that have any pair; a record counts the share of its pairs. {}</caption>\n\
         <thead><tr><th scope=\"col\">Pair</th><th scope=\"col\" class=\"num\">Right</th>\
         <th scope=\"col\" class=\"num\">Of</th><th scope=\"col\" class=\"num\">Share</th></tr></thead>\n<tbody>\n",
        Escaped(&counted(pairs.rows.round() as usize, "record", "records")),
        if exact {
            "Measured with all records at hand, which only a simulation has."
        } else if pairs.by_pair.is_some() {
            "As the sites say it, exactly."
        } else {
            "As the sites say it, with the noise that it was paid for with; single pairs are told without noise alone."
        }
    );
    put!(
        out,
        "<tr><th scope=\"row\">All pairs</th><td class=\"num\"></td><td class=\"num\"></td>{}</tr>\n",
        share_cell(pairs.accuracy(), 1)
    );
    for (words, share) in PAIRS.into_iter().zip(pairs.by_pair.into_iter().flatten()) {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td>{}</tr>\n",
            Escaped(words),
            count(share.right),
            count(share.of),
            share_cell((share.of > 0).then(|| share.right as f64 / share.of as f64), 1)
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}

/// How good the generation proxies are, whatever was made of them.
fn write_generator(out: &mut String, report: &RewardReport) {
    let Some((tuned, untuned)) = report.generator() else { return };
    put!(
        out,
        "<p>The generation proxy on test records: {} nats a token (untuned {}), of query and response. Measured with all records \
         at hand, which only a simulation has.</p>\n",
        number(tuned, 3),
        number(untuned, 3)
    );
}

fn write_samples(out: &mut String, samples: &[RefinementSample]) {
    if samples.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"samples refinements\">\n<caption>A few refinements side by side: what the target \
         said of a query’s best and worst responses, and the revision that the reward liked best.</caption>\n<thead><tr>"
    );
    let heads =
        ["Query", "Best response before", "Worst response before", "Feedback on the two", "Best revision"];
    for head in heads {
        put!(out, "<th scope=\"col\">{}</th>", Escaped(head));
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for sample in samples {
        let [chosen, rejected, revision] =
            sample.scores.map(|score| measured(Some(score)).map_or_else(|| "–".to_owned(), |s| number(s, 3)));
        put!(
            out,
            "<tr><th scope=\"row\">{}<span class=\"score\">round {}</span></th>",
            Escaped(&sample.query),
            sample.round
        );
        scored_cell(out, &sample.chosen, &format!("score {chosen}"));
        scored_cell(out, &sample.rejected, &format!("score {rejected}"));
        put!(out, "<td>{}</td>", Escaped(&sample.feedback));
        scored_cell(out, &sample.revision, &format!("score {revision}, {}", sample.verdict));
        put!(out, "</tr>\n");
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn scored_cell(out: &mut String, text: &str, score: &str) {
    put!(out, "<td>{}<span class=\"score\">{}</span></td>", Escaped(text), Escaped(score));
}

fn write_proxies(out: &mut String, proxies: &[ProxyReport]) {
    if proxies.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"proxies\">\n<caption>The proxies as they reached the coordinator: which site’s, or \
         “shared” where all sites made one pair together, and their size."
    );
    if proxies.len() > PROXIES_SHOWN {
        put!(
            out,
            " The first {PROXIES_SHOWN} of {}; the rest are in <code>report.json</code>.",
            count(proxies.len() as u64)
        );
    }
    put!(
        out,
        "</caption>\n<thead><tr><th scope=\"col\">Owner</th><th scope=\"col\" class=\"num\">Generation proxy</th>\
         <th scope=\"col\" class=\"num\">Reward proxy</th></tr></thead>\n<tbody>\n"
    );
    for proxy in proxies.iter().take(PROXIES_SHOWN) {
        put!(
            out,
            "<tr><th scope=\"row\"><bdi>{}</bdi></th><td class=\"num\">{}</td><td class=\"num\">{}</td></tr>\n",
            Escaped(&proxy.owner),
            Escaped(&bytes(proxy.generator_bytes)),
            Escaped(&bytes(proxy.reward_bytes))
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}

/// The figures at the top: of the run's main arm, and of the reward.
pub(super) fn tiles(report: &RewardReport) -> [(&'static str, &'static str, String, String); 3] {
    let main = [Arm::RgfSor, Arm::Rgf].into_iter().find_map(|arm| Some((arm, report.figures(arm)?)));
    let how = match main {
        Some((Arm::RgfSor, _)) => "filtered and refined",
        Some(_) => "filtered",
        None => "no figures of the target in this run",
    };
    let shown = |value: Option<f64>| value.map_or_else(|| MISSING.to_owned(), |value| number(value, 3));
    let nll = measured(main.map(|(_, figures)| figures.nll));
    let untuned = measured(report.figures(Arm::Untuned).map(|figures| figures.nll));
    let gain = match (nll, untuned) {
        (Some(nll), Some(untuned)) => {
            format!("{how}; {} nats a token against untuned", signed(nll - untuned, 3))
        }
        (Some(_), None) => format!("{how}; nats a token"),
        (None, _) => how.to_owned(),
    };
    let rouge = measured(main.map(|(_, figures)| figures.rouge_l));
    let lead = match (rouge, best_naive(report)) {
        (Some(rouge), Some((arm, naive))) => {
            format!("{} against the best naive filter ({})", signed(rouge - naive, 3), arm.name())
        }
        (Some(_), None) => format!("{how}; no naive filter to compare with"),
        (None, _) => how.to_owned(),
    };
    let judged = pairs(report).map_or_else(
        || "no pair of responses was judged".to_owned(),
        |(pairs, _)| {
            let records = counted(pairs.rows.round() as usize, "test record", "test records");
            format!("pairs of responses to {records} in the right order")
        },
    );
    [
        ("federated", "Negative log-likelihood", shown(nll), gain),
        ("federated", "ROUGE-L", shown(rouge), lead),
        ("", "Reward accuracy", percent_or_missing(report.accuracy(), 1), judged),
    ]
}

/// Of the filters without a reward, the one with the highest ROUGE-L.
fn best_naive(report: &RewardReport) -> Option<(Arm, f64)> {
    let naive = [Arm::Random, Arm::Rouge, Arm::Embedding, Arm::Perplexity].into_iter();
    let known = naive.filter_map(|arm| Some((arm, measured(Some(report.figures(arm)?.rouge_l))?)));
    known.max_by(|(_, a), (_, b)| a.total_cmp(b))
}

#[cfg(test)]
mod tests;
