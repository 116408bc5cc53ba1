//! What a run leaves behind: the target's adapter, the proxies, the pools, the figures.

use std::collections::BTreeMap;

use sheaf_data::catalogue::Catalogue;
use sheaf_proto::{
    BlobId,
    rewardds::{Arm, Evaluation, RewardForm, Step},
};
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use super::{
    Said, adapters,
    filter::{PoolState, TunedArm, queries, sampled},
    options::{Kind, RewarddsOptions},
    proxies::{self, Pair},
    refine::{Refined, together},
    step,
};
use crate::{
    error::Error,
    report::{ProxyReport, RewardArm, RewardFigures, RewardReport, SiteMetrics},
    run::event::PhaseOutput,
    workload::{
        Context, Publication, SitePublication,
        adapter::{self, CONFIG_FILE, WEIGHTS_FILE, weight_sha256},
        afl::outcome,
    },
};

/// What a run with a hosted target leaves in place of an adapter: examples for its prompts.
const EXAMPLES: &str = "examples.jsonl";

/// What the coordinator's own phases gave.
#[derive(Default)]
struct Made {
    arms: BTreeMap<Arm, TunedArm>,
    pools: Vec<PoolState>,
    refined: Vec<Refined>,
    said: Option<Said>,
}

fn made(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Made, Error> {
    let mut made = Made::default();
    for output in outputs {
        match step(&output.name)? {
            Step::Tune(_) => {
                let tuned: TunedArm = outcome(context.blobs, output)?;
                made.pools.extend(tuned.pool.clone());
                made.arms.insert(tuned.arm, tuned);
            }
            Step::Refine(_) => {
                let refined: Refined = outcome(context.blobs, output)?;
                made.pools.extend(refined.tuned.pool.clone());
                made.arms.insert(Arm::RgfSor, refined.tuned.clone());
                made.refined.push(refined);
            }
            Step::Evaluate => made.said = Some(outcome(context.blobs, output)?),
            _ => {}
        }
    }
    Ok(made)
}

/// The model that is published: of the arm that the run is about, which is the last one tuned.
struct Model {
    weights: BlobId,
    card: BlobId,
    sha256: String,
    files: [String; 2],
    size: usize,
}

pub(super) fn publish(context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
    let options = RewarddsOptions::of(context.plan)?;
    let made = made(context, outputs)?;
    let pairs = proxies::finished(context, outputs)?;
    let sampled = sampled(context, outputs)?;
    let model = model(context, &options, outputs, &made)?;
    let mut files = BTreeMap::new();
    for pair in &pairs {
        files.extend(proxy_files(context, &options, pair)?);
    }
    for pool in &made.pools {
        files.insert(format!("pool/round-{}.jsonl", pool.round.round), pool.lines);
    }
    for (arm, adapter) in adapters(context, &options, outputs)? {
        let Some(blob) = adapter else { continue };
        let folder = format!("target/{}", arm.name());
        let config = adapter::config(
            &options.target.model,
            options.target.lora.as_ref(),
            &proxies::get(context, &blob)?,
        );
        files.insert(format!("{folder}/{WEIGHTS_FILE}"), blob);
        files.insert(
            format!("{folder}/{CONFIG_FILE}"),
            context.blobs.put(&serde_json::to_vec_pretty(&config)?)?,
        );
    }
    let said = made.said.clone().unwrap_or_default();
    let sites = said.sites.iter().map(|(site, figures)| (site.clone(), site_publication(figures)));
    let members = context.members.iter().map(|site| (site.clone(), site_publication(&Evaluation::default())));
    let sites: BTreeMap<SiteName, SitePublication> = members.chain(sites).collect();
    let [model_file, card_file] = model.files;
    Ok(Publication {
        model: model.weights,
        card: model.card,
        model_file: Some(model_file),
        card_file: Some(card_file),
        weight_sha256: model.sha256,
        classes: Vec::new(),
        dim: model.size,
        test: None,
        local: None,
        sites,
        backend: "cpu".to_owned(),
        rounds: Vec::new(),
        files,
        transfer: None,
        reward: Some(report(&options, &made, &pairs, sampled.funnel)?),
    })
}

fn site_publication(figures: &Evaluation) -> SitePublication {
    let metrics = SiteMetrics { test_rows: figures.rows.max(0.0).round() as u64, ..SiteMetrics::default() };
    SitePublication { rows: None, class_counts: Vec::new(), metrics }
}

/// `proxies/OWNER/`: both proxies as other tools read them.
fn proxy_files(
    context: &Context<'_>,
    options: &RewarddsOptions,
    pair: &Pair,
) -> Result<Vec<(String, BlobId)>, Error> {
    let folder = format!("proxies/{}", pair.owner);
    let config = adapter::config(&options.model, Some(&options.generator.lora), &pair.generator);
    let form: RewardForm = options.reward()?;
    let put = |document: &serde_json::Value| context.blobs.put(&serde_json::to_vec_pretty(document)?);
    Ok(vec![
        (format!("{folder}/generator/{WEIGHTS_FILE}"), pair.blobs.generator),
        (format!("{folder}/generator/{CONFIG_FILE}"), put(&config)?),
        (format!("{folder}/reward/reward.safetensors"), pair.blobs.reward),
        (format!("{folder}/reward/reward.json"), put(&serde_json::to_value(form)?)?),
    ])
}

fn model(
    context: &Context<'_>,
    options: &RewarddsOptions,
    outputs: &[PhaseOutput],
    made: &Made,
) -> Result<Model, Error> {
    let newest = made.arms.values().rev().find_map(|tuned| tuned.adapter);
    if let Some(blob) = newest {
        let parameters = proxies::get(context, &blob)?;
        let config = adapter::config(&options.target.model, options.target.lora.as_ref(), &parameters);
        return Ok(Model {
            weights: blob,
            card: context.blobs.put(&serde_json::to_vec_pretty(&config)?)?,
            sha256: weight_sha256(&parameters),
            files: [WEIGHTS_FILE.to_owned(), CONFIG_FILE.to_owned()],
            size: parameters.values().map(|tensor| tensor.data.len()).sum(),
        });
    }
    // A hosted model, or arms without a tuning: what is left of the run are examples.
    let mut lines = Vec::new();
    if let Some(state) = made.pools.last() {
        let queries = queries(context, &sampled(context, outputs)?)?;
        let held: super::filter::Held = context.blobs.document(&state.state)?;
        for entry in held.pool.entries() {
            let line = serde_json::json!({
                "query": queries[entry.query].query, "response": entry.response, "reward": entry.score,
            });
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
    }
    let blob = context.blobs.put(&lines)?;
    Ok(Model {
        weights: blob,
        card: blob,
        sha256: sha256_hex(&lines),
        files: [EXAMPLES.to_owned(), EXAMPLES.to_owned()],
        size: 0,
    })
}

fn target_words(options: &RewarddsOptions) -> Result<String, Error> {
    if options.target.kind == Kind::Hosted {
        return Ok(
            "the hosted language model of [llm], whose weights stay as they are: prompts and examples change"
                .to_owned(),
        );
    }
    let catalogue = Catalogue::known()?;
    let model = &options.target.model;
    let title = catalogue.model(model).ok().and_then(|asset| asset.title.split(',').next());
    Ok(format!("{} with an adapter", title.unwrap_or(model)))
}

fn report(
    options: &RewarddsOptions,
    made: &Made,
    pairs: &[Pair],
    funnel: sheaf_text::Funnel,
) -> Result<RewardReport, Error> {
    let mut sum = Evaluation::default();
    for figures in made.said.iter().flat_map(|said| said.sites.values()) {
        sum.add(figures);
    }
    let arm = |arm: &Arm| {
        let tuned = made.arms.get(arm);
        RewardArm {
            arm: *arm,
            examples: tuned.map(|tuned| tuned.examples),
            tokens: tuned.map_or(0, |tuned| tuned.tokens),
            held: tuned.map(|tuned| tuned.held.clone()).unwrap_or_default(),
            pass: tuned.map_or(0, |tuned| tuned.pass),
            said: sum.arms.get(arm).and_then(|figures| RewardFigures::of(sum.rows, figures)),
        }
    };
    let proxy = |pair: &Pair| ProxyReport {
        owner: pair.owner.clone(),
        generator_bytes: pair.blobs.generator.size(),
        reward_bytes: pair.blobs.reward.size(),
    };
    let known = |arm: &&Arm| options.arms.contains(arm) && **arm != Arm::NonPrivate;
    Ok(RewardReport {
        target: target_words(options)?,
        proxies: pairs.iter().map(proxy).collect(),
        arms: Arm::ALL.iter().filter(known).map(arm).collect(),
        rows: made.said.is_some().then_some(sum.rows),
        pairs: sum.pairs,
        rounds: made.pools.iter().map(|pool| pool.round.clone()).collect(),
        funnel,
        samples: made.refined.iter().flat_map(|refined| refined.samples.clone()).collect(),
        llm: made.refined.iter().filter_map(|refined| refined.llm.clone()).reduce(together),
        judged: None,
    })
}
