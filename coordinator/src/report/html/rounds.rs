//! Round by round: accuracy against what was sent, and who took part.

use super::markup::{Escaped, shortened};
use super::quantity::{bytes, count, counted, measured, percent, percent_or_missing};
use super::svg::{Scale, Svg};
use crate::report::{Comparison, RoundReport, Scores};

/// Above this, only the last rounds are listed.
const ROUNDS_SHOWN: usize = 100;
/// Names spelt out of those that missed a round.
const NAMES_SHOWN: usize = 8;
const WIDTH: f64 = 960.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 300.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = WIDTH - 24.0;

/// A measured round: number, what all sites had sent until its end, accuracy or loss.
struct Point {
    round: u32,
    sent: u64,
    value: f64,
}

pub(super) fn write(
    out: &mut String,
    rounds: &[RoundReport],
    comparison: Option<&Comparison>,
    pooled: Option<&Scores>,
) {
    if rounds.is_empty() {
        return;
    }
    let by_accuracy = points(rounds, |round| round.accuracy);
    let by_loss = points(rounds, |round| round.test_loss);
    if !by_accuracy.is_empty() {
        let comparison = comparison.filter(|other| other.accuracy.is_finite());
        let pooled = pooled.and_then(|scores| measured(Some(scores.accuracy)));
        write_legend(out, comparison, pooled);
        put!(
            out,
            "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>Accuracy of the model after each measured round \
             against what all sites had sent until then.</figcaption>\n</figure>\n",
            accuracy(&by_accuracy, comparison, pooled)
        );
    } else if !by_loss.is_empty() {
        put!(
            out,
            "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>Loss on the sites' test texts (nats a token) after \
             each measured round against what all sites had sent until then.</figcaption>\n</figure>\n",
            loss(&by_loss)
        );
    }
    write_table(out, rounds);
}

fn points(rounds: &[RoundReport], value: impl Fn(&RoundReport) -> Option<f64>) -> Vec<Point> {
    let mut sent = 0_u64;
    let mut points = Vec::new();
    for round in rounds {
        sent = sent.saturating_add(round.bytes_up);
        if let Some(value) = measured(value(round)) {
            points.push(Point { round: round.round, sent, value });
        }
    }
    points
}

fn write_legend(out: &mut String, comparison: Option<&Comparison>, pooled: Option<f64>) {
    put!(out, "<ul class=\"legend\">\n<li><span class=\"key federated\"></span>after a round</li>\n");
    if let Some(other) = comparison {
        put!(
            out,
            "<li><span class=\"key local\"></span>{}, {} for {}</li>\n",
            Escaped(&other.name),
            Escaped(&percent(other.accuracy, 1)),
            Escaped(&bytes(other.bytes_up))
        );
    }
    if let Some(pooled) = pooled {
        put!(out, "<li><span class=\"key pooled\"></span>pooled, {}</li>\n", Escaped(&percent(pooled, 1)));
    }
    put!(out, "</ul>\n");
}

fn across(svg: &mut Svg, most: u64) -> Scale {
    let scale = Scale::new((0.0, most.max(1) as f64), (LEFT, RIGHT));
    for quarter in 0..=4_u32 {
        let sent = most as f64 * f64::from(quarter) / 4.0;
        let x = scale.at(sent);
        svg.line("grid faint", (x, TOP), (x, BOTTOM));
        let anchor = if quarter == 4 { "tick end" } else { "tick mid" };
        svg.text(anchor, (x, BOTTOM + 18.0), &bytes(sent as u64));
    }
    svg.text(
        "axis mid",
        (f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0),
        "sent by all sites, survey and evaluation left aside",
    );
    scale
}

fn curve(svg: &mut Svg, points: &[Point], across: &Scale, up: &Scale, hint: impl Fn(&Point) -> String) {
    let at = |point: &Point| (across.at(point.sent as f64), up.at(point.value));
    svg.polyline("curve federated", points.iter().map(at));
    // Beyond this many the dots hide the line.
    let step = points.len().div_ceil(60).max(1);
    for (index, point) in points.iter().enumerate() {
        if index.is_multiple_of(step) || index + 1 == points.len() {
            svg.hinted(&hint(point), |svg| svg.circle("federated", at(point), 4.5));
        }
    }
}

fn accuracy(points: &[Point], comparison: Option<&Comparison>, pooled: Option<f64>) -> String {
    let desc = "A line of the model's accuracy over the bytes sent, a dot a measured round; an open dot for the method \
                compared with; a dashed line for the pooled model.";
    let mut svg = Svg::new("rounds", WIDTH, 352.0, "Accuracy by round against bytes sent", desc);
    let values =
        points.iter().map(|point| point.value).chain(comparison.map(|other| other.accuracy)).chain(pooled);
    let up = Scale::of_shares(values, (BOTTOM, TOP));
    for tick in up.share_ticks() {
        svg.line("grid", (LEFT, up.at(tick)), (RIGHT, up.at(tick)));
        svg.text("tick end", (LEFT - 10.0, up.at(tick) + 4.0), &percent(tick, 0));
    }
    let sent = points.last().map_or(0, |point| point.sent);
    let across = across(&mut svg, sent.max(comparison.map_or(0, |other| other.bytes_up)));
    if let Some(pooled) = pooled {
        svg.line("pooled", (LEFT, up.at(pooled)), (RIGHT, up.at(pooled)));
    }
    curve(&mut svg, points, &across, &up, |point| {
        format!("round {}: {} after {}", point.round, percent(point.value, 1), bytes(point.sent))
    });
    if let Some(other) = comparison {
        let hint = format!("{}: {} after {}", other.name, percent(other.accuracy, 1), bytes(other.bytes_up));
        let at = (across.at(other.bytes_up as f64), up.at(other.accuracy));
        svg.hinted(&hint, |svg| svg.circle("local", at, 6.0));
    }
    svg.finish()
}

fn loss(points: &[Point]) -> String {
    let desc = "A falling line of the test loss over the bytes sent, a dot a measured round.";
    let mut svg = Svg::new("rounds", WIDTH, 352.0, "Test loss by round against bytes sent", desc);
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.value), h.max(p.value)));
    let air = ((high - low) * 0.1).max(0.01);
    let (low, high) = ((low - air).max(0.0), high + air);
    let up = Scale::new((low, high), (BOTTOM, TOP));
    for quarter in 0..=4_u32 {
        let value = low + (high - low) * f64::from(quarter) / 4.0;
        svg.line("grid", (LEFT, up.at(value)), (RIGHT, up.at(value)));
        svg.text("tick end", (LEFT - 10.0, up.at(value) + 4.0), &format!("{value:.2}"));
    }
    let across = across(&mut svg, points.last().map_or(0, |point| point.sent));
    curve(&mut svg, points, &across, &up, |point| {
        format!("round {}: {:.3} nats a token after {}", point.round, point.value, bytes(point.sent))
    });
    svg.finish()
}

fn write_table(out: &mut String, rounds: &[RoundReport]) {
    let first = rounds.len().saturating_sub(ROUNDS_SHOWN);
    let text = rounds.iter().any(|round| round.test_loss.is_some());
    put!(
        out,
        "<div class=\"scroll\"><table class=\"rounds\">\n<caption>Every round: the sites in it, their training loss \
         before each step, the model after it, and what was sent."
    );
    if first > 0 {
        put!(
            out,
            " The last {ROUNDS_SHOWN} of {}; the rest are in <code>report.json</code>.",
            count(rounds.len() as u64)
        );
    }
    let figure = if text { "Test loss" } else { "Accuracy" };
    put!(out, "</caption>\n<thead><tr><th scope=\"col\">Round</th>");
    for head in ["Sites", "Rows", "Training loss", figure, "Sent", "Received"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "<th scope=\"col\">Missed by</th></tr></thead>\n<tbody>\n");
    for round in rounds.iter().skip(first) {
        let figure = if text {
            measured(round.test_loss).map_or_else(|| "–".to_owned(), |loss| format!("{loss:.3}"))
        } else {
            measured(round.accuracy)
                .map_or_else(|| "–".to_owned(), |share| percent_or_missing(Some(share), 1))
        };
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{} of {}</td><td class=\"num\">{}</td><td \
             class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td>{}</td></tr>\n",
            round.round,
            count(round.sites.len() as u64),
            count(round.asked as u64),
            round.rows.map_or_else(|| "–".to_owned(), count),
            measured(round.loss).map_or_else(|| "–".to_owned(), |loss| format!("{loss:.4}")),
            Escaped(&figure),
            Escaped(&bytes(round.bytes_up)),
            Escaped(&bytes(round.bytes_down)),
            Escaped(&missed(round))
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn missed(round: &RoundReport) -> String {
    let mut named: Vec<String> = round
        .missed
        .iter()
        .take(NAMES_SHOWN)
        .map(|missed| format!("{} ({})", shortened(&missed.site, 28), shortened(&missed.reason, 60)))
        .collect();
    if round.missed.len() > NAMES_SHOWN {
        named.push(counted(round.missed.len() - NAMES_SHOWN, "more site", "more sites"));
    }
    named.join("; ")
}
