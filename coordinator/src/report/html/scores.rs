//! Tables of scores: the models side by side, and the classes one by one.

use super::headline::place;
use super::markup::Escaped;
use super::quantity::{count, counted, measured, number, percent, percent_or_missing};
use crate::report::{ClassScores, Metrics, Scores};

/// Above this, only the classes that are found least often are listed.
const CLASSES_SHOWN: usize = 30;

pub(super) fn write_summary(out: &mut String, metrics: &Metrics) {
    let Metrics { test, pooled, local } = metrics;
    if test.is_none() && pooled.is_none() && local.is_none() {
        put!(out, "<p class=\"quiet\">Accuracy was not measured in this run.</p>\n");
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"scores\">\n<caption>The models side by side. Balanced \
         accuracy is the mean recall of the \
         classes; AUC is the area under the ROC curve.</caption>\n<thead><tr><th scope=\"col\">Model</th>\
         <th scope=\"col\" class=\"num\">Accuracy</th><th scope=\"col\" class=\"num\">Balanced</th>\
         <th scope=\"col\" class=\"num\">AUC</th><th scope=\"col\" class=\"num\">Test rows</th>\
         <th scope=\"col\">Measured</th></tr></thead>\n<tbody>\n"
    );
    if let Some(scores) = test {
        summary_row(out, "federated", "Federated", scores);
    }
    if let Some(scores) = pooled {
        summary_row(out, "pooled", "Pooled", scores);
    }
    if let Some(local) = local {
        put!(
            out,
            "<tr><th scope=\"row\"><span class=\"key local\"></span>Local only, mean</th>{}{}{}{}<td>over \
             {}</td></tr>\n",
            share_cell(Some(local.mean_accuracy), 2),
            share_cell(None, 2),
            share_cell(None, 2),
            share_cell(None, 2),
            counted(local.sites_measured, "site", "sites")
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn summary_row(out: &mut String, key: &str, name: &str, scores: &Scores) {
    let auc = measured(scores.auc).map_or_else(missing_cell, |v| format!("<td class=\"num\">{v:.4}</td>"));
    put!(
        out,
        "<tr><th scope=\"row\"><span class=\"key {key}\"></span>{name}</th>{}{}{auc}<td \
         class=\"num\">{}</td><td>{}</td></tr>\n",
        share_cell(Some(scores.accuracy), 2),
        share_cell(Some(scores.balanced_accuracy), 2),
        count(scores.rows),
        Escaped(&place(&scores.measured_on))
    );
}

/// A table cell with a share, or the mark for "not measured".
pub(super) fn share_cell(share: Option<f64>, decimals: usize) -> String {
    measured(share)
        .map_or_else(missing_cell, |s| format!("<td class=\"num\">{}</td>", Escaped(&percent(s, decimals))))
}

/// A table cell with a number, or the mark for "not measured".
pub(super) fn number_cell(value: Option<f64>, places: usize) -> String {
    measured(value)
        .map_or_else(missing_cell, |v| format!("<td class=\"num\">{}</td>", Escaped(&number(v, places))))
}

/// The mark for "not measured": short, as it may fill a column, with the words for those who ask.
pub(super) fn missing_cell() -> String {
    "<td class=\"num\"><abbr title=\"not measured\">–</abbr></td>".to_owned()
}

pub(super) fn write_classes(out: &mut String, scores: &Scores) {
    let mut classes: Vec<&ClassScores> = scores.per_class.iter().collect();
    if classes.is_empty() {
        return;
    }
    let note = if classes.len() > CLASSES_SHOWN {
        classes.sort_by(|a, b| a.recall.unwrap_or(1.0).total_cmp(&b.recall.unwrap_or(1.0)));
        classes.truncate(CLASSES_SHOWN);
        format!(
            " The {CLASSES_SHOWN} of {} classes with the lowest recall; all are in <code>report.json</code>.",
            count(scores.per_class.len() as u64)
        )
    } else {
        String::new()
    };
    put!(
        out,
        "<div class=\"scroll\"><table class=\"classes\">\n<caption>Scores of the federated model by class. \
         Recall: share of the class that is found. \
         Precision: share of the answers that are right.{note}</caption>\n<thead><tr><th \
         scope=\"col\">Class</th>\
         <th scope=\"col\" class=\"num\">Test rows</th><th scope=\"col\" class=\"num\">Recall</th><td></td>\
         <th scope=\"col\" class=\"num\">Precision</th><td></td></tr></thead>\n<tbody>\n"
    );
    for class in classes {
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"num\">{}</td>{}{}{}{}</tr>\n",
            Escaped(&class.class),
            count(class.support),
            share_cell(class.recall, 1),
            bar_cell("recall", class.recall),
            share_cell(class.precision, 1),
            bar_cell("precision", class.precision)
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
}

/// A bar for the eye beside a number; hidden from screen readers, which have the number.
fn bar_cell(what: &str, share: Option<f64>) -> String {
    let Some(share) = measured(share) else {
        return "<td class=\"bar\"></td>".to_owned();
    };
    let width = share.clamp(0.0, 1.0) * 100.0;
    format!(
        "<td class=\"bar\" aria-hidden=\"true\"><span class=\"track\"><span class=\"{what}\" \
         style=\"width:{width:.1}%\"></span></span></td>"
    )
}

/// Share of `part` in `whole`, for captions.
pub(super) fn share_of(part: u64, whole: u64) -> String {
    percent_or_missing((whole > 0).then(|| part as f64 / whole as f64), 1)
}
