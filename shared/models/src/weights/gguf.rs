//! GGUF, the file format of llama.cpp (version 2 and 3): metadata, then tensors, in one file. Tensors are read and
//! dequantised one at a time. Layouts of the quantised blocks: ggml's `ggml-quants`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use half::f16;

use super::HostTensor;
use crate::ModelError;

const MAGIC: &[u8; 4] = b"GGUF";
/// More than any file in use has, and few enough that hostile counts cost nothing.
const MAX_TENSORS: u64 = 100_000;
const MAX_KEYS: u64 = 100_000;
const MAX_DIMS: u32 = 4;
const MAX_NESTING: u32 = 4;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Uint(u64),
    /// Any signed integer type.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// UTF-8 text; invalid sequences are replaced.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

#[derive(Debug, Clone)]
struct Entry {
    /// Outermost first: the reverse of the file's order.
    shape: Vec<usize>,
    kind: u32,
    bytes: Range<u64>,
}

/// An open file.
pub struct Gguf {
    file: Mutex<BufReader<File>>,
    path: PathBuf,
    name: String,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Entry>,
}

impl Gguf {
    /// Opens a file and reads its directory, not its tensors.
    ///
    /// # Errors
    /// [`ModelError::Format`] for anything but a whole GGUF file, [`ModelError::Unsupported`] for its first version or
    /// big-endian files.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io(path))?;
        let length = file.metadata().map_err(ModelError::io(path))?.len();
        let name = path.display().to_string();
        let mut reader = Reader { inner: BufReader::with_capacity(1 << 20, file), at: 0, length, path };
        let (metadata, tensors) = directory(&mut reader)?;
        Ok(Self { metadata, tensors, name, path: path.to_owned(), file: Mutex::new(reader.inner) })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A whole number that the architecture needs.
    ///
    /// # Errors
    /// [`ModelError::Format`] when it is missing or not a whole number.
    pub fn uint(&self, key: &str) -> Result<usize, ModelError> {
        match self.get(key) {
            Some(Value::Uint(value)) => usize::try_from(*value).ok(),
            Some(Value::Int(value)) => usize::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| self.refused(format!("the key {key} is missing or not a whole number")))
    }

    /// A number, if it is there.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Value::Float(value)) => Some(*value),
            Some(Value::Uint(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// A text, if it is there.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A list, if it is there.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.get(key) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    /// Names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// True when the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads and dequantises one tensor.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when it is missing, has another shape or holds NaN; [`ModelError::Unsupported`] for a
    /// block type other than F32, F16, BF16, Q4_0, Q4_1, Q8_0.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor, ModelError> {
        let refused = |reason: String| ModelError::Tensor { name: name.to_owned(), reason };
        let entry = self.tensors.get(name).ok_or_else(|| refused(format!("is missing in {}", self.name)))?;
        if entry.shape != shape {
            return Err(refused(format!("has the shape {:?}; {shape:?} is needed", entry.shape)));
        }
        let data = dequantise(entry.kind, &self.read(&entry.bytes)?, name)?;
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            return Err(refused(format!("value {at} is {}; the file is damaged", data[at])));
        }
        Ok(HostTensor { shape: shape.to_vec(), data })
    }

    fn read(&self, range: &Range<u64>) -> Result<Vec<u8>, ModelError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.seek(SeekFrom::Start(range.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(ModelError::io(&self.path))?;
        Ok(bytes)
    }

    /// An error about this file.
    pub fn refused(&self, reason: String) -> ModelError {
        ModelError::Format { file: self.name.clone(), reason }
    }
}

/// A cursor that never leaves its file.
struct Reader<'a> {
    inner: BufReader<File>,
    at: u64,
    length: u64,
    path: &'a Path,
}

impl Reader<'_> {
    fn refused(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Format { file: self.path.display().to_string(), reason: reason.into() }
    }

    /// Fails where the file ends before `count` more bytes.
    fn ahead(&self, count: u64) -> Result<usize, ModelError> {
        if self.at.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(self.refused(format!(
                "the file ends at byte {} where {count} more bytes are announced at {}; it is truncated: fetch it again",
                self.length, self.at
            )));
        }
        Ok(count as usize)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        self.ahead(bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(ModelError::io(self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        let mut bytes = vec![0; self.ahead(length)?];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, ModelError> {
        Ok(match kind {
            0 => Value::Uint(u64::from(self.array::<1>()?[0])),
            1 => Value::Int(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Uint(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Uint(u64::from(self.u32()?)),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.string()?),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                if depth >= MAX_NESTING {
                    return Err(self.refused("lists are nested too deeply"));
                }
                // Every element takes at least one byte, so the file's rest bounds the count.
                self.ahead(count)?;
                (0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>().map(Value::List)?
            }
            10 => Value::Uint(self.u64()?),
            11 => Value::Int(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.refused(format!("metadata of the unknown type {other}"))),
        })
    }
}

type Directory = (BTreeMap<String, Value>, BTreeMap<String, Entry>);

fn directory(reader: &mut Reader<'_>) -> Result<Directory, ModelError> {
    if reader.length < 4 || reader.array::<4>()? != *MAGIC {
        return Err(reader.refused("this is not a GGUF file (it does not begin with GGUF)"));
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(ModelError::Unsupported {
            what: format!("GGUF version {version} ({})", reader.path.display()),
            reason: "versions 2 and 3, little-endian, are".to_owned(),
        });
    }
    let (tensor_count, key_count) = (reader.u64()?, reader.u64()?);
    if tensor_count > MAX_TENSORS || key_count > MAX_KEYS {
        return Err(reader.refused(format!("{tensor_count} tensors and {key_count} keys are announced")));
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..key_count {
        let key = reader.string()?;
        let kind = reader.u32()?;
        metadata.insert(key, reader.value(kind, 0)?);
    }
    let mut listed = Vec::new();
    for _ in 0..tensor_count {
        let name = reader.string()?;
        let dims = reader.u32()?;
        if dims == 0 || dims > MAX_DIMS {
            return Err(reader.refused(format!("tensor {name} has {dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(usize::try_from(reader.u64()?).unwrap_or(usize::MAX));
        }
        shape.reverse();
        listed.push((name, shape, reader.u32()?, reader.u64()?));
    }
    let alignment = match metadata.get("general.alignment") {
        Some(Value::Uint(value)) if (1..=1 << 20).contains(value) => *value,
        Some(_) => return Err(reader.refused("general.alignment is not usable")),
        None => 32,
    };
    let start = reader.at.next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, shape, kind, offset) in listed {
        let bytes = extent(reader, &name, &shape, kind, start, offset)?;
        tensors.insert(name, Entry { shape, kind, bytes });
    }
    Ok((metadata, tensors))
}

/// Where a tensor's bytes are, within the file.
fn extent(
    reader: &Reader<'_>,
    name: &str,
    shape: &[usize],
    kind: u32,
    start: u64,
    offset: u64,
) -> Result<Range<u64>, ModelError> {
    let (block, size) = block(kind, name)?;
    let count = shape.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim));
    let range = count.and_then(|count| {
        let length = (count / block).checked_mul(size)? as u64;
        let begin = start.checked_add(offset)?;
        Some(begin..begin.checked_add(length)?)
    });
    match (range, shape.last()) {
        (Some(range), Some(row)) if range.end <= reader.length && row.is_multiple_of(block) => Ok(range),
        _ => Err(reader.refused(format!(
            "tensor {name} with the shape {shape:?} does not lie within the file of {} bytes; it is truncated or \
             damaged: fetch it again",
            reader.length
        ))),
    }
}

/// Values and bytes of one block.
fn block(kind: u32, name: &str) -> Result<(usize, usize), ModelError> {
    Ok(match kind {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        8 => (32, 34),
        other => {
            return Err(ModelError::Unsupported {
                what: format!("the block type {other} of tensor {name}"),
                reason: "F32, F16, BF16, Q4_0, Q4_1 and Q8_0 are; convert the file to one of them".to_owned(),
            });
        }
    })
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn dequantise(kind: u32, bytes: &[u8], name: &str) -> Result<Vec<f32>, ModelError> {
    let (count, size) = block(kind, name)?;
    let mut values = Vec::with_capacity(bytes.len() / size * count);
    for one in bytes.chunks_exact(size) {
        match kind {
            0 => values.push(f32::from_le_bytes([one[0], one[1], one[2], one[3]])),
            1 => values.push(half(one, 0)),
            30 => values.push(half::bf16::from_le_bytes([one[0], one[1]]).to_f32()),
            // The low halves of the 16 bytes are the block's first 16 values, the high halves its last.
            2 => {
                let scale = half(one, 0);
                let quants = &one[2..];
                values.extend(quants.iter().map(|q| (f32::from(q & 15) - 8.0) * scale));
                values.extend(quants.iter().map(|q| (f32::from(q >> 4) - 8.0) * scale));
            }
            3 => {
                let (scale, least) = (half(one, 0), half(one, 2));
                let quants = &one[4..];
                values.extend(quants.iter().map(|q| f32::from(q & 15) * scale + least));
                values.extend(quants.iter().map(|q| f32::from(q >> 4) * scale + least));
            }
            _ => {
                let scale = half(one, 0);
                values.extend(one[2..].iter().map(|q| f32::from(q.cast_signed()) * scale));
            }
        }
    }
    Ok(values)
}
