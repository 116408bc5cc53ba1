//! One proxy of all sites: rounds of averaging, in plain sight and as secure sums.

use sheaf_proto::{
    fedavg::summed,
    secure::{MaybeSecure, STAGES, phase as stage_name},
};
use sheaf_secagg::Stage;

use super::*;
use crate::{identity::authority::Authority, workload::secure::tests::party::Party};

const SITES: usize = 3;

/// Two rounds of the generator, one of the reward.
fn shared(more: &str) -> String {
    let text = plan(&format!("proxies = 'shared'\n{more}"));
    text.replace("generator = { ", "generator = { rounds = 2, ")
}

#[test]
fn shared_proxies_are_averaged_over_those_that_answer_a_round() {
    let world = World::new(&shared("arms = ['untuned', 'rgf']\n"), 2);
    let ran = go(world, &mut |world, phase, n| {
        (phase.name != "generator-2" || n != 1).then(|| answer(world, phase, n))
    });
    let names =
        ["start", "generator-1", "generator-2", "reward-1", "sample", "tune-rgf", "evaluate", "deliver"];
    assert_eq!(ran.names(), names);
    for name in ["generator-1", "generator-2", "reward-1"] {
        let phase = ran.phase(name);
        assert!(phase.may_miss && phase.defines_model && phase.sites.is_none(), "{name}");
        assert!(phase.site_inputs.is_empty(), "{name}");
    }
    // The sites add 1 and 3; then the first one alone adds 1.
    let means = ["generator-1", "generator-2", "reward-1"].map(|name| ran.mean(name));
    assert_eq!(means.map(|mean| first(&ran.world.parameters(&mean))), [2.0, 3.0, 2.0]);
    let sites = |name: &str| ran.gave::<Value>(name)["sites"].as_object().unwrap().len();
    assert_eq!((sites("generator-1"), sites("generator-2")), (2, 1));

    let [once, generator, reward] = means;
    let start: proxies::Start = ran.gave("start");
    assert_eq!(ran.phase("generator-1").inputs, [start.generator]);
    assert_eq!(ran.phase("generator-2").inputs, [once]);
    assert_eq!(ran.phase("reward-1").inputs, [start.reward, generator]);
    let rounds = ["generator-1", "generator-2"].map(|name| ran.spec::<GeneratorSpec>(name).round.round);
    assert_eq!(rounds, [1, 2]);
    let adapter = ran.tuned(Arm::Rgf).adapter.unwrap();
    let evaluate = ran.phase("evaluate");
    assert_eq!(evaluate.inputs, [adapter, reward, generator]);
    assert!(evaluate.sites.is_none() && evaluate.site_inputs.is_empty());

    let files = &ran.published.files;
    assert_eq!(files["proxies/shared/generator/adapter_model.safetensors"], generator);
    assert_eq!(files["proxies/shared/reward/reward.safetensors"], reward);
    let owners: Vec<&str> = ran.report().proxies.iter().map(|proxy| proxy.owner.as_str()).collect();
    assert_eq!(owners, ["shared"]);
    assert!(ran.queries().iter().all(|query| query.writer == 0 && query.query.starts_with("w3q")));
    // A mean holds what each member sent.
    let merged: Vec<Vec<BlobId>> = ran.outputs[1..4]
        .iter()
        .map(|output| Rewardds.merged_blobs(&ran.world.context(None), output).unwrap())
        .collect();
    assert_eq!(merged, [[once], [generator], [reward]]);
}

#[test]
fn secure_sums_give_the_same_proxies_and_no_site_is_measured() {
    let text = shared("arms = ['rgf']\n");
    let plain = go(World::new(&text, SITES), &mut |world, phase, n| Some(answer(world, phase, n)));
    let secure = "workload = 'rewardds'\nsecure_aggregation = true\n";
    let mut world = World::new(&text.replace("workload = 'rewardds'\n", secure), SITES);
    let authority = Authority::create(&world.folder.path().join("ca")).unwrap();
    world.authority = authority.certificate().to_vec();
    let party = |n: usize| Party::new(world.folder.path(), &authority, n, 0);
    let mut parties: Vec<Party> = (0..SITES).map(party).collect();
    let masked = go(world, &mut |world, phase, n| {
        let Some((_, stage)) = parse(&phase.name) else {
            assert_eq!(phase.name, "deliver", "sites are asked for sums alone, and brought the target");
            return Some(b"{}".to_vec());
        };
        // Later stages come without what the vector is made of.
        if stage == Stage::Advertise {
            let grid = summed::grid(1).unwrap();
            parties[n].values = summed::vector(&moved(world, phase, n), 1, &grid).unwrap();
        }
        Some(parties[n].answer(&world.blobs, phase).unwrap())
    });

    let sums = ["generator-1", "generator-2", "reward-1"];
    let stages: Vec<String> =
        sums.iter().flat_map(|base| STAGES.map(|stage| stage_name(base, stage))).collect();
    let asked = std::iter::once("start").chain(stages.iter().map(String::as_str));
    assert_eq!(masked.names(), asked.chain(["sample", "tune-rgf", "deliver"]).collect::<Vec<_>>());
    let rounds: BTreeSet<u32> =
        stages.iter().map(|name| masked.spec::<MaybeSecure>(name).secure.unwrap().terms.round).collect();
    assert_eq!(rounds.len(), sums.len(), "every sum has its own number");
    assert!(stages.iter().all(|name| masked.phase(name).releases == ["proxies"]));
    let spec: RewardSpec = masked.spec("reward-1.input");
    assert_eq!(spec.round.max_rows, 1, "every site weighs the same");

    for file in ["generator/adapter_model.safetensors", "reward/reward.safetensors"] {
        let of = |ran: &Ran| ran.published.files[&format!("proxies/shared/{file}")];
        assert_eq!(of(&masked), of(&plain), "{file}");
    }
    let generator = masked.mean("generator-2.unmask");
    assert_eq!(first(&masked.world.parameters(&generator)), 6.0, "3 in each round");
    let last = masked.outputs.iter().find(|output| output.name == "generator-2.unmask").unwrap();
    let merged = Rewardds.merged_blobs(&masked.world.context(None), last).unwrap();
    assert!(merged.contains(&generator), "it goes with a withdrawn site");
    assert_eq!(masked.published.weight_sha256, plain.published.weight_sha256);
    assert_eq!((plain.report().rows, masked.report().rows), (Some(30.0), None));
    assert_eq!(masked.published.sites.len(), SITES);
}
