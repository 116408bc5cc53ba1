//! Where the time went: one bar a phase.

use super::markup::{Escaped, shortened};
use super::quantity::{duration, measured, percent};
use super::svg::{Scale, Svg};
use crate::report::Timing;

const ROW: f64 = 26.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 780.0;
/// Later phases are in report.json.
const PHASES_SHOWN: usize = 40;

pub(super) fn write(out: &mut String, timing: &Timing) {
    let shown: Vec<_> = timing
        .phases
        .iter()
        .filter(|p| p.seconds.is_finite() && p.seconds >= 0.0)
        .take(PHASES_SHOWN)
        .collect();
    if shown.is_empty() {
        put!(out, "<p class=\"quiet\">Total: {}. Phases were not timed.</p>\n", duration(timing.total_s));
        return;
    }
    let longest = shown.iter().map(|p| p.seconds).fold(0.0, f64::max);
    let height = ROW * shown.len() as f64 + 8.0;
    let desc =
        shown.iter().map(|p| format!("{}: {}", p.name, duration(p.seconds))).collect::<Vec<_>>().join("; ");
    let mut svg = Svg::new("phases", 960.0, height, "Time by phase", &desc);
    let scale = Scale::new((0.0, longest), (LEFT, RIGHT));
    for (i, phase) in shown.iter().enumerate() {
        let y = 4.0 + ROW * i as f64;
        let end = scale.at(phase.seconds);
        svg.text("label end", (LEFT - 14.0, y + 17.0), &shortened(&phase.name, 28));
        svg.rect("time", (LEFT, y + 5.0), ((end - LEFT).max(1.0), ROW - 10.0));
        let share = measured(Some(phase.seconds / timing.total_s)).filter(|s| (0.0..=1.0).contains(s));
        let share = share.map_or_else(String::new, |s| format!("  ({})", percent(s, 0)));
        svg.text(
            "value",
            (end.max(LEFT + 1.0) + 8.0, y + 17.0),
            &format!("{}{share}", duration(phase.seconds)),
        );
    }
    put!(out, "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>Time by phase", svg.finish());
    if measured(Some(timing.total_s)).is_some() {
        put!(out, ", and its share of the {} from start to end", Escaped(&duration(timing.total_s)));
    }
    if timing.phases.len() > shown.len() {
        put!(out, "; {} of {} phases are drawn", shown.len(), timing.phases.len());
    }
    put!(out, ".</figcaption>\n</figure>\n");
}
