//! The sums and the evaluation as secure sums: the coordinator learns the total of all sites' sums alone, and from it makes
//! the model that it would have made of the single ones, to the bit; of the figures it learns those of all sites together.

use super::{AflOptions, EvaluationOutcome, Solved, SumsOutcome, private, shape};
use crate::{
    error::Error,
    run::event::{Next, PhaseOutput},
    workload::{
        Answers, Context, SitePublication,
        secure::{self, SecureSum, StageOutcome},
    },
};
use serde::Serialize;
use sheaf_analytic::{Sums, SumsShape, codec, solve};
use sheaf_proto::{
    BlobId,
    afl::{EVALUATE, EvaluateSpec, NoisedSums, RELEASE_METRICS, RELEASE_SUMS, SUMS, SumsSpec},
    model::write_model,
    secure::parse,
};
use sheaf_secagg::Stage;

/// What the last stage gives: the sum's own outcome and the model in one document.
#[derive(Serialize)]
struct Opened {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    sums: SumsOutcome,
}

/// What the last stage of the evaluation gives.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    stage: StageOutcome,
    #[serde(flatten)]
    figures: EvaluationOutcome,
}

/// Whether a phase is a stage of a secure sum.
pub(super) fn is_stage(name: &str) -> bool {
    matches!(parse(name), Some((SUMS | EVALUATE, _)))
}

/// The finished phases with a secure sum as one of them: its last stage, whose outcome reads as that of the sums.
pub(super) fn condensed(outputs: &[PhaseOutput]) -> Vec<PhaseOutput> {
    let is_done =
        |output: &&PhaseOutput| !matches!(parse(&output.name), Some((_, stage)) if stage < Stage::Unmask);
    outputs.iter().filter(is_done).cloned().collect()
}

/// Asks for the next stage; `outputs` are all finished phases.
pub(super) fn ask(context: &Context<'_>, spec: &SumsSpec, outputs: &[PhaseOutput]) -> Result<Next, Error> {
    let shape = shape(spec);
    let sites = context.members.len();
    let needed = secure::needed(context, sites);
    let (length, max_abs) = match &spec.privacy {
        Some(_) => (NoisedSums::vector_len(&shape), secure::room(sites).min(secure::NOISED)),
        None => (shape.vector_len(), largest(&shape, context.plan.run.max_site_rows, sites)),
    };
    let sum = SecureSum {
        base: SUMS,
        spec,
        release: RELEASE_SUMS,
        length,
        max_abs,
        min_cohort: needed,
        min_survivors: needed,
        round: 1,
        inputs: &[],
        sites: None,
    };
    sum.collect(context, outputs)
}

/// Asks for the next stage of the evaluation.
pub(super) fn ask_evaluation(
    context: &Context<'_>,
    spec: &EvaluateSpec,
    model: BlobId,
    outputs: &[PhaseOutput],
) -> Result<Next, Error> {
    let sites = context.members.len();
    let needed = secure::needed(context, sites);
    let sum = SecureSum {
        base: EVALUATE,
        spec,
        release: RELEASE_METRICS,
        length: spec.vector_len() as u64,
        max_abs: context.plan.run.max_site_rows.min(secure::room(sites)),
        min_cohort: needed,
        min_survivors: needed,
        round: 2,
        inputs: &[model],
        sites: None,
    };
    sum.collect(context, outputs)
}

/// The largest element of a site's vector. Where the plan's rows would not fit, fewer do: a site whose numbers are
/// larger refuses to send them.
fn largest(shape: &SumsShape, max_rows: u64, sites: usize) -> u64 {
    let room = secure::room(sites);
    shape.vector_bound(max_rows).map_or(room, |bound| bound.min(room))
}

pub(super) fn reduce(context: &Context<'_>, answers: &Answers<'_>) -> Result<Vec<u8>, Error> {
    let stage = secure::reduce(context, answers)?;
    match stage.opened(context)? {
        None => Ok(serde_json::to_vec(&stage)?),
        Some(opened) if matches!(parse(&answers.phase.name), Some((EVALUATE, _))) => {
            let spec: EvaluateSpec = context.blobs.document(&answers.phase.spec)?;
            let untrue = |e| secure::false_total("figures", e);
            let (federated, scores) = spec.from_vector(&opened.values).map_err(untrue)?;
            let figures = EvaluationOutcome { federated: Some(federated), scores, ..Default::default() };
            Ok(serde_json::to_vec(&Measured { stage, figures })?)
        }
        Some(opened) => {
            // The stage beside it is not looked at.
            let spec: SumsSpec = context.blobs.document(&answers.phase.spec)?;
            let least = stage.least();
            let sums = model(context, &spec, opened, least)?;
            Ok(serde_json::to_vec(&Opened { stage, sums })?)
        }
    }
}

fn model(
    context: &Context<'_>,
    spec: &SumsSpec,
    opened: secure::Opened,
    least: u32,
) -> Result<SumsOutcome, Error> {
    let options = AflOptions::of(context.plan)?;
    let summed = opened.sites;
    let solved = match &spec.privacy {
        Some(privacy) => private::solve_total(opened.values, spec, privacy, (summed.len(), least), &options)?,
        None => exact(spec, opened.values, &options)?,
    };
    let model = write_model(&solved.weights, &spec.features).map_err(|e| Error::bug(e.to_string()))?;
    Ok(SumsOutcome {
        model: context.blobs.put(&model)?,
        weight_sha256: solved.weights.sha256(),
        merged: context.blobs.put(&solved.merged)?,
        contributions: Vec::new(),
        rows: solved.rows,
        lambda: solved.lambda,
        summed,
    })
}

fn exact(spec: &SumsSpec, values: Vec<i64>, options: &AflOptions) -> Result<Solved, Error> {
    let shape = shape(spec);
    let untrue = |e| secure::false_total("sums", e);
    let sums = Sums::from_vector(&shape, values).map_err(untrue)?;
    sums.validate(shape.max_abs).map_err(untrue)?;
    let weights = solve(&sums, options.lambda).map_err(|e| Error::invalid(e.to_string()))?;
    Ok(Solved { weights, lambda: options.lambda, merged: codec::encode(&sums), rows: Some(sums.rows()) })
}

pub(super) fn merged_blobs(context: &Context<'_>, output: &PhaseOutput) -> Result<Vec<BlobId>, Error> {
    let mut merged = secure::merged_blobs(context, output)?;
    let ends_it = matches!(parse(&output.name), Some((SUMS, Stage::Unmask)));
    if ends_it && context.blobs.contains(&output.output) {
        merged.push(super::outcome::<SumsOutcome>(context.blobs, output)?.merged);
    }
    Ok(merged)
}

/// What is published of a site whose sums nobody has seen.
pub(super) fn unseen(metrics: crate::report::SiteMetrics) -> SitePublication {
    SitePublication { rows: None, class_counts: Vec::new(), metrics }
}

#[cfg(test)]
mod tests {
    use sheaf_analytic::{Featurizer, GramAccumulator};
    use sheaf_data::{Encoding, Inputs};
    use sheaf_proto::secure::{STAGES, SecureSpec, phase};
    use sheaf_transport::identity::SiteName;
    use tempfile::TempDir;

    use super::*;
    use crate::{run::plan::Plan, store::blobs::BlobStore, workload::question};

    const PLAN: &str =
        "[run]\nname='x'\nworkload='afl'\nsecure_aggregation=true\nmax_site_rows=500\n[afl]\nbias=true\n";
    const DIM: usize = 4;

    fn with<T>(ask: impl FnOnce(&Context<'_>) -> T) -> T {
        let folder = TempDir::new().unwrap();
        let members: Vec<SiteName> = (0..3).map(|n| format!("s{n}").parse().unwrap()).collect();
        ask(&Context {
            plan: &Plan::parse(PLAN).unwrap(),
            blobs: &BlobStore::open(folder.path()).unwrap(),
            members: &members,
            run_id: "x-1",
            version: 1,
            authority: &[],
            tools: None,
        })
    }

    fn spec(context: &Context<'_>) -> SumsSpec {
        SumsSpec {
            schema: context.plan.schema.clone(),
            encoding: Encoding {
                classes: vec!["no".to_owned(), "yes".to_owned()],
                inputs: Inputs::Dense { dim: DIM, standardize: None },
            },
            features: AflOptions::of(context.plan).unwrap().features(DIM),
            privacy: None,
        }
    }

    /// Sums of a few made-up rows.
    fn sums(spec: &SumsSpec, site: usize) -> Sums {
        let shape = shape(spec);
        let featurizer = Featurizer::new(&spec.features).unwrap();
        let mut accumulator =
            GramAccumulator::new(shape.dim, shape.classes, shape.bits, shape.max_abs).unwrap();
        for row in 0..20 + site {
            let inputs: Vec<_> = (0..DIM).map(|d| ((row * 7 + d * 3 + site * 5) % 11) as f64 - 4.5).collect();
            let label = u32::from((row + site).is_multiple_of(3));
            accumulator.push(&featurizer.quantise(&inputs, 1).unwrap(), &[label]).unwrap();
        }
        accumulator.finish()
    }

    #[test]
    fn the_total_gives_the_model_that_the_single_sums_give() {
        with(|context| {
            let spec = spec(context);
            let sites: Vec<Sums> = (0..3).map(|site| sums(&spec, site)).collect();
            let blobs = sites.iter().map(|sums| context.blobs.put(&codec::encode(sums)).unwrap());
            let contributions: Vec<_> = context.members.iter().cloned().zip(blobs).collect();
            let asked = question(context, SUMS, &spec, Vec::new(), RELEASE_SUMS, 1 << 20).unwrap();
            let answers =
                Answers { phase: &asked, contributions: &contributions, outputs: &[], previous: None };
            let plain = super::super::reduce_sums(context, &answers).unwrap();
            let plain: SumsOutcome = serde_json::from_slice(&plain).unwrap();

            let mut values = vec![0; shape(&spec).vector_len() as usize];
            for site in &sites {
                values.iter_mut().zip(site.to_vector()).for_each(|(sum, value)| *sum += value);
            }
            let opened = secure::Opened { values: values.clone(), sites: context.members.to_vec() };
            let masked = model(context, &spec, opened, 3).unwrap();
            assert_eq!(masked.weight_sha256, plain.weight_sha256);
            assert_eq!((masked.model, masked.merged, masked.rows), (plain.model, plain.merged, plain.rows));
            assert!(masked.sites().eq(plain.sites()), "the card names the same sites");

            *values.last_mut().unwrap() += 1;
            let false_one = secure::Opened { values, sites: context.members.to_vec() };
            let error = model(context, &spec, false_one, 3).unwrap_err();
            assert!(error.message.contains("false vector"), "{error}");
        });
    }

    #[test]
    fn the_question_is_that_of_the_sums_with_a_ring_as_narrow_as_the_plan_allows() {
        with(|context| {
            let spec = spec(context);
            let Next::Collect(asked) = ask(context, &spec, &[]).unwrap() else { panic!("nothing is asked") };
            assert_eq!(asked.name, phase(SUMS, Stage::Advertise));
            assert_eq!(asked.releases, [RELEASE_SUMS]);
            let bytes = context.blobs.get(&asked.spec).unwrap();
            assert_eq!(serde_json::from_slice::<SumsSpec>(&bytes).unwrap(), spec);
            let secure = serde_json::from_slice::<sheaf_proto::secure::MaybeSecure>(&bytes).unwrap().secure;
            let SecureSpec { terms, .. } = secure.unwrap();
            assert_eq!(terms.length, shape(&spec).vector_len());
            assert!(terms.ring.bits() < 48, "{} bits for 3 sites of 500 rows", terms.ring.bits());
            assert_eq!((terms.min_cohort, terms.min_survivors), (3, 3));
            // However many rows, the sum of all sites fits.
            assert!(largest(&shape(&spec), u64::MAX, 1000) <= secure::LARGEST_SUM / 1000);
        });
    }

    #[test]
    fn the_five_stages_count_as_one_phase() {
        let output = |name: &str| PhaseOutput {
            name: name.to_owned(),
            key: name.to_owned(),
            output: BlobId::new([0; 32], 0),
            members: Vec::new(),
            round: true,
        };
        let mut outputs = vec![output("survey")];
        outputs.extend(STAGES.map(|stage| output(&phase(SUMS, stage))));
        let names =
            |outputs: &[PhaseOutput]| condensed(outputs).into_iter().map(|o| o.name).collect::<Vec<_>>();
        assert_eq!(names(&outputs[..5]), ["survey"]);
        assert_eq!(names(&outputs), ["survey", "sums.unmask"]);
    }

    #[test]
    fn a_plan_for_one_site_is_refused() {
        for (line, part) in [
            ("quorum = 1", "at least 2"),
            ("sites = ['a']", "at least 2"),
            ("max_site_rows = 0", "max_site_rows"),
        ] {
            let text = format!("[run]\nname='x'\nworkload='afl'\nsecure_aggregation=true\n{line}\n");
            let error = Plan::parse(&text).unwrap_err();
            assert!(error.message.contains(part), "{line}: {error}");
        }
        let fedavg = "[run]\nname='x'\nworkload='fedavg'\nsecure_aggregation=true\nmax_site_rows=100000000\n[fedavg]\n\
                      head='softmax'\nrounds=1\nlearning_rate=0.1\n";
        assert!(Plan::parse(fedavg).unwrap_err().message.contains("max_site_rows"), "the grid has no room");
    }
}
