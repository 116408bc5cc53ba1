//! What a simulation does when it is told to stop, above all while it judges a finished run and so holds its thread.

use std::{fs, future, thread, time::Duration};

use sheaf_agent::error::AgentError;
use sheaf_data::Source;

use super::*;

const FDKT: &str = "[run]\nname = 'x'\nworkload = 'fdkt'\n[schema.declared]\nclasses = ['a', 'b']\ndim = 384\n\
    [schema.backbone]\nmodel = 'minilm-l6'\n[fdkt]\ncontrol = 'About: {label}'\nabout = 'Questions'\n\
    lora = { rank = 4, alpha = 8, targets = ['q_proj'] }\n\
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 }\n";
/// Nothing of such a run needs a model to be judged: the target is a server's, and no proxy was left.
const REWARDDS: &str = "[run]\nname = 'x'\nworkload = 'rewardds'\n[rewardds]\n\
    control = 'A question and its answer:'\narms = ['rgf', 'rgf-sor']\n\
    generator = { lora = { rank = 4, alpha = 8, targets = ['q_proj'] }, \
    tuning = { epochs = 1, batch = 8, learning_rate = 0.001 } }\n\
    reward = { form = 'embedding', tuning = { epochs = 4, batch = 16, learning_rate = 0.01 } }\n\
    target = { kind = 'hosted' }\n";

fn assets(folder: &Path) -> AssetStore {
    AssetStore::new(folder.to_owned(), None)
}

/// A site with two training records and a test record.
fn prepared(folder: &Path) -> Prepared {
    let path = folder.join("records.jsonl");
    let line = |split: &str| {
        format!("{{\"text\":\"What?\",\"answer\":\"That.\",\"label\":\"a\",\"split\":\"{split}\"}}\n")
    };
    fs::write(&path, ["train", "train", "test"].map(line).concat()).unwrap();
    let schema: Schema = toml::from_str("text_dim = 64\n[declared]\nclasses = ['a', 'b']\n").unwrap();
    let dataset = Source::Text { path: Some(path), asset: None }.open(&schema, &assets(folder)).unwrap();
    let sites = vec![SiteRows { name: "clinic".to_owned(), rows: (0..dataset.len()).collect() }];
    Prepared { dataset, features: None, sites, central_test: false, duplicates: 3 }
}

fn is_stop(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<AgentError>(), Some(AgentError::Cancelled))
}

/// How work ends that a stop may cut.
fn ended<T>(stop: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    block_on(until_stopped(work, stop, Path::new("runs/x")))
}

#[test]
fn work_that_holds_its_thread_ends_as_any_that_is_interrupted() {
    let stop = CancellationToken::new();
    let judging = async {
        let signal = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            signal.cancel();
        });
        tokio::task::block_in_place(|| {
            while !stop.is_cancelled() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        Err::<(), anyhow::Error>(AgentError::Cancelled.into())
    };
    let held = ended(&stop, judging).unwrap_err();
    let waiting = ended(&stop, future::pending::<Result<()>>()).unwrap_err();
    for error in [held, waiting] {
        assert!(error.is::<Interrupted>(), "{error}");
        assert_eq!(error.to_string(), "interrupted; go on with the same command and --out runs/x");
        let told = Err::<(), _>(error).context("logs are in runs/x/work").map_err(unwrap_interrupt);
        assert!(told.unwrap_err().to_string().starts_with("interrupted; "), "without a pointer to logs");
    }
}

#[test]
fn what_was_done_is_kept_and_a_failure_stays_one() {
    let stop = CancellationToken::new();
    let error = ended(&stop, async { Err::<(), _>(anyhow::anyhow!("the disk is full")) }).unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    stop.cancel();
    assert_eq!(ended(&stop, async { Ok(7) }).unwrap(), 7, "the stop came too late to cut anything");
}

#[test]
fn judging_exchanged_texts_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (assets, prepared) = (assets(folder.path()), prepared(folder.path()));
    let plan = Plan::parse(FDKT).unwrap();
    let judged = judge::judge(&assets, &plan, &prepared, (folder.path(), &[]), &mut |_, _, _| {}, &|| true);
    assert!(is_stop(&judged.unwrap_err()));
}

#[test]
fn judging_a_target_stops_and_can_be_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let (assets, prepared) = (assets(folder.path()), prepared(folder.path()));
    let plan = Plan::parse(REWARDDS).unwrap();
    let judge = |stop: &CancellationToken| {
        reward::judge(&assets, &plan, &prepared, (folder.path(), None), &|_, _, _| {}, stop)
    };
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(is_stop(&judge(&stop).unwrap_err()));
    let judged = judge(&CancellationToken::new()).unwrap();
    assert_eq!((judged.rows, judged.duplicates), (1, 3));
    assert!(judged.pairs.is_none() && judged.generator.is_none(), "there was no proxy");
}
