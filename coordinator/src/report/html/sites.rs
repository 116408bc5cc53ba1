//! Who took part, who did not and why, and what it cost each.

use std::collections::BTreeMap;

use super::is_in;
use super::markup::{Escaped, shortened};
use super::quantity::{bytes, count, counted, duration};
use super::scores::share_cell;
use crate::report::SiteReport;

const SITES_SHOWN: usize = 100;
/// Up to this many sites, the absent ones are found in the table itself.
const ABSENT_AT_A_GLANCE: usize = 25;
/// Names spelt out for one reason of absence.
const NAMES_SHOWN: usize = 8;

/// A status as a reader would say it, and its style class. A status not known here is shown as it is.
fn status_words(status: &str) -> (&str, &'static str) {
    match status {
        "in" => ("in", "in"),
        "dropped" => ("dropped out", "dropped"),
        "declined" => ("declined", "declined"),
        "withdrawn" => ("withdrawn", "withdrawn"),
        other => (other, "other"),
    }
}

/// "2 of 6 invited sites are not in the model: 1 declined, 1 dropped out."
pub(super) fn absence_sentence(sites: &[SiteReport]) -> Option<String> {
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for site in sites.iter().filter(|s| !is_in(s)) {
        *by_status.entry(status_words(&site.status).0).or_default() += 1;
    }
    let absent: usize = by_status.values().sum();
    if absent == 0 {
        return None;
    }
    let parts: Vec<String> =
        by_status.iter().map(|(words, n)| format!("{} {words}", count(*n as u64))).collect();
    let verb = if absent == 1 { "is" } else { "are" };
    Some(format!(
        "{} of {} {verb} not in the model: {}.",
        count(absent as u64),
        counted(sites.len(), "invited site", "invited sites"),
        parts.join(", ")
    ))
}

pub(super) fn write(out: &mut String, sites: &[SiteReport]) {
    if sites.is_empty() {
        put!(out, "<p class=\"quiet\">No site was invited.</p>\n");
        return;
    }
    write_absent(out, sites);
    let shown = sites.len().min(SITES_SHOWN);
    put!(
        out,
        "<div class=\"scroll\"><table class=\"sites\">\n<caption>Every site: its part in the run, its \
         training rows, what it sent and received, its computing time, and the scores \
         on its own test rows. A dash means not measured."
    );
    if shown < sites.len() {
        put!(
            out,
            " The first {shown} of {} sites; the rest are in <code>report.json</code>.",
            count(sites.len() as u64)
        );
    }
    put!(out, "</caption>\n<thead><tr><th scope=\"col\">Site</th><th scope=\"col\">Status</th>");
    for head in ["Rows", "Sent", "Received", "Time", "Test rows", "Federated", "Balanced", "Local only"] {
        put!(out, "<th scope=\"col\" class=\"num\">{head}</th>");
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for site in sites.iter().take(SITES_SHOWN) {
        write_row(out, site);
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn write_row(out: &mut String, site: &SiteReport) {
    let (words, class) = status_words(&site.status);
    put!(out, "<tr><th scope=\"row\"><bdi>{}</bdi></th>", Escaped(&site.name));
    put!(out, "<td><span class=\"status {class}\">{}</span>", Escaped(words));
    if let Some(reason) = site.reason.as_deref().filter(|r| !r.is_empty()) {
        put!(out, "<span class=\"reason\"><bdi>{}</bdi></span>", Escaped(reason));
    }
    put!(
        out,
        "</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td \
         class=\"num\">{}</td>",
        site.rows.map_or_else(|| "–".to_owned(), count),
        bytes(site.bytes_up),
        bytes(site.bytes_down),
        Escaped(&duration(site.seconds))
    );
    put!(
        out,
        "<td class=\"num\">{}</td>{}{}{}</tr>\n",
        count(site.metrics.test_rows),
        share_cell(site.metrics.accuracy, 1),
        share_cell(site.metrics.balanced_accuracy, 1),
        share_cell(site.metrics.local_accuracy, 1)
    );
}

/// The absent sites by reason: they must not be lost in, or cut off from, a long table.
fn write_absent(out: &mut String, sites: &[SiteReport]) {
    const REASONS_SHOWN: usize = 20;
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for site in sites.iter().filter(|s| !is_in(s)) {
        let reason = site.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or("no reason was given");
        groups.entry((&site.status, reason)).or_default().push(&site.name);
    }
    if groups.is_empty() || sites.len() <= ABSENT_AT_A_GLANCE {
        return;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    put!(
        out,
        "<div class=\"scroll\"><table class=\"absent\">\n<caption>Who is not in the model, and \
         why.</caption>\n<thead><tr>\
         <th scope=\"col\">Status</th><th scope=\"col\">Reason</th><th scope=\"col\" class=\"num\">Sites</th>\
         <th scope=\"col\">Names</th></tr></thead>\n<tbody>\n"
    );
    for ((status, reason), names) in groups.iter().take(REASONS_SHOWN) {
        let (words, class) = status_words(status);
        let mut listed: Vec<String> = names.iter().take(NAMES_SHOWN).map(|n| shortened(n, 40)).collect();
        if names.len() > NAMES_SHOWN {
            listed.push(format!("and {} more", count((names.len() - NAMES_SHOWN) as u64)));
        }
        put!(
            out,
            "<tr><td><span class=\"status {class}\">{}</span></td><td><bdi>{}</bdi></td><td \
             class=\"num\">{}</td><td>{}</td></tr>\n",
            Escaped(words),
            Escaped(reason),
            count(names.len() as u64),
            Escaped(&listed.join(", "))
        );
    }
    put!(out, "</tbody>\n</table></div>\n");
    if groups.len() > REASONS_SHOWN {
        let rest = groups.len() - REASONS_SHOWN;
        put!(
            out,
            "<p class=\"quiet\">{} in <code>report.json</code>.</p>\n",
            counted(rest, "more reason is", "more reasons are")
        );
    }
}
