//! Exchanged texts: what each arm is worth, what was dropped on the way, what the texts say, what they give away.

use sheaf_proto::fdkt::{Arm, TaskModel, Texts};

use super::markup::Escaped;
use super::quantity::{count, counted, percent, percent_or_missing, points};
use super::{funnel, llm};
use crate::report::{Canaries, Judged, TransferReport, TransferSample};

/// What models of an arm have learnt from.
pub(super) const fn words(arm: Arm) -> &'static str {
    match arm {
        Arm::Local => "Own records",
        Arm::Synthetic => "Own records, texts of all sites",
        Arm::Llm => "Own records, the language model’s texts from the labels alone",
        Arm::Fdkt => "Own records, texts of all sites, the language model’s texts after them (FDKT)",
        Arm::SyntheticAlone => "Texts of all sites, no record",
        Arm::LlmAlone => "The language model’s texts from the labels alone, no record",
        Arm::FdktAlone => "FDKT’s texts, no record",
    }
}

/// The accuracy of a task model's arm: exact where that is known, else as the sites say it.
fn accuracy(transfer: &TransferReport, task: TaskModel, arm: Arm) -> Option<f64> {
    transfer.exact(task, arm).or_else(|| transfer.said(task, arm))
}

pub(super) fn write(out: &mut String, transfer: &TransferReport) {
    if transfer.tasks().is_empty() {
        put!(out, "<p class=\"quiet\">What the texts are worth was not measured in this run.</p>\n");
    }
    for task in transfer.tasks() {
        write_arms(out, transfer, task);
    }
    if let Some(judged) = &transfer.judged {
        write_copies(out, judged);
        if let Some(canaries) = &judged.canaries {
            write_canaries(out, canaries);
        }
    }
    write_samples(out, &transfer.samples);
    write_funnels(out, transfer);
    write_makers(out, transfer);
}

fn write_arms(out: &mut String, transfer: &TransferReport, task: TaskModel) {
    put!(
        out,
        "<div class=\"scroll\"><table class=\"scores\">\n<caption>Task model: {}. By what it has learnt from, on the sites’ own \
         test records. “Said by the sites” carries the noise that it was paid for with; under privacy nothing is said of models \
         that have learnt from records, and every site has its own figures in its folder of the run. “Exact” was measured with all \
         records at hand, which only a simulation has.</caption>\n<thead><tr><th scope=\"col\">Learnt from</th>\
         <th scope=\"col\" class=\"num\">Texts</th><th scope=\"col\" class=\"num\">Said by the sites</th>\
         <th scope=\"col\" class=\"num\">Exact</th><th scope=\"col\" class=\"num\">Against own records</th></tr></thead>\n\
         <tbody>\n",
        Escaped(transfer.name(task))
    );
    let local = accuracy(transfer, task, Arm::Local);
    for arm in Arm::ALL {
        let (said, exact) = (transfer.said(task, arm), transfer.exact(task, arm));
        if said.is_none() && exact.is_none() {
            continue;
        }
        let texts =
            arm.texts().and_then(|texts| transfer.counts.get(&texts)).map(|texts| count(*texts as u64));
        let gain = match (arm, accuracy(transfer, task, arm), local) {
            (Arm::Local, ..) | (_, None, _) | (.., None) => String::new(),
            (_, Some(this), Some(local)) => points(this - local),
        };
        row(out, words(arm), [texts.unwrap_or_default(), cell(said), cell(exact), gain]);
    }
    if let Some(pooled) = transfer.judged.as_ref().and_then(|judged| judged.pooled(task)) {
        let gain = local.map(|local| points(pooled - local)).unwrap_or_default();
        let cells = [String::new(), String::new(), percent(pooled, 1), gain];
        row(out, "Records of all sites in one place (bound)", cells);
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn cell(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| percent(share, 1))
}

fn row(out: &mut String, head: &str, cells: [String; 4]) {
    put!(out, "<tr><th scope=\"row\">{}</th>", Escaped(head));
    for cell in cells {
        put!(out, "<td class=\"num\">{}</td>", Escaped(&cell));
    }
    put!(out, "</tr>\n");
}

fn write_copies(out: &mut String, judged: &Judged) {
    let near = judged.near_copies;
    if near.texts == 0 {
        return;
    }
    put!(
        out,
        "<p>Of {} that left a site, <strong>{}</strong> share{} {} or more words in a row with a private training record; the \
         longest such run has {}. This was measured for the report, not used to choose texts: a filter that reads records \
         would have to be paid for.</p>\n",
        Escaped(&counted(near.texts, "text", "texts")),
        count(near.found as u64),
        if near.found == 1 { "s" } else { "" },
        near.words,
        Escaped(&counted(near.longest_run, "word", "words"))
    );
}

fn write_canaries(out: &mut String, canaries: &Canaries) {
    put!(
        out,
        "<p>{} with a secret of {} words stood among the sites’ training records, one in the place of a record. <strong>{}</strong> \
         of the secrets {} in a text that left a site; the most that one has of a secret is {} in a row.</p>\n",
        Escaped(&counted(canaries.planted, "invented sentence", "invented sentences")),
        canaries.words,
        count(canaries.found as u64),
        if canaries.found == 1 { "stands" } else { "stand" },
        Escaped(&counted(canaries.longest_run, "word", "words"))
    );
}

fn write_samples(out: &mut String, samples: &[TransferSample]) {
    if samples.is_empty() {
        return;
    }
    put!(
        out,
        "<div class=\"scroll\"><table class=\"samples\">\n<caption>A text of each kind, for a few labels.</caption>\n<thead><tr>"
    );
    let heads = [
        "Label",
        "By a site, under privacy",
        "By the language model, from the label",
        "By it, after the sites’ texts",
    ];
    for head in heads {
        put!(out, "<th scope=\"col\">{}</th>", Escaped(head));
    }
    put!(out, "</tr></thead>\n<tbody>\n");
    for sample in samples {
        put!(out, "<tr><th scope=\"row\">{}</th>", Escaped(&sample.label));
        for text in [&sample.synthetic, &sample.llm, &sample.fdkt] {
            put!(out, "<td>{}</td>", Escaped(text.as_deref().unwrap_or("–")));
        }
        put!(out, "</tr>\n");
    }
    put!(out, "</tbody>\n</table></div>\n");
}

fn write_funnels(out: &mut String, transfer: &TransferReport) {
    let sets: Vec<_> = transfer.funnels.iter().map(|(texts, funnel)| (Some(texts.name()), funnel)).collect();
    funnel::write(out, "What became of the texts on the way to each set.", &sets);
}

/// Who filtered and who wrote.
fn write_makers(out: &mut String, transfer: &TransferReport) {
    let judge = &transfer.judge;
    let filter = if judge.clusters == 0 {
        "The sites’ texts were filtered by scores alone (fit of the label, distance to its middle, near-duplicates).".to_owned()
    } else {
        format!(
            "The sites’ texts were filtered by the language model in {}; {} of these had no readable answer and went by scores.",
            counted(judge.clusters, "cluster", "clusters"),
            judge.fallen_back
        )
    };
    put!(out, "<p>{}", Escaped(&filter));
    if let Some(used) = &transfer.llm {
        put!(out, " {}", Escaped(&llm::sentence(used)));
    }
    put!(out, "</p>\n");
}

/// The figures at the top: of the run's main arm, of records alone, and the bound.
pub(super) fn tiles(transfer: &TransferReport) -> [(&'static str, &'static str, String, String); 3] {
    let main = Texts::ALL.into_iter().rev().find(|texts| transfer.counts.contains_key(texts));
    // Of the first task model: the same one in all three.
    let task = transfer.tasks().first().copied().unwrap_or(TaskModel::Analytic);
    let accuracy = |arm| accuracy(transfer, task, arm);
    let local = accuracy(Arm::Local);
    let with_records = main.and_then(|texts| accuracy(texts.arm()));
    let best = with_records.or_else(|| main.and_then(|texts| accuracy(texts.alone())));
    let gain = match (best, local) {
        (Some(best), Some(local)) => format!("{} points against own records", points(best - local)),
        (Some(_), None) => "learnt from texts alone, at the sites’ test records".to_owned(),
        (None, _) => "not measured in this run".to_owned(),
    };
    let own = if local.is_some() { "a task model at each site" } else { "stays at the sites" };
    let bound = transfer.judged.as_ref().and_then(|judged| judged.pooled(task));
    let known =
        if bound.is_some() { "all records in one place, to compare" } else { "known in simulations alone" };
    [
        ("federated", "With exchanged texts", percent_or_missing(best, 1), gain),
        ("local", "Own records alone", percent_or_missing(local, 1), own.to_owned()),
        ("pooled", "Pooled records", percent_or_missing(bound, 1), known.to_owned()),
    ]
}

#[cfg(test)]
mod tests;
