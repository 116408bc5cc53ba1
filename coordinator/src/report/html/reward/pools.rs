//! Round by round: how long and how varied responses are, and what went into the pool.

use super::super::funnel::reasons;
use super::super::markup::Escaped;
use super::super::quantity::{count, measured, number};
use super::super::scores::number_cell;
use crate::report::{PoolRound, Spread};

/// Lengths and variety: where reward hacking shows.
pub(super) fn write_variety(out: &mut String, rounds: &[PoolRound]) {
    if rounds.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"variety\">\n<caption>Length and variety of responses: distinct-n is the share of \
         different runs of n words among all such runs. Rising length with falling distinct-n is reward hacking: responses that \
         please the proxy since they are long or say what fits everywhere. Distinct-n falls with the amount of text too, so \
         compare sets of like size.</caption>\n<thead><tr><th scope=\"col\">Round</th><th scope=\"col\">Responses</th>"
    );
    for head in ["Count", "Mean words", "Distinct-1", "Distinct-2"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for round in rounds {
        let Spread { candidates, chosen, pool } = &round.variety;
        for (name, variety) in [("all candidates", candidates), ("each query’s best", chosen), ("pool", pool)]
        {
            // Of no text there is nothing to say.
            let known = |value: f64| (variety.texts > 0).then_some(value);
            put!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"num\">{}</td>{}{}{}</tr>\n",
                round.round,
                Escaped(name),
                count(variety.texts as u64),
                number_cell(known(variety.mean_words), 1),
                number_cell(known(variety.distinct_1), 3),
                number_cell(known(variety.distinct_2), 3)
            );
        }
    }
    put!(out, "</tbody>\n</table></div>\n");
}

/// What each round has taken into the pool, and why not more.
pub(super) fn write_rounds(out: &mut String, rounds: &[PoolRound]) {
    if rounds.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"rounds\">\n<caption>The filtering, then each round of refinement: queries that had a \
         response to choose, responses that were taken into the pool, the pool after it, the score that a revision had to reach \
         (the filtering has none), and what became of the chosen responses.</caption>\n<thead><tr><th scope=\"col\">Round</th>"
    );
    for head in ["Queries", "Accepted", "Pool", "Threshold"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "<th scope=\"col\">Verdicts</th></tr></thead>\n<tbody>\n");
    for round in rounds {
        let threshold = measured(round.threshold).map_or_else(|| "–".to_owned(), |score| number(score, 3));
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td \
             class=\"num\">{}</td><td>{}</td></tr>\n",
            round.round,
            count(round.queries as u64),
            count(round.accepted as u64),
            count(round.pool as u64),
            Escaped(&threshold),
            Escaped(&reasons(&round.verdicts))
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}
