//! What is computed, what is taken from the cache, and what is refused; with a model of two lines.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sheaf_data::{AssetStore, Backbone, Dataset, RgbImage, Schema, Source, Split};
use tempfile::TempDir;

use super::{
    Features, apply,
    backbone::{Extract, Shared},
    cache::Cache,
    compute_missing,
};
use crate::{error::AgentError, task::Resources};

/// Features of a text: its length and its number of words. Counts what it is asked.
struct Lengths(Arc<AtomicUsize>);

impl Extract for Lengths {
    fn dim(&self) -> usize {
        2
    }
    fn images(&self, _: &[RgbImage<'_>]) -> Result<Vec<f32>, AgentError> {
        Err(AgentError::Data("reads texts".to_owned()))
    }
    fn texts(&self, texts: &[&str]) -> Result<Vec<f32>, AgentError> {
        self.0.fetch_add(texts.len(), Ordering::Relaxed);
        Ok(texts.iter().flat_map(|text| [text.len() as f32, text.split(' ').count() as f32]).collect())
    }
}

struct Bench {
    dir: TempDir,
    asked: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), asked: Arc::default() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("cache").join("kept.safetensors")
    }

    /// The features of texts, and how many the model had to look at.
    fn run(&self, texts: &[&str], shared: bool) -> (Features, usize) {
        let before = self.asked.load(Ordering::Relaxed);
        let features = self.try_run(texts, shared, &mut |_, _| Ok(())).unwrap();
        (features, self.asked.load(Ordering::Relaxed) - before)
    }

    fn try_run(&self, texts: &[&str], shared: bool, watch: super::Watch<'_>) -> Result<Features, AgentError> {
        let cache = Cache::at(self.path(), shared);
        compute_missing(&dataset(self.dir.path(), texts), &backbone(None), &cache, watch, &mut || {
            let extract: Box<dyn Extract> = Box::new(Lengths(Arc::clone(&self.asked)));
            Ok(Shared::new(Mutex::new(extract)))
        })
    }
}

fn backbone(sha256: Option<&str>) -> Backbone {
    Backbone { model: "minilm-l6".into(), sha256: sha256.map(Into::into), image_size: 0, max_tokens: 0 }
}

fn dataset(dir: &Path, texts: &[&str]) -> Dataset {
    let lines: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!({"text": text, "label": text.len().to_string()}).to_string())
        .collect();
    let path = dir.join("texts.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    let assets = AssetStore::new(dir.to_owned(), None);
    Source::Text { path: Some(path), asset: None }.open(&Schema::default(), &assets).unwrap()
}

#[test]
fn a_second_time_nothing_is_computed_and_equal_records_are_computed_once() {
    let bench = Bench::new();
    let texts = ["a b", "ccc dd e", "a b"];
    let (features, asked) = bench.run(&texts, false);
    assert_eq!((features.dim, asked), (2, 2));
    assert_eq!(features.values, [3.0, 2.0, 8.0, 3.0, 3.0, 2.0]);
    let (again, asked) = bench.run(&["ccc dd e", "a b"], false);
    assert_eq!((again.values.as_slice(), asked), ([8.0, 3.0, 3.0, 2.0].as_slice(), 0));
    let (_, asked) = bench.run(&["a b", "new"], false);
    assert_eq!(asked, 1, "only the new record");
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.run(&["x"], false);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.path()), 0o600);
    assert_eq!(mode(bench.path().parent().unwrap()), 0o700);
}

#[test]
fn a_site_keeps_only_the_records_it_has_and_a_shared_cache_keeps_all() {
    for (shared, asked_again) in [(false, 1), (true, 0)] {
        let bench = Bench::new();
        bench.run(&["stays", "goes away"], shared);
        bench.run(&["stays"], shared);
        let (_, asked) = bench.run(&["goes away"], shared);
        assert_eq!(asked, asked_again, "shared: {shared}");
    }
}

#[test]
fn damage_is_found_and_computed_again() {
    let bench = Bench::new();
    let texts = ["one", "two words", "three whole words"];
    let (first, _) = bench.run(&texts, false);
    let whole = fs::read(bench.path()).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    // Our tensors are sorted by the width of their elements: the features come first.
    let at = whole.windows(4).position(|bytes| bytes == 3.0_f32.to_le_bytes()).unwrap();
    flipped[at] ^= 1;
    fs::write(bench.path(), &flipped).unwrap();
    let (again, asked) = bench.run(&texts, false);
    assert_eq!((&again.values, asked), (&first.values, 1), "one row of three");
    for damaged in [&whole[..last], &whole[..4], b"", &[0xff; 64], b"\x02\0\0\0\0\0\0\0{}"] {
        fs::write(bench.path(), damaged).unwrap();
        let (again, asked) = bench.run(&texts, true);
        assert_eq!((&again.values, asked), (&first.values, 3));
    }
}

#[test]
fn a_cancelled_task_keeps_what_it_has_computed() {
    let bench = Bench::new();
    let texts: Vec<String> = (0..3 * super::BLOCK).map(|at| format!("text {at}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let stopped = bench.try_run(&texts, false, &mut |done, _| {
        if done > super::BLOCK { Err(AgentError::Cancelled) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(AgentError::Cancelled)));
    let (_, asked) = bench.run(&texts, false);
    assert_eq!(asked, super::BLOCK);
}

#[test]
fn labels_and_splits_stay_and_without_a_backbone_nothing_changes() {
    let dir = TempDir::new().unwrap();
    let data = dataset(dir.path(), &["a", "bb"]);
    let assets = AssetStore::new(dir.path().to_owned(), None);
    let resources = Resources::new(&assets, dir.path(), Some("data"), sheaf_models::DeviceChoice::Cpu);
    let same = apply(data.clone(), &Schema::default(), &resources, &mut |_, _| Ok(())).unwrap();
    assert_eq!((same.dataset.digest(), same.backend), (data.digest(), None));
    let features = data.with_features(1, vec![0.25, 0.5]).unwrap();
    assert_eq!(features.labels().iter().flatten().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(features.split(), [Split::Train, Split::Train]);
}

#[test]
fn another_model_than_the_catalogues_is_refused() {
    let dir = TempDir::new().unwrap();
    let assets = AssetStore::new(dir.path().to_owned(), None);
    let resources = Resources::new(&assets, dir.path(), Some("data"), sheaf_models::DeviceChoice::Cpu);
    for (asked, part) in [(Some("0".repeat(64)), "use one version of Sheaf"), (None, "without its SHA-256")] {
        let schema = Schema { backbone: Some(backbone(asked.as_deref())), ..Schema::default() };
        let refused = apply(dataset(dir.path(), &["a"]), &schema, &resources, &mut |_, _| Ok(()));
        let Err(AgentError::Denied(reason)) = refused else { panic!("must be denied") };
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_table_is_nothing_for_a_model() {
    let bench = Bench::new();
    let path = bench.dir.path().join("t.csv");
    fs::write(&path, "x\n1\n").unwrap();
    let assets = AssetStore::new(bench.dir.path().to_owned(), None);
    let table = Source::Table { path: Some(path), asset: None }.open(&Schema::default(), &assets).unwrap();
    let cache = Cache::at(bench.path(), false);
    let error = compute_missing(&table, &backbone(None), &cache, &mut |_, _| Ok(()), &mut || {
        Err(AgentError::Task("not to be loaded".to_owned()))
    });
    assert!(error.is_err_and(|e| e.to_string().contains("images or texts")));
}
