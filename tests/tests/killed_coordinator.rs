//! Promise: a coordinator may be killed at any moment. Started again it goes on, ends with the same model, and
//! counts every answer once.

use std::time::Duration;

use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::table,
    journal::answers,
    operator::{delivered, status},
    random::Random,
};

const SITES: usize = 20;
const ROUNDS: u64 = 5;
const KILLS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_kills_spread_over_the_life_of_runs() {
    let study = table(800, 21, "");
    let pooled = study.pooled_hash();
    for round in 0..ROUNDS {
        let mut random = Random::new(100 + round);
        // Three phases of an answer a site: moments are counted in answers, so that they are spread evenly
        // however fast the machine is; the extra milliseconds hit the merges between the answers.
        let mut moments: Vec<_> =
            (0..KILLS).map(|_| (random.below(3 * SITES as u64 + 1), random.below(12))).collect();
        moments.sort_unstable();
        let mut cluster = Cluster::with_sites(Kind::Process, &study, &study.deal(SITES)).await;
        cluster.operator.submit(&study.plan, "run").await;
        for (answers, milliseconds) in &moments {
            cluster
                .operator
                .until("run", "at the moment of the next kill", |detail| {
                    delivered(detail) >= *answers || status(detail) != "running"
                })
                .await;
            tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
            cluster.down().await;
            cluster.up().await;
        }
        assert_eq!(cluster.operator.done("run").await, pooled, "round {round}, killed at {moments:?}");
        cluster.down().await;
        let answers = answers(cluster.home(), "run");
        assert_eq!(answers.len(), 3, "survey, sums, evaluate: {answers:?}");
        assert!(answers.values().all(|sites| sites.len() == SITES), "every site answers every phase");
    }
}
