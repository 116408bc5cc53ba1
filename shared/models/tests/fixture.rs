//! Reads fixtures.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sheaf_models::weights::{HostTensor, TensorMap, safetensors};

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file of an asset that `sheaf-agent model pull` has fetched into the folder that `SHEAF_CACHE` names; None, with a line
/// that says so, where it is not there: real weights are not part of the tree.
pub(crate) fn asset(name: &str, extension: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("SHEAF_CACHE").map(PathBuf::from);
    let file = cache.and_then(|cache| {
        let entries = std::fs::read_dir(cache.join(name)).ok()?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|e| e == extension))
    });
    if file.is_none() {
        eprintln!("skipped: SHEAF_CACHE does not name a folder with {name}/*.{extension}");
    }
    file
}

pub(crate) fn tensors(name: &str) -> TensorMap {
    safetensors::read(&folder(name)).unwrap()
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(name)).unwrap()).unwrap()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The largest difference of two lists of equal length.
pub(crate) fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub(crate) fn close(a: f64, b: f64, relative: f64) -> bool {
    (a - b).abs() <= relative * (1.0 + a.abs().max(b.abs()))
}

pub(crate) fn same(a: &HostTensor, b: &HostTensor, most: f32) -> bool {
    a.shape == b.shape && apart(&a.data, &b.data) < most
}
