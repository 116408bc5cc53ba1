//! The top of the page: what happened, in one sentence, and the numbers a reader looks for first.

use super::markup::Escaped;
use super::quantity::{
    bytes, count, counted, duration, measured, moment, percent, percent_or_missing, points,
};
use super::{is_in, reward, sites, transfer};
use crate::report::{Metrics, ModelInfo, Report, Scores};

pub(super) fn write(out: &mut String, report: &Report) {
    let run = &report.run;
    put!(
        out,
        "<header>\n<p class=\"eyebrow\">Sheaf <span>federated run report</span></p>\n<h1>{}</h1>\n\
         <p class=\"lead\">{}</p>\n",
        Escaped(&run.name),
        Escaped(&outcome(report))
    );
    if let Some(text) = comparison(&report.metrics) {
        put!(out, "<p class=\"sublead\">{}</p>\n", Escaped(&text));
    }
    if let Some(text) = sites::absence_sentence(&report.sites) {
        put!(out, "<p class=\"sublead\">{}</p>\n", Escaped(&text));
    }
    put!(out, "<ul class=\"meta\">\n<li>workload: {}</li>\n", Escaped(&run.workload));
    put!(out, "<li>status: {}</li>\n<li>version {}</li>\n", Escaped(&run.status), run.version);
    put!(out, "<li>started {}</li>\n", Escaped(&moment(&run.started_at)));
    if measured(Some(report.timing.total_s)).is_some() {
        put!(out, "<li>took {}</li>\n", duration(report.timing.total_s));
    }
    put!(out, "</ul>\n</header>\n");
    write_tiles(out, report);
    write_verdict(out, &report.model);
}

/// How the run ended. The claim that a model was trained is made only where one was.
fn outcome(report: &Report) -> String {
    let run = &report.run;
    let ended = matches!(run.status.as_str(), "done" | "failed" | "aborted");
    if !ended {
        return format!("This run has not finished; its status is “{}”.", run.status);
    }
    if run.status != "done" || report.model.sha256.is_empty() {
        return format!("This run ended without a model; its status is “{}”.", run.status);
    }
    match report.sites.iter().filter(|s| is_in(s)).count() {
        0 => "No site is in this model.".to_owned(),
        n if report.transfer.is_some() => {
            format!(
                "{} learnt from each other’s written texts; no record left its site.",
                counted(n, "site", "sites")
            )
        }
        n if report.reward.is_some() => {
            format!(
                "Proxies of {} wrote and rewarded synthetic data for the coordinator’s language model; no record left its site.",
                counted(n, "site", "sites")
            )
        }
        1 => "One site trained a model; no record left the site.".to_owned(),
        n => format!("{} trained one model together; no record left its site.", counted(n, "site", "sites")),
    }
}

fn comparison(metrics: &Metrics) -> Option<String> {
    let federated = metrics.test.as_ref().and_then(|t| measured(Some(t.accuracy)))?;
    let mut text = format!("The shared model is right on {} of the test rows", percent(federated, 1));
    if let Some(local) = metrics.local.as_ref().and_then(|l| measured(Some(l.mean_accuracy))) {
        put!(text, "; a model that a site trains alone is right on {} on average", percent(local, 1));
    }
    text.push('.');
    Some(text)
}

fn write_tiles(out: &mut String, report: &Report) {
    let Metrics { test, pooled, local } = &report.metrics;
    let accuracy = |s: &Option<Scores>| s.as_ref().and_then(|s| measured(Some(s.accuracy)));
    let federated = accuracy(test);
    let tested = test.as_ref().map_or_else(
        || "no test score in this run".to_owned(),
        |t| format!("on {} test rows {}", count(t.rows), place(&t.measured_on)),
    );
    put!(out, "<ul class=\"tiles\">\n");
    let rewarded = || report.reward.as_ref().map(reward::tiles);
    if let Some(tiles) = report.transfer.as_ref().map(transfer::tiles).or_else(rewarded) {
        for (class, label, value, note) in tiles {
            tile(out, class, label, &value, &note);
        }
        write_size_tiles(out, report);
        put!(out, "</ul>\n");
        return;
    }
    if write_loss_tiles(out, report) {
        write_size_tiles(out, report);
        put!(out, "</ul>\n");
        return;
    }
    tile(out, "federated", "Federated accuracy", &percent_or_missing(federated, 1), &tested);

    let alone = local.as_ref().and_then(|l| measured(Some(l.mean_accuracy)));
    let alone_note = match (federated, alone, local) {
        (Some(f), Some(a), Some(l)) => format!(
            "mean of {}; federated {} points",
            counted(l.sites_measured, "site", "sites"),
            points(f - a)
        ),
        (None, Some(_), Some(l)) => format!("mean of {}", counted(l.sites_measured, "site", "sites")),
        _ => "no local-only score in this run".to_owned(),
    };
    tile(out, "local", "Local-only accuracy", &percent_or_missing(alone, 1), &alone_note);

    let together = accuracy(pooled);
    let together_note =
        if together.is_some() { "all rows in one place, to compare" } else { "no pooled score in this run" };
    tile(out, "pooled", "Pooled accuracy", &percent_or_missing(together, 1), together_note);
    write_size_tiles(out, report);
    put!(out, "</ul>\n");
}

/// Of a tuned language model, which has losses in place of accuracies: the last and the first measured round's. False where
/// there is none.
fn write_loss_tiles(out: &mut String, report: &Report) -> bool {
    let losses = report.rounds.iter().filter_map(|round| Some((round.round, measured(round.test_loss)?)));
    let losses: Vec<_> = losses.collect();
    let (Some((first, before)), Some((last, now))) = (losses.first(), losses.last()) else {
        return false;
    };
    let figure = |loss: f64| format!("{loss:.3}");
    let note = |round: u32| format!("nats a token, after round {round}");
    tile(out, "federated", "Test loss", &figure(*now), &note(*last));
    tile(out, "local", "Test loss at first", &figure(*before), &note(*first));
    tile(out, "pooled", "Perplexity", &format!("{:.2}", now.exp()), "e to the test loss");
    true
}

fn write_size_tiles(out: &mut String, report: &Report) {
    let inside: Vec<_> = report.sites.iter().filter(|s| is_in(s)).collect();
    let note = match report.sites.len() - inside.len() {
        _ if report.sites.is_empty() => "no site was invited".to_owned(),
        0 => "every invited site".to_owned(),
        _ => format!("of {} invited", count(report.sites.len() as u64)),
    };
    tile(out, "", "Sites in the model", &count(inside.len() as u64), &note);

    let rows = inside.iter().map(|s| s.rows).try_fold(0u64, |sum, rows| Some(sum.saturating_add(rows?)));
    let rows = rows.map_or_else(|| "private".to_owned(), count);
    let note = match report.model.classes.len() {
        0 => "all stayed at their sites".to_owned(),
        n => format!("in {}; all stayed at their sites", counted(n, "class", "classes")),
    };
    tile(out, "", "Rows learnt from", &rows, &note);

    let sites = inside.len() as u64;
    let up = inside.iter().fold(0u64, |sum, s| sum.saturating_add(s.bytes_up)).checked_div(sites);
    let down = inside.iter().fold(0u64, |sum, s| sum.saturating_add(s.bytes_down)).checked_div(sites);
    let (value, note) = match (up, down) {
        (Some(up), Some(down)) => {
            (bytes(up.saturating_add(down)), format!("{} sent, {} received", bytes(up), bytes(down)))
        }
        _ => ("none".to_owned(), "no site is in".to_owned()),
    };
    tile(out, "", "Traffic per site", &value, &note);
}

fn tile(out: &mut String, class: &str, label: &str, value: &str, note: &str) {
    let wordy = if value.starts_with(|c: char| c.is_alphabetic()) { " wordy" } else { "" };
    put!(
        out,
        "<li class=\"tile {class}{wordy}\"><span class=\"label\">{}</span><strong>{}</strong><span \
         class=\"note\">{}</span></li>\n",
        Escaped(label),
        Escaped(value),
        Escaped(note)
    );
}

/// Where scores were measured, in words.
pub(super) fn place(measured_on: &str) -> String {
    match measured_on {
        "sites" => "at the sites".to_owned(),
        "central" => "held centrally".to_owned(),
        other => format!("({other})"),
    }
}

/// Federated against pooled, hash by hash: stated only when the pooled hash is known, and judged by the
/// hashes themselves.
fn write_verdict(out: &mut String, model: &ModelInfo) {
    let Some(pooled) = model.pooled_sha256.as_deref().filter(|_| !model.sha256.is_empty()) else {
        return;
    };
    if pooled == model.sha256 && model.equal_to_pooled != Some(false) {
        put!(
            out,
            "<div class=\"verdict equal\">\n<span class=\"mark\" aria-hidden=\"true\">✓</span>\n\
             <div><p><strong>The federated and the pooled model are equal, bit for bit.</strong> Training \
             at the sites gave the \
             same weights as training on all rows in one place: their SHA-256 hashes are the \
             same.</p>\n<p><code>{}</code></p></div>\n</div>\n",
            Escaped(pooled)
        );
    } else {
        put!(
            out,
            "<div class=\"verdict differ\">\n<span class=\"mark\" aria-hidden=\"true\">✗</span>\n\
             <div><p><strong>The federated and the pooled model differ.</strong> Training at the sites did \
             not give the \
             same weights as training on all rows in one place.</p>\n\
             <p>federated <code>{}</code><br>pooled <code>{}</code></p></div>\n</div>\n",
            Escaped(&model.sha256),
            Escaped(pooled)
        );
    }
}
