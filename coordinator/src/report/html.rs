//! The run report as one self-contained HTML page.
//!
//! The page is made to be handed on (mailed, printed, filed with a protocol), so it holds everything it
//! needs: inline style,
//! inline SVG, no script, and a content security policy that stops a browser from loading anything else.
//! Every text that comes
//! from a site or a plan passes through [`markup::Escaped`].

#[macro_use]
mod markup;

mod accuracy;
mod confusion;
mod funnel;
mod headline;
mod holdings;
mod llm;
mod phases;
mod privacy;
mod quantity;
mod reward;
mod rounds;
mod samples;
mod scores;
mod sites;
mod svg;
mod transfer;

#[cfg(test)]
mod tests;

use super::{ModelInfo, Report, RunInfo, SiteReport};
use markup::Escaped;

const STYLE: &str = include_str!("html/style.css");

/// Stops the page from loading or running anything, should an escape ever be missed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Renders a report as one self-contained HTML document: inline CSS and SVG, no script, nothing fetched.
///
/// Light and dark follow the reader's system; print is always light. Missing and non-finite numbers appear
/// as "not measured".
/// The sentence on the federated and the pooled hash appears only when `report.model.pooled_sha256` is known.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = String::with_capacity(64 * 1024);
    put!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} – Sheaf run report</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        Escaped(&report.run.name)
    );
    headline::write(&mut page, report);
    // A tuned language model has losses, which the rounds show.
    if let Some(transfer) = &report.transfer {
        section(&mut page, "What the texts are worth", |out| {
            transfer::write(out, transfer);
            accuracy::write(out, &report.sites, &report.metrics);
        });
    } else if let Some(reward) = &report.reward {
        section(&mut page, "What the target learnt", |out| reward::write(out, reward));
    } else if report.rounds.iter().all(|round| round.test_loss.is_none()) {
        section(&mut page, "Accuracy", |out| {
            scores::write_summary(out, &report.metrics);
            accuracy::write(out, &report.sites, &report.metrics);
        });
    }
    section(&mut page, "Rounds", |out| {
        rounds::write(out, &report.rounds, report.comparison.as_ref(), report.metrics.pooled.as_ref());
    });
    section(&mut page, "What the model writes", |out| samples::write(out, &report.samples));
    section(&mut page, "Who holds what", |out| {
        holdings::write(out, &report.sites, &report.model.classes);
    });
    if let Some(test) = &report.metrics.test {
        section(&mut page, "Class by class", |out| {
            confusion::write(out, test, &report.model.classes);
            scores::write_classes(out, test);
        });
    }
    section(&mut page, "Privacy", |out| privacy::write(out, report.privacy.as_ref(), &report.sites));
    section(&mut page, "Sites", |out| sites::write(out, &report.sites));
    section(&mut page, "Time", |out| phases::write(out, &report.timing));
    section(&mut page, "Provenance", |out| write_provenance(out, report));
    put!(
        page,
        "<footer>Written by Sheaf {}. The numbers on this page are those of <code>report.json</code> \
         (schema {}), \
         which lies beside it.</footer>\n</main>\n</body>\n</html>\n",
        Escaped(&report.environment.version),
        report.schema
    );
    page
}

/// One titled section; left out whole when `body` writes nothing.
fn section(page: &mut String, title: &str, body: impl FnOnce(&mut String)) {
    let mut inner = String::new();
    body(&mut inner);
    if !inner.is_empty() {
        put!(page, "<section>\n<h2>{}</h2>\n{inner}</section>\n", Escaped(title));
    }
}

fn write_provenance(out: &mut String, report: &Report) {
    let Report { run, model, environment, .. } = report;
    put!(out, "<dl class=\"facts\">\n");
    fact(out, "Run", &run.id, true);
    fact(out, "Workload", &run.workload, false);
    fact(out, "Plan SHA-256", &run.plan_sha256, true);
    fact(out, "Model file", &model.file, true);
    fact(out, "Weights SHA-256", &model.sha256, true);
    if let Some(pooled) = &model.pooled_sha256 {
        fact(out, "Pooled weights SHA-256", pooled, true);
    }
    if let Some(backbone) = &model.backbone {
        fact(out, "Backbone", &backbone.model, false);
        fact(out, "Backbone SHA-256", backbone.sha256.as_deref().unwrap_or_default(), true);
    }
    fact(out, "Model version", &run.version.to_string(), false);
    fact(out, "Model size", &model_size(model), false);
    fact(out, "Sheaf", &environment.version, false);
    fact(out, "Backend", &environment.backend, false);
    fact(out, "Threads", &environment.threads.to_string(), false);
    put!(out, "</dl>\n");
    write_plan(out, run);
}

fn model_size(model: &ModelInfo) -> String {
    format!(
        "{} features, {} classes",
        quantity::count(model.dim as u64),
        quantity::count(model.classes.len() as u64)
    )
}

fn fact(out: &mut String, term: &str, text: &str, code: bool) {
    let text = if text.is_empty() { "not recorded" } else { text };
    let (open, close) = if code { ("<code>", "</code>") } else { ("", "") };
    put!(out, "<div><dt>{}</dt><dd>{open}{}{close}</dd></div>\n", Escaped(term), Escaped(text));
}

fn write_plan(out: &mut String, run: &RunInfo) {
    if !run.plan.trim().is_empty() {
        put!(
            out,
            "<details>\n<summary>The plan as it was run</summary>\n<pre><code>{}</code></pre>\n</details>\n",
            Escaped(run.plan.trim_end())
        );
    }
}

/// Whether the site's rows are in the published model.
fn is_in(site: &SiteReport) -> bool {
    site.status == "in"
}

/// The name of class `index`, also where the list of names is shorter than the counts.
fn class_name(classes: &[String], index: usize) -> String {
    classes.get(index).cloned().unwrap_or_else(|| format!("class {index}"))
}
