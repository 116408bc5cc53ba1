//! Right answers of a site made by hand, for tests that say something else first.

use sheaf_agent::task::afl;
use sheaf_analytic::{Sums, codec};
use sheaf_data::{Dataset, SiteRows, survey as survey_of};
use sheaf_proto::{
    afl::{SumsSpec, SurveySpec},
    v1::{Task, Verdict, task_update},
};
use sheaf_tests::{
    cluster::Cluster,
    data::Study,
    raw::{RawSession, RawSite},
};

/// The answer to a survey.
pub(crate) async fn survey(site: &RawSite, task: &Task, rows: &Dataset) -> Vec<u8> {
    let spec: SurveySpec = serde_json::from_slice(&site.fetch(task.spec.as_ref()).await).unwrap();
    serde_json::to_vec(&survey_of(rows, &spec.schema, spec.moments).unwrap()).unwrap()
}

/// Enrols a site that is driven by hand, submits the study's plan as `run`, and has the site answer its survey.
pub(crate) async fn surveyed(cluster: &Cluster, study: &Study, site: &SiteRows) -> (RawSite, RawSession) {
    let raw = RawSite::enrol(cluster, &site.name).await;
    let mut session = raw.session().await.unwrap();
    cluster.operator.submit(&study.plan, "run").await;
    let task = session.task("survey").await;
    let survey = survey(&raw, &task, &study.dataset.subset(&site.rows)).await;
    assert_eq!(raw.answer(&task, &survey).await.unwrap().verdict(), Verdict::Accepted);
    (raw, session)
}

/// The specification of a sums task and its answer.
pub(crate) async fn sums_of(site: &RawSite, task: &Task, rows: &Dataset) -> (SumsSpec, Sums) {
    let spec: SumsSpec = serde_json::from_slice(&site.fetch(task.spec.as_ref()).await).unwrap();
    let sums = afl::sums(&spec, rows, &|| false).unwrap();
    (spec, sums)
}

/// The encoded answer to a sums task.
pub(crate) async fn sums(site: &RawSite, task: &Task, rows: &Dataset) -> Vec<u8> {
    codec::encode(&sums_of(site, task, rows).await.1)
}

/// The model stands without this answer, whatever the phase.
pub(crate) async fn decline(session: &mut RawSession, phase: &str) {
    let task = session.task(phase).await;
    session.update(&task, task_update::State::Declined, "no test rows to spare").await;
}
