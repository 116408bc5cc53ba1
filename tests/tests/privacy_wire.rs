//! Promise: where a site asks for noise, nothing of its records leaves without. Strings and numbers that stand for a person are
//! planted in a site's data; afterwards they are looked for in everything that went over its wire, in everything the
//! coordinator has on its disk, and in what coordinator and agents have logged.

use std::{fs, path::Path};

use sheaf_coordinator::identity::authority::Authority;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::{CANARIES, CANARY_NUMBER, Study, private_table, table_with_canaries},
    recorder::Recorder,
    site::Rules,
};

/// Every way in which a planted value, or the digest of a site's whole data, could stand in bytes.
fn needles(content: &[u8; 32]) -> Vec<(String, Vec<u8>)> {
    let mut needles: Vec<(String, Vec<u8>)> =
        CANARIES.iter().map(|text| ((*text).to_owned(), text.as_bytes().to_vec())).collect();
    let mut add = |name: &str, bytes: Vec<u8>| needles.push((format!("{CANARY_NUMBER} as {name}"), bytes));
    add("text", CANARY_NUMBER.to_string().into_bytes());
    add("f64", CANARY_NUMBER.to_le_bytes().to_vec());
    add("f64, big end first", CANARY_NUMBER.to_be_bytes().to_vec());
    needles.push(("the data's digest".to_owned(), content.to_vec()));
    needles.push(("the data's digest in hex".to_owned(), hex::encode(content).into_bytes()));
    needles
}

fn find<'a>(needles: &'a [(String, Vec<u8>)], hay: &[u8]) -> Vec<&'a str> {
    let there = |needle: &[u8]| hay.windows(needle.len()).any(|window| window == needle);
    needles.iter().filter(|(_, bytes)| there(bytes)).map(|(name, _)| name.as_str()).collect()
}

fn everything_under(folder: &Path, bytes: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything_under(&path, bytes);
        } else {
            // With its name: a value must not be a file's name either.
            bytes.extend_from_slice(path.to_string_lossy().as_bytes());
            bytes.extend_from_slice(&fs::read(&path).unwrap());
        }
    }
}

/// What there is to search after a run.
struct Heard {
    /// The digest of the data of the site that was listened to.
    content: [u8; 32],
    /// What went over that site's wire.
    wire: Vec<u8>,
    /// The coordinator's files.
    kept: Vec<u8>,
    /// What the coordinator and the agents have logged.
    logs: Vec<u8>,
}

/// Runs a plan with processes, and a recorder before one site.
async fn listen(study: &Study, rules: &Rules) -> Heard {
    let mut cluster = Cluster::start(Kind::Process).await;
    let authority = Authority::open(&cluster.home().ca()).unwrap();
    let (mut recorder, mut content) = (None, [0; 32]);
    let (mut agents, mut log_files) = (Vec::new(), vec![cluster.folder().join("coordinator.log")]);
    for rows in study.deal(3) {
        let site = cluster.enrol(study, &rows, rules).await;
        site.cap(50.0, 1e-3, "row");
        if recorder.is_none() {
            let home = site.config().home;
            let listening = Recorder::between(&home, &authority, cluster.port()).await;
            let text = fs::read_to_string(site.config_file()).unwrap();
            let url = format!("home = 'home'\nurl = '{}'", listening.url());
            fs::write(site.config_file(), text.replace("home = 'home'", &url)).unwrap();
            (recorder, content) = (Some(listening), site.content());
        }
        agents.push(cluster.start_agent_process(&rows.name));
        log_files.push(site.folder.join("agent.log"));
    }
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.ended("run").await;
    for file in ["report.json", "report.html", "events.jsonl", "model.json"] {
        // A run that failed has no report.
        if cluster.operator.show("run").await.is_some_and(|run| sheaf_tests::operator::status(&run) == "done")
        {
            cluster.operator.report_file("run", file, &cluster.home().path().join("..")).await;
        }
    }
    let mut kept = Vec::new();
    everything_under(cluster.home().path(), &mut kept);
    let logs = log_files.iter().flat_map(|file| fs::read(file).unwrap()).collect();
    Heard { content, wire: recorder.unwrap().heard(), kept, logs }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_values_are_not_on_the_wire_nor_at_the_coordinator() {
    let privacy = "[privacy]\nepsilon = 3.0\ndelta = 1e-3\nevaluate = 1.0\n";
    let rules = Rules { require_dp: true, ..Rules::default() };
    for run in ["", "secure_aggregation = true"] {
        let study = table_with_canaries(private_table(240, 91, run, privacy));
        let Heard { content, wire, kept, logs } = listen(&study, &rules).await;
        let needles = needles(&content);
        assert!(wire.len() > 10_000, "the site was on the recorded wire: {} bytes", wire.len());
        assert_eq!(find(&needles, &wire), Vec::<&str>::new(), "on the wire ({run})");
        assert_eq!(find(&needles, &kept), Vec::<&str>::new(), "at the coordinator ({run})");
        let times = |word: &str| String::from_utf8_lossy(&logs).matches(word).count();
        assert!(
            times("enrolled") >= 3 && times("delivered") >= 3,
            "coordinator and agents have logged what they did"
        );
        assert_eq!(find(&needles, &logs), Vec::<&str>::new(), "in the logs ({run})");
    }
}

/// The same search finds them where a plan asks for exact answers and the site allows that: it can find.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_finds_what_an_exact_survey_tells() {
    let study = table_with_canaries(sheaf_tests::data::table(240, 92, ""));
    let Heard { content, wire, kept, .. } = listen(&study, &Rules::default()).await;
    let needles = needles(&content);
    assert!(find(&needles, &wire).contains(&CANARIES[0]), "a rare name is in the survey's list");
    assert!(find(&needles, &kept).contains(&CANARIES[0]));
}
