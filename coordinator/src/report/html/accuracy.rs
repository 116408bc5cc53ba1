//! Site by site: the site's own model against the federated one.

use super::markup::{Escaped, shortened};
use super::quantity::{count, counted, measured, percent, points};
use super::svg::{Scale, Svg};
use crate::report::{Metrics, SiteReport};

/// Above this, a row a site is too long to read and the chart shows the distribution.
const SITES_AS_ROWS: usize = 40;
const WIDTH: f64 = 960.0;

/// What was measured at one site; at least one of the two is there.
struct Pair<'a> {
    name: &'a str,
    local: Option<f64>,
    federated: Option<f64>,
}

impl Pair<'_> {
    fn gain(&self) -> Option<f64> {
        Some(self.federated? - self.local?)
    }
}

pub(super) fn write(out: &mut String, sites: &[SiteReport], metrics: &Metrics) {
    let mut pairs: Vec<Pair<'_>> = sites
        .iter()
        .map(|s| Pair {
            name: &s.name,
            local: measured(s.metrics.local_accuracy),
            federated: measured(s.metrics.accuracy),
        })
        .filter(|p| p.local.is_some() || p.federated.is_some())
        .collect();
    if pairs.is_empty() {
        return;
    }
    // Weakest first: the sites with most to gain lead.
    let rank = |p: &Pair<'_>| p.local.or(p.federated).unwrap_or(0.0);
    pairs.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let pooled = metrics.pooled.as_ref().and_then(|p| measured(Some(p.accuracy)));
    put!(out, "<figure>\n");
    write_legend(out, &pairs, pooled);
    let (drawing, caption) = if pairs.len() > SITES_AS_ROWS {
        (
            curves(&pairs, pooled),
            "Sites by accuracy, each curve sorted on its own, from the weakest site to the strongest.",
        )
    } else {
        (dumbbells(&pairs, pooled), "Accuracy at each site, weakest local-only model first.")
    };
    put!(out, "<div class=\"scroll\">{drawing}</div>\n<figcaption>{caption}");
    if let Some(text) = tally(&pairs) {
        put!(out, " {}", Escaped(&text));
    }
    let silent = sites.len() - pairs.len();
    if silent > 0 {
        put!(out, " {} without a measurement: not drawn.", Escaped(&counted(silent, "site", "sites")));
    }
    put!(out, "</figcaption>\n</figure>\n");
}

fn write_legend(out: &mut String, pairs: &[Pair<'_>], pooled: Option<f64>) {
    put!(out, "<ul class=\"legend\">\n");
    if pairs.iter().any(|p| p.local.is_some()) {
        put!(out, "<li><span class=\"key local\"></span>local only</li>\n");
    }
    if pairs.iter().any(|p| p.federated.is_some()) {
        put!(out, "<li><span class=\"key federated\"></span>federated</li>\n");
    }
    if let Some(pooled) = pooled {
        put!(out, "<li><span class=\"key pooled\"></span>pooled, {}</li>\n", Escaped(&percent(pooled, 1)));
    }
    put!(out, "</ul>\n");
}

/// Better, equal, worse: the one sentence the chart is there for.
fn tally(pairs: &[Pair<'_>]) -> Option<String> {
    let mut gains: Vec<f64> = pairs.iter().filter_map(Pair::gain).collect();
    gains.sort_by(f64::total_cmp);
    let middle = gains.len() / 2;
    let upper = *gains.get(middle)?;
    let median =
        if gains.len().is_multiple_of(2) { f64::midpoint(*gains.get(middle - 1)?, upper) } else { upper };
    let better = gains.iter().filter(|g| **g > 0.0).count();
    let worse = gains.iter().filter(|g| **g < 0.0).count();
    let mut text = format!(
        "The federated model is better at {} of {}",
        count(better as u64),
        counted(gains.len(), "site", "sites")
    );
    if worse > 0 {
        put!(text, " and worse at {}", count(worse as u64));
    }
    put!(text, "; the median gain is {} points.", points(median));
    Some(text)
}

fn values(pairs: &[Pair<'_>], pooled: Option<f64>) -> impl Iterator<Item = f64> {
    pairs.iter().flat_map(|p| [p.local, p.federated]).chain([pooled]).flatten()
}

fn dumbbells(pairs: &[Pair<'_>], pooled: Option<f64>) -> String {
    const ROW: f64 = 28.0;
    const TOP: f64 = 26.0;
    let gains = pairs.iter().any(|p| p.gain().is_some());
    let (left, right) = (220.0, if gains { WIDTH - 120.0 } else { WIDTH - 20.0 });
    let bottom = TOP + ROW * pairs.len() as f64 + 6.0;
    let scale = Scale::of_shares(values(pairs, pooled), (left, right));
    let desc = "One row a site: an open dot for the site's own model, a full dot for the federated model, \
                a dashed line for the pooled model.";
    let mut svg =
        Svg::new("accuracy", WIDTH, bottom + 44.0, "Local-only and federated accuracy by site", desc);
    for tick in scale.share_ticks() {
        let x = scale.at(tick);
        svg.line("grid", (x, TOP - 4.0), (x, bottom));
        svg.text("tick mid", (x, bottom + 17.0), &percent(tick, 0));
    }
    let axis = if scale.start() > 0.0 {
        format!("accuracy at the site (axis starts at {})", percent(scale.start(), 0))
    } else {
        "accuracy at the site".to_owned()
    };
    svg.text("axis mid", (f64::midpoint(left, right), bottom + 37.0), &axis);
    if gains {
        svg.text("axis end", (WIDTH, TOP - 10.0), "gain, points");
    }
    if let Some(pooled) = pooled {
        svg.line("pooled", (scale.at(pooled), TOP - 4.0), (scale.at(pooled), bottom));
    }
    for (i, pair) in pairs.iter().enumerate() {
        let y = TOP + ROW * (i as f64 + 0.5);
        svg.hinted(&hint(pair), |svg| draw_pair(svg, pair, &scale, y, left));
    }
    svg.finish()
}

fn draw_pair(svg: &mut Svg, pair: &Pair<'_>, scale: &Scale, y: f64, left: f64) {
    svg.text("label end", (left - 16.0, y + 4.5), &shortened(pair.name, 28));
    if let (Some(local), Some(federated)) = (pair.local, pair.federated) {
        let class = if federated < local { "link loss" } else { "link" };
        svg.line(class, (scale.at(local), y), (scale.at(federated), y));
    }
    if let Some(local) = pair.local {
        svg.circle("local", (scale.at(local), y), 5.5);
    }
    if let Some(federated) = pair.federated {
        svg.circle("federated", (scale.at(federated), y), 6.5);
    }
    if let Some(gain) = pair.gain() {
        svg.text("value end", (WIDTH, y + 4.5), &points(gain));
    }
}

fn hint(pair: &Pair<'_>) -> String {
    let mut text = pair.name.to_owned();
    if let Some(local) = pair.local {
        put!(text, ", local only {}", percent(local, 1));
    }
    if let Some(federated) = pair.federated {
        put!(text, ", federated {}", percent(federated, 1));
    }
    text
}

fn curves(pairs: &[Pair<'_>], pooled: Option<f64>) -> String {
    const TOP: f64 = 12.0;
    const BOTTOM: f64 = 332.0;
    const LEFT: f64 = 64.0;
    const RIGHT: f64 = WIDTH - 16.0;
    let scale = Scale::of_shares(values(pairs, pooled), (BOTTOM, TOP));
    let desc = "Two rising curves, one of the sites' own models and one of the federated model; a dashed \
    line is the pooled model.";
    let mut svg =
        Svg::new("accuracy", WIDTH, 384.0, "Local-only and federated accuracy over the sites", desc);
    for tick in scale.share_ticks() {
        let y = scale.at(tick);
        svg.line("grid", (LEFT, y), (RIGHT, y));
        svg.text("tick end", (LEFT - 10.0, y + 4.0), &percent(tick, 0));
    }
    let across = Scale::new((0.0, 1.0), (LEFT, RIGHT));
    for quarter in 0..=4u8 {
        let share = f64::from(quarter) / 4.0;
        let x = across.at(share);
        svg.line("grid faint", (x, TOP), (x, BOTTOM));
        let anchor = if quarter == 4 { "tick end" } else { "tick mid" };
        svg.text(anchor, (x, BOTTOM + 18.0), &percent(share, 0));
    }
    svg.text("axis mid", (f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0), "share of the sites, weakest first");
    if let Some(pooled) = pooled {
        svg.line("pooled", (LEFT, scale.at(pooled)), (RIGHT, scale.at(pooled)));
    }
    for (class, values) in [
        ("curve local", pairs.iter().filter_map(|p| p.local).collect::<Vec<_>>()),
        ("curve federated", pairs.iter().filter_map(|p| p.federated).collect()),
    ] {
        let points = sorted_curve(values);
        if !points.is_empty() {
            svg.polyline(class, points.into_iter().map(|(x, v)| (across.at(x), scale.at(v))));
        }
    }
    svg.finish()
}

/// The quantile function as (share of sites, accuracy), at most a few hundred points however many the sites.
fn sorted_curve(mut values: Vec<f64>) -> Vec<(f64, f64)> {
    const POINTS: usize = 400;
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let step = n.div_ceil(POINTS).max(1);
    let last = n.saturating_sub(1);
    let place = |i: usize| if last == 0 { 0.0 } else { i as f64 / last as f64 };
    let kept = |i: usize| i.is_multiple_of(step) || i == last;
    values.into_iter().enumerate().filter(|(i, _)| kept(*i)).map(|(i, v)| (place(i), v)).collect()
}
