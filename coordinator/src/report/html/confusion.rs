//! Which classes the model takes for which.

use super::class_name;
use super::markup::{Escaped, shortened};
use super::quantity::{count, percent};
use super::scores::share_of;
use super::svg::Svg;
use crate::report::Scores;

/// Above this a matrix is a carpet; the most frequent mistakes say more.
const CLASSES_AS_MATRIX: usize = 20;
const PAIRS_SHOWN: usize = 15;
/// Characters of a slanted column head.
const HEAD: usize = 22;
/// Where black on the light end and white on the dark end of the heat map have the same contrast (4.5 to 1).
const DARK_FROM: f64 = 0.82;

pub(super) fn write(out: &mut String, scores: &Scores, classes: &[String]) {
    let matrix = &scores.confusion;
    if matrix.iter().flatten().all(|n| *n == 0) {
        put!(out, "<p class=\"quiet\">The confusion matrix was not measured.</p>\n");
        return;
    }
    let size = matrix.iter().map(Vec::len).max().unwrap_or(0).max(matrix.len());
    if size <= CLASSES_AS_MATRIX {
        put!(
            out,
            "<figure>\n<div class=\"scroll\">{}</div>\n<figcaption>Confusion matrix of the federated \
             model: rows are the true class, columns \
             the answer. Colours and percentages are shares of the row: blue right, orange \
             wrong.</figcaption>\n</figure>\n",
            heat_map(matrix, classes, size)
        );
    } else {
        write_pairs(out, matrix, classes);
    }
}

fn heat_map(matrix: &[Vec<u64>], classes: &[String], size: usize) -> String {
    const LEFT: f64 = 220.0;
    let names: Vec<String> = (0..size).map(|i| class_name(classes, i)).collect();
    let longest = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).min(HEAD);
    let cell = (700.0 / size as f64).clamp(34.0, 96.0);
    let tall = cell.min(56.0);
    let flat = longest as f64 * 8.0 < cell - 6.0;
    let top = if flat { 50.0 } else { 44.0 + longest as f64 * 4.6 };
    let desc = describe(matrix, &names);
    let height = top + tall * size as f64 + 8.0;
    let mut svg = Svg::new("confusion", 960.0, height, "Confusion matrix", &desc);
    svg.text("axis", (LEFT, 14.0), "answer of the model →");
    svg.text("axis end", (LEFT - 14.0, top - 12.0), "true class ↓");
    for (i, name) in names.iter().enumerate() {
        let (x, y) = (LEFT + cell * i as f64, top + tall * i as f64);
        svg.text("label end", (LEFT - 14.0, y + tall / 2.0 + 4.5), &shortened(name, 27));
        if flat {
            svg.text("label mid", (x + cell / 2.0, top - 12.0), name);
        } else {
            svg.slanted("label", (x + cell / 2.0, top - 8.0), &shortened(name, HEAD));
        }
    }
    for (i, row) in matrix.iter().enumerate() {
        let total = row.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        for j in 0..size {
            let rows = row.get(j).copied().unwrap_or(0);
            let corner = (LEFT + cell * j as f64, top + tall * i as f64);
            let hint = format!(
                "{} taken for {}: {} rows",
                class_name(&names, i),
                class_name(&names, j),
                count(rows)
            );
            svg.hinted(&hint, |svg| {
                draw_cell(svg, corner, (cell, tall), (rows, total), i == j);
            });
        }
    }
    svg.finish()
}

fn draw_cell(svg: &mut Svg, (x, y): (f64, f64), (w, h): (f64, f64), (rows, total): (u64, u64), right: bool) {
    if rows == 0 {
        svg.rect("empty", (x, y), (w - 2.0, h - 2.0));
        return;
    }
    let share = rows as f64 / total.max(1) as f64;
    // Rare mistakes start well above nothing: one row in a thousand must be told from none.
    let (class, opacity) = if right { ("right", 0.1 + 0.9 * share) } else { ("wrong", 0.15 + 0.85 * share) };
    svg.cell(class, (x, y), (w - 2.0, h - 2.0), opacity);
    let shade = if opacity > DARK_FROM { "strong" } else { "soft" };
    let middle = x + w / 2.0 - 1.0;
    if w >= 60.0 {
        svg.text(&format!("cell mid {shade}"), (middle, y + h / 2.0 - 3.0), &count(rows));
        svg.text(&format!("cell mid small {shade}"), (middle, y + h / 2.0 + 13.0), &percent(share, 1));
    } else {
        svg.text(&format!("cell mid small {shade}"), (middle, y + h / 2.0 + 3.0), &percent(share, 0));
    }
}

/// The matrix in words: what is found of each class.
fn describe(matrix: &[Vec<u64>], names: &[String]) -> String {
    let found = matrix.iter().enumerate().map(|(i, row)| {
        let total = row.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        format!("{}: {} of {} right", class_name(names, i), row.get(i).copied().unwrap_or(0), total)
    });
    found.collect::<Vec<_>>().join("; ")
}

fn write_pairs(out: &mut String, matrix: &[Vec<u64>], classes: &[String]) {
    let mut pairs: Vec<(u64, usize, usize, u64)> = Vec::new();
    for (i, row) in matrix.iter().enumerate() {
        let total = row.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let wrong = row.iter().enumerate().filter(|&(j, &n)| j != i && n > 0);
        pairs.extend(wrong.map(|(j, &n)| (n, i, j, total)));
    }
    if pairs.is_empty() {
        put!(out, "<p>No test row was given a wrong class.</p>\n");
        return;
    }
    pairs.sort_by_key(|&(n, i, j, _)| (std::cmp::Reverse(n), i, j));
    let all = pairs.len();
    pairs.truncate(PAIRS_SHOWN);
    put!(
        out,
        "<div class=\"scroll\"><table class=\"pairs\">\n<caption>The {} most frequent of {} kinds of \
         mistake of the federated model; the whole \
         matrix is in <code>report.json</code>.</caption>\n<thead><tr><th scope=\"col\">True class</th><th \
         scope=\"col\">Taken for</th>\
         <th scope=\"col\" class=\"num\">Rows</th><th scope=\"col\" class=\"num\">Of the \
         class</th></tr></thead>\n<tbody>\n",
        pairs.len(),
        count(all as u64)
    );
    for (rows, i, j, total) in pairs {
        put!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td></tr>\n",
            Escaped(&class_name(classes, i)),
            Escaped(&class_name(classes, j)),
            count(rows),
            Escaped(&share_of(rows, total))
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}
