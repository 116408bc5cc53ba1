//! What a simulation alone can say of a RewardDS run, since it has all private records: exact figures of every arm, the target tuned
//! on the records themselves, how often each site's reward proxy is right, and how good its generation proxy is. Nothing of it is a
//! part of a deployment.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use sheaf_agent::{
    models,
    task::{
        Resources,
        rewardds::{
            evaluate::{self, Measuring},
            language,
        },
    },
};
use sheaf_coordinator::{
    models::{
        LocalModels as _,
        adapted::{TunedTarget, Watch},
    },
    report::{RewardJudged, RewardReport},
    run::plan::Plan,
    workload::rewardds::RewarddsOptions,
};
use sheaf_data::{AssetStore, Dataset, Split};
use sheaf_proto::{
    fedavg::{Parameters, ParametersFile as _},
    rewardds::{Arm, Evaluation, Likelihood, Measured},
};
use tokio_util::sync::CancellationToken;

use super::{DEVICE, Prepared, compare::unless, workspace};
use crate::models::BuiltIn;

/// The folder of proxies that all sites made together.
const SHARED: &str = "shared";

/// Judges what the run has left in `out`. `tell` hears what is done now, and how much of how much is. Fails where `stop` is cancelled.
pub(super) fn judge(
    assets: &AssetStore,
    plan: &Plan,
    prepared: &Prepared,
    (out, said): (&Path, Option<&RewardReport>),
    tell: &(dyn Fn(&str, u64, u64) + Sync),
    stop: &CancellationToken,
) -> Result<RewardJudged> {
    let cancelled = || stop.is_cancelled();
    let options = RewarddsOptions::of(plan)?;
    let cache = workspace::cache(assets);
    let resources = Resources::new(assets, &cache, None, DEVICE);
    let sites: Vec<(&str, Dataset)> =
        prepared.sites.iter().map(|site| (site.name.as_str(), prepared.site_data(site))).collect();
    let (mut total, mut generators) = (Evaluation::default(), None::<Likelihood>);
    let mut arms = adapters(assets, (&options, &sites), out, tell, stop)?;
    // What the sites have said without noise is exact.
    let said = said.filter(|_| plan.privacy.is_none());
    let known =
        |arm: Arm| said.is_some_and(|said| said.arms.iter().any(|of| of.arm == arm && of.said.is_some()));
    arms.retain(|(arm, _)| !known(*arm));
    let pairs_known = said.is_some_and(|said| said.pairs.is_some());
    let measured = Measured { reward: options.reward()?, generator: options.generator()? };
    let target = options.target()?;
    let model = target.as_ref().map(|target| models::language(&target.model, &resources)).transpose()?;
    let sandbox = target.as_ref().map(evaluate::sandbox).transpose()?.flatten();
    for (name, dataset) in &sites {
        unless(stop)?;
        let rows = evaluate::test_rows(dataset, options.measured_records);
        let mut of_site = Evaluation { rows: rows.len() as f64, ..Evaluation::default() };
        if let Some((target, model)) = target.as_ref().zip(model.as_ref()).filter(|_| !arms.is_empty()) {
            let tell = |what: &str| tell(&format!("{name}: {what}"), 0, 0);
            let measuring = Measuring {
                target,
                model,
                arms: &arms,
                alone: false,
                sandbox: sandbox.as_ref(),
                tell: &tell,
            };
            of_site.arms = measuring.exact(dataset, &rows, &cancelled)?;
        }
        if let Some((reward, generator)) = proxies(out, name)? {
            let of = (dataset, rows.as_slice(), &plan.schema);
            // No site says this.
            tell(&format!("{name}: measuring the generation proxy on test records"), 0, 0);
            let likely = evaluate::likelihood_of(&measured, &generator, of, &resources, &cancelled)?;
            generators.get_or_insert_default().add(&likely);
            if !pairs_known {
                tell(&format!("{name}: judging pairs of test records"), 0, 0);
                let pairs = evaluate::pairs_of(&measured, (&reward, &generator), of, &resources, &cancelled)?;
                of_site.pairs = Some(pairs);
            }
        }
        total.add(&of_site);
    }
    Ok(RewardJudged {
        rows: total.rows as u64,
        arms: total.arms,
        pairs: total.pairs,
        generator: generators,
        duplicates: prepared.duplicates,
    })
}

fn read(path: &Path) -> Result<Option<Parameters>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.with_context(|| path.display().to_string())?,
    };
    Ok(Some(Parameters::decode(&bytes).with_context(|| path.display().to_string())?))
}

/// A site's proxies, reward first; those of all where there are some.
fn proxies(out: &Path, site: &str) -> Result<Option<(Parameters, Parameters)>> {
    for owner in [site, SHARED] {
        let folder = out.join("proxies").join(owner);
        let generator = read(&folder.join("generator").join("adapter_model.safetensors"))?;
        if let (Some(generator), Some(reward)) =
            (generator, read(&folder.join("reward").join("reward.safetensors"))?)
        {
            return Ok(Some((reward, generator)));
        }
    }
    Ok(None)
}

/// The adapters of the run's arms, and that of the records themselves where the plan asks for it.
fn adapters(
    assets: &AssetStore,
    (options, sites): (&RewarddsOptions, &[(&str, Dataset)]),
    out: &Path,
    tell: &(dyn Fn(&str, u64, u64) + Sync),
    stop: &CancellationToken,
) -> Result<Vec<(Arm, Option<Parameters>)>> {
    let mut arms = Vec::new();
    for arm in Arm::ALL.into_iter().filter(|arm| options.arms.contains(arm)) {
        match arm {
            Arm::Untuned => arms.push((arm, None)),
            Arm::NonPrivate => {
                let adapter = of_records(assets, (options, sites), tell, stop)?;
                arms.extend(adapter.map(|adapter| (arm, Some(adapter))));
            }
            arm => {
                let path = out.join("target").join(arm.name()).join("adapter_model.safetensors");
                arms.extend(read(&path)?.map(|adapter| (arm, Some(adapter))));
            }
        }
    }
    Ok(arms)
}

/// The target tuned on all sites' training records without noise: the upper bound. Every tenth record chooses the pass.
fn of_records(
    assets: &AssetStore,
    (options, sites): (&RewarddsOptions, &[(&str, Dataset)]),
    tell: &(dyn Fn(&str, u64, u64) + Sync),
    stop: &CancellationToken,
) -> Result<Option<Parameters>> {
    let Some(target) = options.target()? else { return Ok(None) };
    let mut records: Vec<(String, String)> = Vec::new();
    for (_, dataset) in sites {
        let of = |row: usize| {
            let record = dataset.dialogue(row)?;
            Some((record.query.to_owned(), record.response.to_owned()))
        };
        records.extend(dataset.rows(Split::Train).into_iter().filter_map(of));
    }
    let model = {
        let cache = workspace::cache(assets);
        models::language(&target.model, &Resources::new(assets, &cache, None, DEVICE))?
    };
    for (query, response) in &mut records {
        // As the proxies read them.
        *query = language::fitted(&model, query.trim(), options.max_tokens)?;
        *response = language::shortened(&model, response, options.answer_tokens)?.text;
    }
    let (held, examples): (Vec<_>, Vec<_>) =
        records.into_iter().enumerate().partition(|(number, _)| number % 10 == 9);
    let plain =
        |all: Vec<(usize, (String, String))>| all.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>();
    let how = options.tuning(options.target.refine_epochs);
    let say = |done, of| tell("tuning the target on the records themselves, to compare with", done, of);
    let watch = Watch { stop, tell: &say };
    let models = BuiltIn::new(assets.clone()).adapted()?;
    let TunedTarget { adapter, .. } =
        models.tune(&target, None, &plain(examples), &plain(held), &how, watch)?;
    Ok(Some(adapter))
}
