//! Votes and what texts are worth through real secure sums, beside the same run without.

use sheaf_proto::{
    fdkt::VOTE_UNIT,
    secure::{MaybeSecure, STAGES, parse, phase as stage_name},
};
use sheaf_secagg::{Ring, Stage, Terms};

use super::*;
use crate::{
    identity::authority::Authority,
    workload::secure::{NOISED, tests::party::Party},
};

const SITES: usize = 5;
const EVOLUTION: &str =
    "synthesiser = 'private-evolution'\nevolution = { rounds = 2, candidates = 3, keep = 1 }\n";

fn plan(secure: bool, rest: &str) -> String {
    let run = format!("workload = 'fdkt'\nsecure_aggregation = {secure}\nquorum = 3\nmax_site_rows = 500\n");
    format!("{}{EVOLUTION}{rest}", PLAN.replace("workload = 'fdkt'\n", &run))
}

/// How a run went.
struct Ran {
    phases: Vec<PhaseSpec>,
    outputs: Vec<PhaseOutput>,
    world: World,
    published: Publication,
}

impl Ran {
    fn phase(&self, name: &str) -> &PhaseSpec {
        self.phases.iter().find(|phase| phase.name == name).unwrap()
    }

    fn terms(&self, name: &str) -> Terms {
        let spec: MaybeSecure = self.world.blobs.document(&self.phase(name).spec).unwrap();
        spec.secure.unwrap().terms
    }

    /// The candidates after every vote, by their content.
    fn populations(&self) -> Vec<BlobId> {
        let of = |output: &PhaseOutput| {
            evolution::is_of(output).then(|| outcome::<evolution::Population>(&self.world.blobs, output))
        };
        condensed(&self.outputs).iter().filter_map(of).map(|found| found.unwrap().candidates).collect()
    }

    fn arms(&self) -> Vec<(sheaf_proto::fdkt::Arm, u64, f64)> {
        let transfer = self.published.transfer.as_ref().unwrap();
        transfer.arms.iter().map(|report| (report.arm, report.rows, report.accuracy)).collect()
    }
}

/// What a site votes, exactly.
fn votes(site: usize, candidates: usize) -> Vec<i64> {
    (0..candidates).map(|at| VOTE_UNIT * ((at * 7 + site * 3) % 5) as i64).collect()
}

/// What a site measures.
fn measured(site: usize, spec: &TransferSpec) -> Transfer {
    let correct = spec.models().into_iter().enumerate();
    Transfer::of(20 + site as u64, correct.map(|(at, model)| (model, (9 * site + at) as u64 % 20)))
}

/// Runs a plan to its end. `missing` says who falls silent in which phase.
fn run(plan: &str, missing: &dyn Fn(&str) -> Vec<usize>) -> Result<Ran, Error> {
    let world = World::new(plan, false, lists);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let authority = Authority::create(&world.folder.path().join("ca")).unwrap();
    let mut parties: Vec<Party> =
        (0..SITES).map(|n| Party::new(world.folder.path(), &authority, n, 0)).collect();
    let members: Vec<SiteName> = parties.iter().map(|party| party.name.clone()).collect();
    let tools = Tools { models: &world.models, stop: &world.stop, tell: &|_, _, _| {} };
    let context = Context {
        plan: &world.plan,
        blobs: &world.blobs,
        members: &members,
        run_id: "x-1",
        version: 1,
        authority: authority.certificate(),
        tools: Some(&tools),
    };
    let (mut outputs, mut phases) = (Vec::new(), Vec::new());
    while let Next::Collect(phase) = Fdkt.next(&context, &outputs)? {
        let mut contributions = Vec::new();
        for (n, party) in parties.iter_mut().enumerate() {
            if !phase.asks(&party.name) || missing(&phase.name).contains(&n) {
                continue;
            }
            let stage = parse(&phase.name);
            let of_transfer = phase.name.starts_with(TRANSFER);
            // Later stages come without what the vector is made of.
            if matches!(stage, None | Some((_, Stage::Advertise))) {
                party.values = if of_transfer {
                    let spec: TransferSpec = world.blobs.document(&phase.spec).unwrap();
                    spec.to_vector(&measured(n, &spec))
                } else {
                    let candidates = world.blobs.get(&phase.inputs[0]).unwrap();
                    votes(n, site_texts(&world.plan, &candidates).unwrap().len())
                };
            }
            let answer = if stage.is_some() {
                party.answer(&world.blobs, &phase).unwrap()
            } else if of_transfer {
                let spec: TransferSpec = world.blobs.document(&phase.spec).unwrap();
                serde_json::to_vec(&measured(n, &spec)).unwrap()
            } else {
                serde_json::to_vec(&serde_json::json!({"votes": party.values})).unwrap()
            };
            let file = world.folder.path().join("answer");
            fs::write(&file, &answer).unwrap();
            Fdkt.check_result(&context, &phase, &party.name, &file).unwrap();
            assert!(answer.len() as u64 <= phase.max_result_bytes, "{}", phase.name);
            contributions.push((party.name.clone(), world.blobs.put(&answer).unwrap()));
        }
        let answers =
            Answers { phase: &phase, contributions: &contributions, outputs: &outputs, previous: None };
        let document = Fdkt.reduce(&context, &answers)?;
        let output = world.blobs.put(&document).unwrap();
        let members = contributions.into_iter().map(|(site, _)| site).collect();
        let (name, key, round) = (phase.name.clone(), phase.key.clone(), phase.may_miss);
        outputs.push(PhaseOutput { name, key, output, members, round });
        phases.push(phase);
    }
    let published = Fdkt.publish(&context, &outputs)?;
    for output in &outputs {
        let merged = Fdkt.merged_blobs(&context, output).unwrap();
        assert!(merged.iter().all(|blob| world.blobs.contains(blob)), "{}", output.name);
        // What a vote leaves goes with a withdrawn voter.
        if evolution::is_of(output)
            && !matches!(parse(&output.name), Some((_, stage)) if stage < Stage::Unmask)
        {
            let population: evolution::Population = outcome(&world.blobs, output).unwrap();
            assert!(merged.contains(&population.candidates), "{}", output.name);
        }
    }
    Ok(Ran { phases, outputs, world, published })
}

fn nobody(_: &str) -> Vec<usize> {
    Vec::new()
}

#[test]
fn the_same_candidates_stay_and_the_same_texts_come_of_them() {
    let plain = run(&plan(false, ""), &nobody).unwrap();
    let masked = run(&plan(true, ""), &nobody).unwrap();
    assert_eq!(masked.populations().len(), 3, "the first ones, and two votes");
    assert_eq!(masked.populations(), plain.populations());
    assert_eq!(masked.published.weight_sha256, plain.published.weight_sha256);
    let texts = |ran: &Ran| -> BTreeMap<String, BlobId> {
        let files = ran.published.files.clone().into_iter();
        files.filter(|(name, _)| name.starts_with("texts-")).collect()
    };
    assert_eq!(texts(&masked), texts(&plain));
    assert_eq!(texts(&masked).len(), 3);

    assert_eq!(masked.arms(), plain.arms());
    let of_sites = |ran: &Ran| ran.published.transfer.as_ref().unwrap().arms[0].sites.len();
    assert_eq!((of_sites(&plain), of_sites(&masked)), (SITES, 0), "no site's figures are known");
    assert!(masked.published.local.is_none() && plain.published.local.is_some());
    assert_eq!(masked.published.sites.len(), SITES);

    let names: Vec<&str> = masked.phases.iter().map(|phase| phase.name.as_str()).collect();
    let stages = |base: &str| STAGES.map(|stage| stage_name(base, stage));
    let asked = ["vote-1", "vote-2"].map(stages).concat();
    let asked = [vec!["seed".to_owned()], asked, vec!["refine".to_owned()], stages(TRANSFER).to_vec()];
    assert_eq!(names, asked.concat(), "nobody is asked for votes in plain sight");
    let kinds = |name| masked.phase(name).releases.clone();
    assert_eq!(kinds("vote-1.advertise"), ["statistics"]);
    assert_eq!(kinds("transfer.unmask"), ["metrics"]);
    // Every sum of a version is another round of the protocol.
    let rounds: BTreeSet<u32> =
        ["vote-1.input", "vote-2.input", "transfer.input"].map(|name| masked.terms(name).round).into();
    assert_eq!(rounds.len(), 3);
}

#[test]
fn a_site_that_falls_silent_is_counted_out_and_its_votes_count_once_they_are_there() {
    for dropped in STAGES {
        let silent = stage_name("vote-1", dropped);
        let masked = run(&plan(true, ""), &|phase| if phase == silent { vec![2] } else { Vec::new() });
        let masked = masked.unwrap();
        // Without noise the sites of one vote are those of the next.
        let out = dropped <= Stage::MaskedInput;
        let without = |phase: &str| if out && phase.starts_with(VOTE) { vec![2] } else { Vec::new() };
        let plain = run(&plan(false, ""), &without).unwrap();
        assert_eq!(masked.populations(), plain.populations(), "silent in {dropped}");
        let next = masked.phase("vote-2.advertise").sites.clone().unwrap();
        assert_eq!(next.len(), if out { 4 } else { 5 });
        assert!(masked.phase("transfer.advertise").sites.is_none(), "test records are others");
    }
}

#[test]
fn noise_is_shared_among_the_fewest_sites_and_the_sum_has_room_for_it() {
    let privacy = "[privacy]\nepsilon = 8\ndelta = 1e-3\nevaluate = 1\n";
    let one_out = |phase: &str| if phase == "vote-1.advertise" { vec![0] } else { Vec::new() };
    let ran = run(&plan(true, privacy), &one_out).unwrap();
    let spec: sheaf_proto::fdkt::VoteSpec =
        ran.world.blobs.document(&ran.phase("vote-1.input").spec).unwrap();
    let event = spec.sums.privacy.unwrap().event;
    assert_eq!(event.count(), 2, "all votes are reserved before the first");
    let terms = ran.terms("vote-1.input");
    assert_eq!((terms.min_cohort, terms.min_survivors), (3, 3), "what a site divides the noise by");
    assert!(ran.phase("vote-2.advertise").sites.is_none(), "who missed a vote is asked again");
    // Votes of 2^33 records and forty deviations of the largest noise that a plan may ask for, from each site.
    let noise = (40.0 * 1e6 * VOTE_UNIT as f64) as u64;
    assert!((VOTE_UNIT as u64) << 33 <= NOISED / 2 && noise <= NOISED / 2);
    assert!(terms.ring.bound(SITES) as u64 >= NOISED);
    assert!(Ring::holding(NOISED, 1024).is_ok(), "as many sites as a sum may have");

    let exact = run(&plan(true, ""), &nobody).unwrap();
    let bits = exact.terms("vote-1.input").ring.bits();
    assert!(bits <= 30, "{bits} bits for 5 sites of 500 records");
    assert!(exact.terms("vote-1.input").ring.bound(SITES) >= 500 * VOTE_UNIT);
}

#[test]
fn a_plan_that_cannot_be_summed_is_refused() {
    let secure = plan(true, "");
    for (text, part) in [
        (secure.replace("quorum = 3", "quorum = 1"), "at least 2"),
        (secure.replace("max_site_rows = 500", "max_site_rows = 0"), "max_site_rows"),
        (secure.replace(EVOLUTION, ""), "synthesiser = \"private-evolution\""),
    ] {
        let error = Plan::parse(&text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
