//! Who holds what: the rows of each class at each site.

use super::markup::{Escaped, shortened};
use super::quantity::{count, counted, percent};
use super::svg::{Scale, Svg};
use super::{class_name, is_in};
use crate::report::SiteReport;

/// Above either, colours and bars no longer tell classes and sites apart and a heat map does better.
const CLASSES_AS_COLOURS: usize = 12;
const SITES_SHOWN: usize = 60;
/// Columns of the heat map; the most frequent classes are kept.
const CLASSES_SHOWN: usize = 100;
/// Steps of the heat map's scale; style.css has one class for each.
const LEVELS: usize = 8;
/// Up to this many columns each has its name above it, cut to `HEAD` characters.
const NAMED_COLUMNS: usize = 30;
const HEAD: usize = 18;
const WIDTH: f64 = 960.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = WIDTH - 84.0;

struct Holding<'a> {
    site: &'a SiteReport,
    total: u64,
}

impl Holding<'_> {
    /// Share of the site's rows that are of `class`.
    fn share(&self, class: usize) -> f64 {
        self.site.class_counts.get(class).map_or(0.0, |&n| n as f64 / self.total as f64)
    }
}

pub(super) fn write(out: &mut String, sites: &[SiteReport], classes: &[String]) {
    let mut holdings: Vec<Holding<'_>> = sites
        .iter()
        .map(|site| Holding {
            site,
            total: site.class_counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n)),
        })
        .filter(|h| h.total > 0)
        .collect();
    if holdings.is_empty() {
        put!(out, "<p class=\"quiet\">No site has told how its rows are spread over the classes.</p>\n");
        return;
    }
    let silent = sites.len() - holdings.len();
    let told = holdings.len();
    holdings.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.site.name.cmp(&b.site.name)));
    holdings.truncate(SITES_SHOWN);
    let width = holdings.iter().map(|h| h.site.class_counts.len()).max().unwrap_or(0);
    put!(out, "<figure>\n");
    let caption = if told > SITES_SHOWN || width > CLASSES_AS_COLOURS {
        write_heat_map(out, &holdings, classes, width)
    } else {
        write_bars(out, &holdings, classes, width)
    };
    put!(out, "<figcaption>{}", Escaped(&caption));
    if told > SITES_SHOWN {
        put!(
            out,
            " The {SITES_SHOWN} largest of {} are drawn; all are in <code>report.json</code>.",
            counted(told, "site", "sites")
        );
    }
    if holdings.iter().any(|h| !is_in(h.site)) {
        put!(out, " Names in brackets: not in the model.");
    }
    if silent > 0 {
        put!(out, " {} told no class counts.", counted(silent, "site", "sites"));
    }
    put!(out, "</figcaption>\n</figure>\n");
}

fn label(site: &SiteReport) -> String {
    if is_in(site) { shortened(&site.name, 28) } else { format!("({})", shortened(&site.name, 26)) }
}

fn row_height(sites: usize) -> f64 {
    if sites > 30 { 17.0 } else { 25.0 }
}

fn write_bars(out: &mut String, holdings: &[Holding<'_>], classes: &[String], width: usize) -> String {
    put!(out, "<ul class=\"legend\">\n");
    for index in 0..width {
        put!(
            out,
            "<li><span class=\"swatch c{index}\"></span>{}</li>\n",
            Escaped(&shortened(&class_name(classes, index), 40))
        );
    }
    put!(out, "</ul>\n");
    let row = row_height(holdings.len());
    let desc = "One bar a site, as long as its rows, divided by class in the order of the legend.";
    let height = row * holdings.len() as f64 + 8.0;
    let mut svg = Svg::new("holdings", WIDTH, height, "Rows of each class at each site", desc);
    let largest = holdings.first().map_or(0, |h| h.total);
    let scale = Scale::new((0.0, largest as f64), (LEFT, RIGHT));
    for (i, holding) in holdings.iter().enumerate() {
        draw_bar(&mut svg, holding, classes, &scale, (4.0 + row * i as f64, row));
    }
    put!(out, "<div class=\"scroll\">{}</div>\n", svg.finish());
    "Training rows at each site by class, largest site first.".to_owned()
}

fn draw_bar(svg: &mut Svg, holding: &Holding<'_>, classes: &[String], scale: &Scale, (y, row): (f64, f64)) {
    let baseline = y + row / 2.0 + 4.5;
    svg.text("label end", (LEFT - 14.0, baseline), &label(holding.site));
    let counts = &holding.site.class_counts;
    let mut before = 0u64;
    for (class, &rows) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
        let from = scale.at(before as f64);
        before = before.saturating_add(rows);
        let to = scale.at(before as f64);
        let share = percent(rows as f64 / holding.total as f64, 1);
        let name = class_name(classes, class);
        let hint = format!("{}, {name}: {} rows, {share}", holding.site.name, count(rows));
        // A gap between segments, so that order and length read without colour; never instead of a segment.
        let gap = if to - from > 3.0 { 1.0 } else { 0.0 };
        let (corner, size) = ((from, y + row * 0.14), (to - from - gap, row * 0.72));
        svg.hinted(&hint, |svg| svg.rect(&format!("c{class}"), corner, size));
    }
    svg.text("value", (scale.at(before as f64) + 8.0, baseline), &count(holding.total));
}

fn write_heat_map(out: &mut String, holdings: &[Holding<'_>], classes: &[String], width: usize) -> String {
    let columns = columns(holdings, width);
    let head = |&c: &usize| class_name(classes, c).chars().count().min(HEAD);
    let longest = columns.iter().map(head).max().unwrap_or(0);
    let named = columns.len() <= NAMED_COLUMNS;
    let top = if named { 26.0 + longest as f64 * 4.6 } else { 34.0 };
    let strongest = holdings
        .iter()
        .flat_map(|h| columns.iter().map(move |&c| h.share(c)))
        .fold(f64::MIN_POSITIVE, f64::max);
    write_ramp(out, strongest);

    let title = "Share of each class in the rows of each site";
    let desc = "One row a site, one column a class; a darker cell is a larger share of the site's rows.";
    let height = top + row_height(holdings.len()) * holdings.len() as f64 + 6.0;
    let mut svg = Svg::new("holdings", WIDTH, height, title, desc);
    draw_heads(&mut svg, &columns, classes, top);
    draw_cells(&mut svg, holdings, &columns, top, strongest);
    put!(out, "<div class=\"scroll\">{}</div>\n", svg.finish());
    let mut caption = "Share of each class in the rows of a site, largest site first.".to_owned();
    if columns.len() < width {
        put!(caption, " The {} most frequent of {} classes are drawn.", columns.len(), count(width as u64));
    }
    caption
}

/// The rows of the heat map. One path a level, not one rectangle a cell: 60 sites and 100 classes stay a
/// small page.
fn draw_cells(svg: &mut Svg, holdings: &[Holding<'_>], columns: &[usize], top: f64, strongest: f64) {
    let row = row_height(holdings.len());
    let step = (RIGHT - LEFT) / columns.len() as f64;
    let gap = if step > 8.0 { 1.0 } else { 0.0 };
    let (w, h) = (step - gap, row - 1.0);
    let mut levels = vec![String::new(); LEVELS];
    for (i, holding) in holdings.iter().enumerate() {
        let y = top + row * i as f64;
        svg.text("label end", (LEFT - 14.0, y + row / 2.0 + 4.0), &label(holding.site));
        svg.text("value end", (WIDTH, y + row / 2.0 + 4.0), &count(holding.total));
        svg.rect("empty", (LEFT, y), (RIGHT - LEFT - gap, h));
        for (j, &class) in columns.iter().enumerate() {
            let level = (holding.share(class) / strongest * LEVELS as f64).ceil() as usize;
            if let Some(data) = level.checked_sub(1).and_then(|l| levels.get_mut(l)) {
                put!(data, "M{:.1} {y:.1}h{w:.1}v{h:.1}h-{w:.1}z", LEFT + step * j as f64);
            }
        }
    }
    for (i, data) in levels.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
        svg.path(&format!("q{}", i + 1), data);
    }
}

/// The classes to draw, in their own order; the most frequent where there are too many.
fn columns(holdings: &[Holding<'_>], width: usize) -> Vec<usize> {
    let rows = |class: usize| {
        holdings
            .iter()
            .filter_map(|h| h.site.class_counts.get(class))
            .fold(0u64, |sum, n| sum.saturating_add(*n))
    };
    let mut order: Vec<(u64, usize)> = (0..width).map(|class| (rows(class), class)).collect();
    order.sort_by_key(|&(rows, class)| (std::cmp::Reverse(rows), class));
    order.truncate(CLASSES_SHOWN);
    let mut kept: Vec<usize> = order.into_iter().map(|(_, class)| class).collect();
    kept.sort_unstable();
    kept
}

/// Column heads: names while they fit, then only where the first and the last class stand.
fn draw_heads(svg: &mut Svg, columns: &[usize], classes: &[String], top: f64) {
    svg.text("axis end", (WIDTH, top - 10.0), "rows");
    let step = (RIGHT - LEFT) / columns.len() as f64;
    if columns.len() <= NAMED_COLUMNS {
        for (j, &class) in columns.iter().enumerate() {
            let x = LEFT + step * (j as f64 + 0.5);
            svg.slanted("tick", (x - 2.0, top - 8.0), &shortened(&class_name(classes, class), HEAD));
        }
    } else if let (Some(&first), Some(&last)) = (columns.first(), columns.last()) {
        svg.text("tick", (LEFT, top - 10.0), &format!("{} →", shortened(&class_name(classes, first), 30)));
        svg.text(
            "tick end",
            (RIGHT, top - 10.0),
            &format!("→ {}", shortened(&class_name(classes, last), 30)),
        );
    }
}

fn write_ramp(out: &mut String, strongest: f64) {
    put!(
        out,
        "<ul class=\"legend ramp\">\n<li>share of the site’s rows: 0%</li>\n<li><span class=\"swatch \
         empty\"></span>"
    );
    for level in 1..=LEVELS {
        put!(out, "<span class=\"swatch q{level}\"></span>");
    }
    put!(out, "</li>\n<li>{}</li>\n</ul>\n", Escaped(&percent(strongest.min(1.0), 0)));
}
