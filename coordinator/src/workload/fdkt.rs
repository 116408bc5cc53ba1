//! FDKT (arXiv 2405.14212), the part without a large language model: sites write texts under differential privacy, the
//! coordinator pools and cleans them, sites learn from the texts of all and say what that is worth.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sheaf_analytic::metrics::Confusion;
use sheaf_data::{Encoding, catalogue::Catalogue};
use sheaf_proto::{
    BlobId,
    afl::{RELEASE_METRICS, SumsSpec},
    fdkt::{
        Arm, LABEL, Labelled, RELEASE_SYNTHETIC, SYNTHESISE, Sampling, SynthesiseSpec, TRANSFER, Transfer,
        TransferSpec, Tuning, WORKLOAD,
    },
    fedavg::AdapterSpec,
};
use sheaf_transport::{digest::sha256_hex, identity::SiteName};

use super::{
    Answers, Context, Publication, SitePublication, Workload,
    afl::{measures, outcome},
    fedavg::check_adapter,
    question,
};
use crate::{
    error::Error,
    privacy::{Privacy, Schedule},
    report::{LocalScores, Scores, SiteMetrics},
    run::{
        event::{Next, PhaseOutput, PhaseSpec},
        plan::Plan,
    },
    workload::afl::AflOptions,
};

/// The texts of all sites, beside the report.
const POOL_FILE: &str = "synthetic.jsonl";
/// The provenance of every text, beside the report.
const CARD_FILE: &str = "synthetic.json";
/// Longest answer of a site, bytes.
const ANSWER_LIMIT: u64 = 64 << 20;
/// Longest text, bytes.
const LONGEST_TEXT: usize = 16 << 10;

/// The workload.
pub struct Fdkt;

/// `[fdkt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdktOptions {
    /// The sites' small language model, by its name in the catalogue.
    #[serde(default = "model")]
    pub model: String,
    /// The generator's adapter.
    pub lora: AdapterSpec,
    /// Control code before every text, with `{label}` in it.
    pub control: String,
    /// Longer records are cut, tokens.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// How the generator is tuned.
    pub tuning: Tuning,
    /// How texts are drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// Ridge parameter of the task model.
    #[serde(default = "one")]
    pub lambda: f64,
    /// What a private record weighs against a synthetic text.
    #[serde(default = "weight")]
    pub private_weight: u32,
}

fn model() -> String {
    "smollm2-135m".to_owned()
}
const fn max_tokens() -> usize {
    96
}
const fn one() -> f64 {
    1.0
}
const fn weight() -> u32 {
    4
}

fn refuse(problem: impl std::fmt::Display) -> Error {
    Error::invalid(format!("[fdkt] {problem}"))
}

impl FdktOptions {
    /// Reads and checks the plan's table.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] with the key.
    pub fn of(plan: &Plan) -> Result<Self, Error> {
        let options: Self =
            plan.options.clone().try_into().map_err(|e: toml::de::Error| refuse(e.message()))?;
        if !options.control.contains(LABEL) {
            return Err(refuse(format!(
                "control must have {LABEL} in it, such as \"Question about: {LABEL}\""
            )));
        }
        if options.control.replace(LABEL, "").contains(['{', '}']) {
            return Err(refuse(format!("control has braces that are not {LABEL}")));
        }
        if plan.schema.declared.is_none() || plan.schema.backbone.is_none() {
            return Err(refuse(
                "the plan needs [schema.declared] with the classes, which texts are written for, and [schema.backbone], whose \
                 features the task model reads",
            ));
        }
        if plan.run.secure_aggregation {
            return Err(refuse("[run] secure_aggregation: texts cannot be summed; leave the key out"));
        }
        let Tuning { epochs, batch, learning_rate, .. } = options.tuning;
        if epochs == 0 || batch == 0 || !(learning_rate > 0.0 && learning_rate <= 1.0) {
            return Err(refuse(
                "tuning needs epochs and batch of at least 1 and a learning_rate above 0, at most 1",
            ));
        }
        let Sampling { per_class, max_tokens, temperature, top_p, .. } = options.sampling;
        if per_class == 0 || per_class > 10_000 || max_tokens == 0 || max_tokens > 1024 {
            return Err(refuse("sampling.per_class must be 1 to 10000, sampling.max_tokens 1 to 1024"));
        }
        if !(temperature > 0.0 && temperature <= 10.0 && top_p > 0.0 && top_p <= 1.0) {
            return Err(refuse(
                "sampling.temperature must be above 0 and at most 10, sampling.top_p above 0, at most 1",
            ));
        }
        if !(options.lambda.is_finite() && options.lambda > 0.0) || options.private_weight == 0 {
            return Err(refuse("lambda must be above 0 and private_weight at least 1"));
        }
        check_adapter(&options.lora).map_err(refuse)?;
        if !(8..=2048).contains(&options.max_tokens) {
            return Err(refuse("max_tokens must be 8 to 2048"));
        }
        Ok(options)
    }

    /// The task model's features: those of AFL on the backbone.
    fn afl(&self) -> AflOptions {
        AflOptions { lambda: self.lambda, ..AflOptions::default() }
    }
}

/// What the first phase gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pool {
    /// One [`Labelled`] a line.
    texts: BlobId,
    card: BlobId,
    sha256: String,
    sites: BTreeMap<SiteName, Funnel>,
}

/// What became of a site's texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Funnel {
    sent: usize,
    duplicates: usize,
    kept: usize,
}

/// What the second phase gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Worth {
    sites: BTreeMap<SiteName, Transfer>,
}

impl Workload for Fdkt {
    fn schedule(&self, plan: &Plan) -> Result<Schedule, Error> {
        let Tuning { epochs, batch, .. } = FdktOptions::of(plan)?.tuning;
        Ok(Schedule::Training { batch: batch as u64, epochs: epochs as u64, rounds: 1 })
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Error> {
        FdktOptions::of(plan)?;
        Encoding::declared(&plan.schema).map(drop).map_err(|e| Error::invalid(e.to_string()))
    }

    fn next(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Next, Error> {
        let options = FdktOptions::of(context.plan)?;
        match outputs {
            [] => ask_texts(context, &options),
            [pool] if measures(context.plan) => {
                ask_transfer(context, &options, &outcome(context.blobs, pool)?)
            }
            _ => Ok(Next::Publish),
        }
    }

    fn check_result(
        &self,
        context: &Context<'_>,
        phase: &PhaseSpec,
        _site: &SiteName,
        answer: &Path,
    ) -> Result<(), Error> {
        let bytes = fs::read(answer)?;
        let refused = |e: &dyn std::fmt::Display| Error::invalid(format!("phase {}: {e}", phase.name));
        match phase.name.as_str() {
            SYNTHESISE => texts(context, &bytes).map(drop).map_err(|e| refused(&e)),
            TRANSFER => {
                let transfer: Transfer = serde_json::from_slice(&bytes).map_err(|e| refused(&e))?;
                let classes = classes(context.plan).len();
                let fits = |matrix: &Confusion| matrix.classes() == classes;
                if transfer.arms.values().all(fits) {
                    Ok(())
                } else {
                    Err(refused(&format!("a confusion matrix must be {classes} by {classes}")))
                }
            }
            other => Err(Error::bug(format!("{WORKLOAD} has no phase `{other}`"))),
        }
    }

    fn reduce(&self, context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
        match answers.phase.name.as_str() {
            SYNTHESISE => Ok(serde_json::to_vec(&pool(context, answers)?)?),
            TRANSFER => {
                let mut sites = BTreeMap::new();
                for (site, blob) in answers.contributions {
                    sites.insert(site.clone(), context.blobs.document(blob)?);
                }
                Ok(serde_json::to_vec(&Worth { sites })?)
            }
            other => Err(Error::bug(format!("{WORKLOAD} has no phase `{other}`"))),
        }
    }

    fn merged_blobs(&self, context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
        if output.name == SYNTHESISE && context.blobs.contains(&output.output) {
            let pool: Pool = outcome(context.blobs, output)?;
            return Ok(vec![pool.texts, pool.card]);
        }
        Ok(Vec::new())
    }

    fn publish(&self, context: &Context<'_>, outputs: &[PhaseOutput]) -> Result<Publication, Error> {
        let (pool, worth) = match outputs {
            [pool] => (pool, Worth { sites: BTreeMap::new() }),
            [pool, worth] => (pool, outcome(context.blobs, worth)?),
            _ => return Err(Error::bug(format!("{WORKLOAD} publishes after one or two phases"))),
        };
        Ok(publication(context, &outcome(context.blobs, pool)?, &worth))
    }
}

fn classes(plan: &Plan) -> &[String] {
    plan.schema.declared.as_ref().map(|declared| declared.classes.as_slice()).unwrap_or_default()
}

fn ask_texts(context: &Context<'_>, options: &FdktOptions) -> Result<Next, Error> {
    let model_sha256 = Catalogue::built_in()
        .and_then(|catalogue| Ok(catalogue.model(&options.model)?.sha256()))
        .map_err(|e| refuse(format!("model: {e}")))?;
    let spec = SynthesiseSpec {
        schema: context.plan.schema.clone(),
        model: options.model.clone(),
        model_sha256,
        adapter: options.lora.clone(),
        control: options.control.clone(),
        max_tokens: options.max_tokens,
        tuning: options.tuning.clone(),
        sampling: options.sampling.clone(),
        privacy: context.plan.privacy.as_ref().map(|privacy| privacy.round_spec(1)),
    };
    Ok(Next::Collect(question(context, SYNTHESISE, &spec, Vec::new(), RELEASE_SYNTHETIC, ANSWER_LIMIT)?))
}

fn ask_transfer(context: &Context<'_>, options: &FdktOptions, pool: &Pool) -> Result<Next, Error> {
    let encoding = Encoding::declared(&context.plan.schema)
        .map_err(|e| Error::invalid(e.to_string()))?
        .ok_or_else(|| Error::bug("a checked plan declares its classes"))?;
    let features = options.afl().features(encoding.input_dim());
    let privacy = context.plan.privacy.as_ref().and_then(Privacy::metrics_spec);
    let spec = TransferSpec {
        sums: SumsSpec { schema: context.plan.schema.clone(), encoding, features, privacy },
        lambda: options.lambda,
        weight: options.private_weight,
    };
    let asked = question(context, TRANSFER, &spec, vec![pool.texts], RELEASE_METRICS, ANSWER_LIMIT)?;
    Ok(Next::Collect(PhaseSpec { defines_model: false, ..asked }))
}

/// A site's texts; refuses what is none, too long, or of a class that was not asked for.
fn texts(context: &Context<'_>, bytes: &[u8]) -> Result<Vec<Labelled>, Error> {
    let known: BTreeSet<&String> = classes(context.plan).iter().collect();
    let read = |(number, line): (usize, &str)| {
        let bad = |e: &dyn std::fmt::Display| Error::invalid(format!("text {}: {e}", number + 1));
        let text: Labelled = serde_json::from_str(line).map_err(|e| bad(&e))?;
        if !known.contains(&text.label) {
            return Err(bad(&"its class is not one of the plan's"));
        }
        if text.text.is_empty() || text.text.len() > LONGEST_TEXT {
            return Err(bad(&format!("it must have 1 to {LONGEST_TEXT} bytes")));
        }
        Ok(text)
    };
    let lines = std::str::from_utf8(bytes).map_err(|e| Error::invalid(e.to_string()))?;
    lines.lines().enumerate().map(read).collect()
}

/// All sites' texts, each once, in the order of site names.
fn pool(context: &Context<'_>, answers: &Answers<'_>) -> Result<Pool, Error> {
    let (mut seen, mut lines, mut provenance) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut sites = BTreeMap::new();
    for (site, blob) in answers.contributions {
        let mut funnel = Funnel::default();
        for text in texts(context, &context.blobs.get(blob)?)? {
            funnel.sent += 1;
            if !seen.insert(text.text.to_lowercase()) {
                funnel.duplicates += 1;
                continue;
            }
            funnel.kept += 1;
            provenance.push(site.to_string());
            lines.extend(serde_json::to_vec(&text)?);
            lines.push(b'\n');
        }
        sites.insert(site.clone(), funnel);
    }
    let options = FdktOptions::of(context.plan)?;
    let card = serde_json::json!({
        "schema": 1, "workload": WORKLOAD, "model": options.model, "control": options.control,
        "classes": classes(context.plan), "sites": sites, "written_by": provenance,
    });
    Ok(Pool {
        texts: context.blobs.put(&lines)?,
        card: context.blobs.put(&serde_json::to_vec_pretty(&card)?)?,
        sha256: sha256_hex(&lines),
        sites,
    })
}

/// The sum of the sites' matrices of one arm.
fn total(worth: &Worth, arm: Arm, classes: usize) -> Option<Confusion> {
    let mut total = Confusion::new(classes);
    for matrix in worth.sites.values().filter_map(|transfer| transfer.arms.get(&arm)) {
        total.add(matrix).ok()?;
    }
    (total.rows() > 0).then_some(total)
}

fn publication(context: &Context<'_>, pool: &Pool, worth: &Worth) -> Publication {
    let classes = classes(context.plan).to_vec();
    let scores = |arm| {
        total(worth, arm, classes.len())
            .map(|matrix| Scores::from_confusion(&matrix, None, &classes, "sites"))
    };
    let accuracy = |site: &SiteName, arm| worth.sites.get(site)?.arms.get(&arm)?.accuracy();
    let sites = pool.sites.keys().map(|site| {
        let matrix = worth.sites.get(site).and_then(|transfer| transfer.arms.get(&Arm::Transfer));
        let metrics = SiteMetrics {
            test_rows: matrix.map_or(0, Confusion::rows),
            accuracy: matrix.and_then(Confusion::accuracy),
            balanced_accuracy: matrix.and_then(Confusion::balanced_accuracy),
            local_accuracy: accuracy(site, Arm::Local),
        };
        (site.clone(), SitePublication { rows: None, class_counts: Vec::new(), metrics })
    });
    let local: Vec<f64> = pool.sites.keys().filter_map(|site| accuracy(site, Arm::Local)).collect();
    Publication {
        model: pool.texts,
        card: pool.card,
        model_file: Some(POOL_FILE.to_owned()),
        card_file: Some(CARD_FILE.to_owned()),
        weight_sha256: pool.sha256.clone(),
        dim: pool.sites.values().map(|funnel| funnel.kept).sum(),
        test: scores(Arm::Transfer),
        local: LocalScores::of(&local),
        sites: sites.collect(),
        backend: "cpu".to_owned(),
        rounds: Vec::new(),
        classes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "[run]\nname = 'x'\nworkload = 'fdkt'\n[schema.declared]\nclasses = ['a', 'b']\ndim = 384\n\
        [schema.backbone]\nmodel = 'minilm-l6'\n[fdkt]\ncontrol = 'About: {label}'\n\
        lora = { rank = 4, alpha = 8, targets = ['q_proj'] }\n\
        tuning = { epochs = 1, batch = 8, learning_rate = 0.001 }\n";

    #[test]
    fn mistakes_are_named() {
        assert!(Plan::parse(PLAN).is_ok());
        for (text, part) in [
            (PLAN.replace("{label}", "label"), "control"),
            (PLAN.replace("{label}", "{label} {domain}"), "braces"),
            (PLAN.replace("epochs = 1", "epochs = 0"), "tuning"),
            (PLAN.replace("rank = 4", "rank = 0"), "lora"),
            (PLAN.replace("[schema.declared]\nclasses = ['a', 'b']\ndim = 384\n", ""), "schema.declared"),
            (PLAN.replace("workload = 'fdkt'\n", "workload = 'fdkt'\nsecure_aggregation = true\n"), "summed"),
            (format!("{PLAN}sampling = {{ per_class = 0 }}\n"), "per_class"),
            (format!("{PLAN}colour = 1\n"), "colour"),
            (format!("{PLAN}[privacy]\nepsilon = 8\ndelta = 1e-4\nunits = 300\n"), "clip"),
        ] {
            let error = Plan::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?} gave {error:?}");
        }
    }
}
