//! PyTorch's older file format (before 1.6): five pickles, then the storages one after the other.
//!
//! ```text
//! pickle magic, pickle version, pickle machine, pickle object, pickle [storage key, ..], (u64 values, data) a storage
//! ```
//!
//! A pickle is a program. This reader runs the few instructions that a state dict takes and refuses every other, so that
//! nothing in the file can call anything. Tensors may be strided views: the values are gathered through their strides.
//! Bounds: instructions and memo entries by the size of the file, nesting by [`DEPTH`], values of all tensors by the
//! bytes of the file.

mod pickle;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::{HostTensor, TensorMap, values};
use crate::ModelError;
use pickle::{Kind, Pickle, View};

const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Decodes the bytes of a file; `file` is what errors call it. Tensors of integers are left out.
///
/// # Errors
/// [`ModelError::Format`] where the file is damaged or holds anything but tensors by name.
pub fn from_bytes(bytes: &[u8], file: &str) -> Result<TensorMap, ModelError> {
    decode(bytes).map_err(|reason| ModelError::Format { file: file.to_owned(), reason })
}

fn decode(bytes: &[u8]) -> Result<TensorMap, String> {
    let mut rest = bytes;
    let magic = Pickle::run(&mut rest)?;
    if magic.long.as_deref() != Some(&MAGIC) {
        return Err("not a PyTorch file of the older format (its magic number is missing)".to_owned());
    }
    Pickle::run(&mut rest)?;
    Pickle::run(&mut rest)?;
    let object = Pickle::run(&mut rest)?;
    let keys = Pickle::run(&mut rest)?.strings;
    let storages = storages(&object, &keys, rest)?;

    let mut budget = bytes.len();
    let mut tensors = TensorMap::default();
    for (name, view) in &object.tensors {
        let Some(storage) = storages.get(&*view.storage.key) else { continue };
        let total = count(&view.shape).filter(|&n| n <= budget);
        budget -= total.ok_or_else(|| format!("tensor {name}: shape {:?} is beyond the file", view.shape))?;
        let data =
            gather(view, storage).ok_or_else(|| format!("tensor {name}: reaches beyond its storage"))?;
        if tensors.0.insert(name.to_string(), HostTensor { shape: view.shape.clone(), data }).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    Ok(tensors)
}

/// The values of every storage of floats, by key.
fn storages<'a>(
    object: &'a Pickle,
    keys: &'a [Rc<str>],
    mut rest: &[u8],
) -> Result<HashMap<&'a str, Vec<f32>>, String> {
    let known: BTreeMap<&str, _> =
        object.tensors.iter().map(|(_, view)| (&*view.storage.key, &view.storage)).collect();
    let mut storages = HashMap::new();
    for key in keys {
        let storage = known.get(&**key).ok_or_else(|| format!("storage {key} belongs to no tensor"))?;
        let (length, data) = rest.split_first_chunk().ok_or("ends in the middle; fetch it again")?;
        if u64::from_le_bytes(*length) != storage.values as u64 {
            return Err(format!("storage {key} has another length than its tensors say"));
        }
        let size = storage.values.checked_mul(storage.kind.bytes()).filter(|&n| n <= data.len());
        let (data, behind) = data.split_at(size.ok_or("ends in the middle of the values; fetch it again")?);
        rest = behind;
        let floats = match storage.kind {
            Kind::Float => values(data, f32::from_le_bytes),
            Kind::Double => values(data, |b| f64::from_le_bytes(b) as f32),
            Kind::Half => values(data, |b| half::f16::from_le_bytes(b).to_f32()),
            Kind::Bfloat => values(data, |b| half::bf16::from_le_bytes(b).to_f32()),
            Kind::Integers(_) => continue,
        };
        storages.insert(&**key, floats);
    }
    if let Some((_, view)) = object.tensors.iter().find(|(_, v)| {
        !matches!(v.storage.kind, Kind::Integers(_)) && !storages.contains_key(&*v.storage.key)
    }) {
        return Err(format!("storage {} is missing", view.storage.key));
    }
    Ok(storages)
}

fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis))
}

/// The values of a strided view, row-major; `None` where it reaches beyond the storage.
fn gather(view: &View, storage: &[f32]) -> Option<Vec<f32>> {
    let total = count(&view.shape)?;
    if total == 0 {
        return Some(Vec::new());
    }
    let last = view
        .shape
        .iter()
        .zip(&view.stride)
        .try_fold(view.offset, |at, (&axis, &stride)| at.checked_add((axis - 1).checked_mul(stride)?))?;
    if last >= storage.len() {
        return None;
    }
    let mut index = vec![0; view.shape.len()];
    let mut at = view.offset;
    let mut data = Vec::with_capacity(total);
    for _ in 0..total {
        data.push(storage[at]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.stride[axis];
            if index[axis] < view.shape[axis] {
                break;
            }
            at -= view.shape[axis] * view.stride[axis];
            index[axis] = 0;
        }
    }
    Some(data)
}
