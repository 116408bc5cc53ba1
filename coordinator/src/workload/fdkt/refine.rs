//! The coordinator's part: the sites' texts filtered, more written after them, and the head that these give alone.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};
use sheaf_analytic::{FeatureSpec, Featurizer, GramAccumulator, SumsShape, Weights, solve};
use sheaf_data::Encoding;
use sheaf_proto::{
    BlobId,
    fdkt::{Labelled, Texts},
    model::write_model,
};
use sheaf_text::{
    Funnel, Labels, UnitVectors,
    clean::{CleanSpec, clean},
    to_lines,
};
use sheaf_transport::identity::SiteName;

use super::{
    Pool,
    augment::{Shown, Written, augment, subset},
    filter::{Filtered, JudgeUse, filter},
    meaning::{Meaning, embed, places, renamed},
    options::{FdktOptions, classes, encoder, labels},
    site_texts,
};
use crate::{
    error::Error,
    models::Tools,
    report::{LlmUse, TransferSample},
    workload::{Context, ask::use_of},
};

/// What the second phase gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Refined {
    /// What sites learn from: one [`Labelled`] a line.
    pub(super) sets: BTreeMap<Texts, BlobId>,
    /// How many texts each of them has.
    pub(super) counts: BTreeMap<Texts, usize>,
    /// Every text that the language model wrote, with its provenance.
    pub(super) augmented: BlobId,
    /// What was dropped where, by set.
    pub(super) funnels: BTreeMap<Texts, Funnel>,
    pub(super) judge: JudgeUse,
    pub(super) llm: Option<LlmUse>,
    pub(super) samples: Vec<TransferSample>,
    /// The head that the last of the sets gives.
    pub(super) head: Option<Head>,
}

/// A task model that was made of texts alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) model: BlobId,
    pub(super) sha256: String,
    pub(super) texts: Texts,
    pub(super) rows: u64,
}

/// A text with what wrote it, as a line of `augmented.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    label: &'a str,
    set: Texts,
    model: &'a str,
    #[serde(flatten)]
    provenance: &'a super::augment::Provenance,
}

/// Texts under the labels' spoken names, with what they say.
struct Set {
    texts: Vec<Labelled>,
    vectors: UnitVectors,
    funnel: Funnel,
}

/// All of it; `pool` is what the sites wrote, where they were asked to.
pub(super) fn refine(context: &Context<'_>, pool: Option<&Pool>) -> Result<Refined, Error> {
    let tools =
        context.tools.ok_or_else(|| Error::bug("texts are refined without the coordinator's tools"))?;
    let options = FdktOptions::of(context.plan)?;
    let labels = labels(context.plan)?;
    let encoder = encoder(context.plan)?;
    let names: Vec<&str> = labels.names().iter().map(String::as_str).collect();
    let names = embed(tools, encoder, &names)?;
    let by_name = Meaning::new(&names, &[]);

    let pool = pool.map(|pool| contributed(context, &labels, pool)).transpose()?;
    let (synthetic, judge) = if let Some(pool) = pool {
        filtered(tools, (&options, &labels), pool, &by_name, encoder)?
    } else {
        let vectors = embed(tools, encoder, &[])?;
        (Set { texts: Vec::new(), vectors, funnel: Funnel::default() }, JudgeUse::default())
    };

    let mut sets: BTreeMap<Texts, Set> = BTreeMap::new();
    let (mut lines, mut used) = (Vec::new(), None);
    if options.augments() {
        let (llm, began) = (tools.models.llm()?, Instant::now());
        let before = llm.totals();
        let of_labels = places(&labels, &synthetic.texts)?;
        let known: Vec<(usize, &[f32])> =
            of_labels.into_iter().enumerate().map(|(at, label)| (label, synthetic.vectors.row(at))).collect();
        let after_texts = Meaning::new(&names, &known);
        let empty =
            Set { texts: Vec::new(), vectors: subset(&synthetic.vectors, &[])?, funnel: Funnel::default() };
        for texts in options.arms.iter().copied().filter(|texts| *texts != Texts::Synthetic) {
            let (shown, meaning, what) = match texts {
                Texts::Fdkt => (&synthetic, &after_texts, "writing texts after the sites' ones"),
                _ => (&empty, &by_name, "writing texts from the labels alone"),
            };
            let setting = (&options, &labels, encoder);
            let shown = Shown { texts: &shown.texts, vectors: &shown.vectors };
            let written = augment(tools, &*llm, setting, shown, meaning, what)?;
            write_lines(&mut lines, &written, texts, &llm.name(), (&labels, classes(context.plan)))?;
            let mut set = Set {
                texts: written.texts,
                vectors: written.vectors,
                funnel: Funnel { steps: written.steps },
            };
            if texts == Texts::Fdkt {
                set = together(&synthetic, set)?;
            }
            sets.insert(texts, set);
        }
        used = Some(use_of(&llm.name(), before, llm.totals(), began));
    }
    if options.arms.contains(&Texts::Synthetic) {
        sets.insert(Texts::Synthetic, synthetic);
    } else if let Some(set) = sets.get_mut(&Texts::Fdkt) {
        // Its beginning has no set of its own to be told in.
        let steps = std::mem::take(&mut set.funnel.steps);
        set.funnel.steps = synthetic.funnel.steps.into_iter().chain(steps).collect();
    }
    finish(context, (&options, &labels), &sets, judge, used, &lines)
}

/// The sites' texts under their labels' spoken names.
fn contributed(context: &Context<'_>, labels: &Labels, pool: &Pool) -> Result<Vec<Labelled>, Error> {
    let blobs: Vec<&BlobId> = match pool {
        Pool::Sites(sites) => sites.values().collect(),
        Pool::Voted(blob) => vec![blob],
    };
    let mut texts = Vec::new();
    for blob in blobs {
        texts.extend(site_texts(context.plan, &context.blobs.get(blob)?)?);
    }
    renamed(&texts, classes(context.plan), labels.names())
}

/// Cleans and filters the sites' texts.
fn filtered(
    tools: &Tools<'_>,
    (options, labels): (&FdktOptions, &Labels),
    pool: Vec<Labelled>,
    meaning: &Meaning,
    encoder: &sheaf_data::Backbone,
) -> Result<(Set, JudgeUse), Error> {
    let spec = CleanSpec { min_words: options.sampling.min_words.max(1), ..CleanSpec::default() };
    let cleaned = clean(&pool, &spec)?;
    let mut funnel = Funnel { steps: vec![cleaned.step] };
    let texts: Vec<&str> = cleaned.kept.iter().map(|text| text.text.as_str()).collect();
    let vectors = embed(tools, encoder, &texts)?;
    let of_labels = places(labels, &cleaned.kept)?;
    let Filtered { kept, steps, judge } =
        filter(tools, options, &cleaned.kept, &of_labels, &vectors, meaning)?;
    funnel.steps.extend(steps);
    let texts = kept.iter().map(|place| cleaned.kept[*place].clone()).collect();
    Ok((Set { texts, vectors: subset(&vectors, &kept)?, funnel }, judge))
}

/// The sites' texts, then what was written after them.
fn together(synthetic: &Set, written: Set) -> Result<Set, Error> {
    let dim = synthetic.vectors.dim();
    let of = |vectors: &UnitVectors| -> Vec<f32> {
        (0..vectors.len()).flat_map(|at| vectors.row(at).to_vec()).collect()
    };
    let rows: Vec<f32> = of(&synthetic.vectors).into_iter().chain(of(&written.vectors)).collect();
    let vectors = UnitVectors::new(&rows, dim)?;
    let texts = synthetic.texts.iter().cloned().chain(written.texts).collect();
    Ok(Set { texts, vectors, funnel: written.funnel })
}

fn write_lines(
    lines: &mut Vec<u8>,
    written: &Written,
    set: Texts,
    model: &str,
    (labels, classes): (&Labels, &[String]),
) -> Result<(), Error> {
    let of_classes = renamed(&written.texts, labels.names(), classes)?;
    for (Labelled { text, label }, provenance) in of_classes.iter().zip(&written.provenance) {
        let line = Line { text, label, set, model, provenance };
        serde_json::to_writer(&mut *lines, &line)?;
        lines.push(b'\n');
    }
    Ok(())
}

/// Stores everything.
fn finish(
    context: &Context<'_>,
    (options, labels): (&FdktOptions, &Labels),
    sets: &BTreeMap<Texts, Set>,
    judge: JudgeUse,
    llm: Option<LlmUse>,
    lines: &[u8],
) -> Result<Refined, Error> {
    let mut blobs = BTreeMap::new();
    for (texts, set) in sets {
        let of_classes = renamed(&set.texts, labels.names(), classes(context.plan))?;
        blobs.insert(*texts, context.blobs.put(&to_lines(&of_classes)?)?);
    }
    let head = sets.iter().next_back().filter(|(_, set)| !set.texts.is_empty());
    Ok(Refined {
        sets: blobs,
        counts: sets.iter().map(|(texts, set)| (*texts, set.texts.len())).collect(),
        augmented: context.blobs.put(lines)?,
        funnels: sets.iter().map(|(texts, set)| (*texts, set.funnel.clone())).collect(),
        judge,
        llm,
        samples: samples(labels, sets),
        head: head.map(|(texts, set)| head_of(context, options, labels, *texts, set)).transpose()?,
    })
}

/// The first text of each label in each set, for a few labels.
fn samples(labels: &Labels, sets: &BTreeMap<Texts, Set>) -> Vec<TransferSample> {
    const SHOWN: usize = 8;
    let apart = labels.count().div_ceil(SHOWN).max(1);
    let text = |texts, label: &String| {
        let set: &Set = sets.get(&texts)?;
        // The set of both begins with the sites' own.
        set.texts.iter().rev().find(|text| text.label == *label).map(|text| text.text.clone())
    };
    let sample = |label: &String| TransferSample {
        label: label.clone(),
        synthetic: text(Texts::Synthetic, label),
        llm: text(Texts::Llm, label),
        fdkt: text(Texts::Fdkt, label),
    };
    labels.names().iter().step_by(apart).map(sample).collect()
}

/// The analytic head on the features of texts.
fn head_of(
    context: &Context<'_>,
    options: &FdktOptions,
    labels: &Labels,
    texts: Texts,
    set: &Set,
) -> Result<Head, Error> {
    let features = options.afl().features(declared(context)?.input_dim());
    let weights = weights_of(&features, options.lambda, labels, set)?;
    let file = write_model(&weights, &features).map_err(|e| Error::bug(e.to_string()))?;
    Ok(Head {
        sha256: weights.sha256(),
        model: context.blobs.put(&file)?,
        texts,
        rows: set.texts.len() as u64,
    })
}

fn weights_of(features: &FeatureSpec, lambda: f64, labels: &Labels, set: &Set) -> Result<Weights, Error> {
    let bad = |e: sheaf_analytic::AnalyticError| Error::invalid(e.to_string());
    let shape = SumsShape::of(features, labels.count());
    let inputs: Vec<f64> =
        (0..set.vectors.len()).flat_map(|at| set.vectors.row(at).iter().map(|v| f64::from(*v))).collect();
    let q = Featurizer::new(features).and_then(|f| f.quantise(&inputs, set.texts.len())).map_err(bad)?;
    let of_labels: Vec<u32> = places(labels, &set.texts)?.into_iter().map(|label| label as u32).collect();
    let mut sums = GramAccumulator::new(shape.dim, shape.classes, shape.bits, shape.max_abs).map_err(bad)?;
    sums.push(&q, &of_labels).map_err(bad)?;
    solve(&sums.finish(), lambda).map_err(bad)
}

/// How records become inputs under the plan's declared classes.
pub(super) fn declared(context: &Context<'_>) -> Result<Encoding, Error> {
    Encoding::declared(&context.plan.schema)
        .map_err(|e| Error::invalid(e.to_string()))?
        .ok_or_else(|| Error::bug("a checked plan declares its classes"))
}

/// Sites whose texts are in it, with the blobs that they sent.
pub(super) type Contributions = BTreeMap<SiteName, BlobId>;
