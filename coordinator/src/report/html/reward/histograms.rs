//! How rewards are spread over a round's candidates, over the chosen ones and over the pool.

use sheaf_text::reward::Histogram;

use super::super::quantity::{count, number, percent};
use super::super::svg::{Scale, Svg};
use crate::report::{PoolRound, Spread};

/// Of more rounds than these, the first and the last ones are drawn.
const ROUNDS_DRAWN: usize = 6;
const WIDTH: f64 = 960.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 190.0;
const LEFT: f64 = 56.0;
const PANEL: f64 = 284.0;
const GAP: f64 = 24.0;

/// One of the histograms that stand side by side.
struct Panel<'a> {
    name: &'static str,
    class: &'static str,
    histogram: &'a Histogram,
    total: u64,
}

impl Panel<'_> {
    /// Share of the panel's responses that so many are.
    fn share(&self, n: u64) -> f64 {
        n as f64 / self.total.max(1) as f64
    }

    fn tallest(&self) -> f64 {
        self.share(self.histogram.counts.iter().copied().max().unwrap_or(0))
    }

    /// The score at such a share of the way from the first bin's beginning to the last one's end.
    fn score(&self, share: f64) -> f64 {
        let Histogram { low, high, .. } = self.histogram;
        low + (high - low) * share
    }

    /// Where a bin begins and ends, in words.
    fn bin(&self, bin: usize) -> String {
        let bins = self.histogram.counts.len().max(1) as f64;
        let [from, to] = [bin, bin + 1].map(|edge| number(self.score(edge as f64 / bins), 2));
        format!("{from} to {to}")
    }

    /// The panel for those who cannot see it.
    fn describe(&self) -> String {
        let fullest = self.histogram.counts.iter().enumerate().max_by_key(|(_, n)| **n);
        match fullest.filter(|(_, n)| **n > 0) {
            Some((bin, n)) => {
                format!(
                    "{}: {}, the highest bar ({}) from {}",
                    self.name,
                    count(self.total),
                    count(*n),
                    self.bin(bin)
                )
            }
            None => format!("{}: none", self.name),
        }
    }
}

fn panels(round: &PoolRound) -> [Panel<'_>; 3] {
    let Spread { candidates, chosen, pool } = &round.scores;
    [("All candidates", "time", candidates), ("Each query’s best", "right", chosen), ("Pool", "right", pool)]
        .map(|(name, class, histogram)| {
            let total = histogram.counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
            Panel { name, class, histogram, total }
        })
}

/// A figure a round, all with the same scale.
pub(super) fn write(out: &mut String, rounds: &[PoolRound]) {
    let late = rounds.len().saturating_sub(ROUNDS_DRAWN - 1);
    let is_drawn = |at: usize, round: &PoolRound| {
        (at == 0 || at >= late) && panels(round).iter().any(|panel| panel.total > 0)
    };
    let drawn: Vec<_> = rounds.iter().enumerate().filter(|(at, round)| is_drawn(*at, round)).collect();
    let tallest = drawn.iter().flat_map(|(_, round)| panels(round)).map(|panel| panel.tallest());
    let up = Scale::of_shares(tallest.chain([0.0]), (BOTTOM, TOP));
    for (at, round) in &drawn {
        put!(
            out,
            "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>Rewards in round {}: of all candidates, of each query’s best and \
             of the pool after it, in shares of each. The scale is the same in all rounds; scores beyond an end are in the last \
             bar there.</figcaption>\n</figure>\n",
            draw(format!("rewards-{at}"), round, &up),
            round.round
        );
    }
    if rounds.len() > ROUNDS_DRAWN {
        put!(
            out,
            "<p class=\"quiet\">Drawn are the first and the last {} of {} rounds; all are in <code>report.json</code>.</p>\n",
            ROUNDS_DRAWN - 1,
            count(rounds.len() as u64)
        );
    }
}

fn draw(id: String, round: &PoolRound, up: &Scale) -> String {
    let panels = panels(round);
    let described: Vec<String> = panels.iter().map(Panel::describe).collect();
    let desc = format!(
        "Three histograms side by side, a bar as high as its share of the responses. {}.",
        described.join("; ")
    );
    let mut svg = Svg::new(id, WIDTH, BOTTOM + 44.0, &format!("Rewards in round {}", round.round), &desc);
    for tick in up.share_ticks() {
        svg.text("tick end", (LEFT - 10.0, up.at(tick) + 4.0), &percent(tick, 0));
    }
    for (place, panel) in panels.iter().enumerate() {
        draw_panel(&mut svg, panel, LEFT + (PANEL + GAP) * place as f64, up);
    }
    svg.finish()
}

fn draw_panel(svg: &mut Svg, panel: &Panel<'_>, left: f64, up: &Scale) {
    svg.text("label", (left, TOP - 16.0), &format!("{} ({})", panel.name, count(panel.total)));
    for tick in up.share_ticks() {
        svg.line("grid", (left, up.at(tick)), (left + PANEL, up.at(tick)));
    }
    let counts = &panel.histogram.counts;
    let width = PANEL / counts.len().max(1) as f64;
    // A gap between bars while there is room for one.
    let gap = if width > 4.0 { 1.0 } else { 0.0 };
    for (bin, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        // One response in a thousand must be told from none.
        let top = up.at(panel.share(n)).min(BOTTOM - 1.0);
        let hint = format!("{}, {}: {} of {}", panel.name, panel.bin(bin), count(n), count(panel.total));
        let (corner, size) = ((left + width * bin as f64, top), (width - gap, BOTTOM - top));
        svg.hinted(&hint, |svg| svg.rect(panel.class, corner, size));
    }
    for (share, anchor) in [(0.0, "tick"), (0.5, "tick mid"), (1.0, "tick end")] {
        svg.text(anchor, (left + PANEL * share, BOTTOM + 17.0), &number(panel.score(share), 1));
    }
    svg.text("axis mid", (left + PANEL / 2.0, BOTTOM + 37.0), "reward");
}
