//! The part of Python's pickle protocol 2 that a state dict is written in.
//!
//! Containers are not kept: what is stored under a name, and what is appended to a list, is noted when the instruction
//! runs. So a value is small, sharing costs nothing, and no value can be larger than the file.

use std::collections::HashMap;
use std::rc::Rc;

/// Tuples may lie in tuples this deep.
const DEPTH: usize = 16;
/// Axes of a tensor.
const AXES: usize = 8;

/// What one pickle left behind.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    /// Tensors stored under a name in any dictionary, in the order of the file.
    pub(super) tensors: Vec<(Rc<str>, View)>,
    /// Strings appended to any list.
    pub(super) strings: Vec<Rc<str>>,
    /// The bytes of a long integer, if the last one was long.
    pub(super) long: Option<Vec<u8>>,
}

/// A tensor: a strided view of a storage, all counted in values.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) storage: Rc<Storage>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Storage {
    pub(super) key: Rc<str>,
    pub(super) kind: Kind,
    pub(super) values: usize,
}

/// The type of a storage's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Double,
    Half,
    Bfloat,
    /// Integers of that many bytes; never read.
    Integers(usize),
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "torch FloatStorage" => Self::Float,
            "torch DoubleStorage" => Self::Double,
            "torch HalfStorage" => Self::Half,
            "torch BFloat16Storage" => Self::Bfloat,
            "torch LongStorage" => Self::Integers(8),
            "torch IntStorage" => Self::Integers(4),
            "torch ShortStorage" => Self::Integers(2),
            "torch CharStorage" | "torch ByteStorage" | "torch BoolStorage" => Self::Integers(1),
            _ => return None,
        })
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Double => 8,
            Self::Half | Self::Bfloat => 2,
            Self::Integers(bytes) => bytes,
        }
    }
}

#[derive(Clone, Debug)]
enum Value {
    Mark,
    /// Something that no tensor is made of: a dictionary, a list, None, a truth value.
    Other,
    Int(i64),
    Text(Rc<str>),
    Global(Rc<str>),
    Tuple(Rc<[Value]>, usize),
    Storage(Rc<Storage>),
    Tensor(Rc<View>),
}

impl Value {
    fn index(&self) -> Option<usize> {
        if let Self::Int(value) = self { usize::try_from(*value).ok() } else { None }
    }

    fn indices(&self) -> Option<Vec<usize>> {
        match self {
            Self::Tuple(values, _) if values.len() <= AXES => values.iter().map(Self::index).collect(),
            _ => None,
        }
    }
}

struct Machine<'a, 'b> {
    input: &'a mut &'b [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    result: Pickle,
}

impl Pickle {
    /// Runs the pickle at the start of `input` and moves `input` behind it.
    pub(super) fn run(input: &mut &[u8]) -> Result<Self, String> {
        let mut machine = Machine { input, stack: Vec::new(), memo: HashMap::new(), result: Self::default() };
        while machine.step()? {}
        Ok(machine.result)
    }
}

impl<'b> Machine<'_, 'b> {
    /// Runs one instruction; false behind the last.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.bytes()?;
        match code {
            0x80 => drop(self.bytes::<1>()?),
            b'.' => return Ok(false),
            b'(' => self.stack.push(Value::Mark),
            b'}' | b']' | b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
            b')' => self.tuple(Vec::new())?,
            b'K' => self.integer(|[b]: [u8; 1]| i64::from(b))?,
            b'M' => self.integer(|b| i64::from(u16::from_le_bytes(b)))?,
            b'J' => self.integer(|b| i64::from(i32::from_le_bytes(b)))?,
            b'G' => {
                self.bytes::<8>()?;
                self.stack.push(Value::Other);
            }
            0x8a => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.bytes()?) as usize;
                let text =
                    std::str::from_utf8(self.slice(length)?).map_err(|_| "holds text that is not UTF-8")?;
                self.stack.push(Value::Text(text.into()));
            }
            b'c' => {
                let global = format!("{} {}", self.line()?, self.line()?);
                self.stack.push(Value::Global(global.into()));
            }
            b'q' | b'r' => {
                let slot = self.slot(code == b'q')?;
                let value = self.stack.last().ok_or(DAMAGED)?.clone();
                self.memo.insert(slot, value);
            }
            b'h' | b'j' => {
                let slot = self.slot(code == b'h')?;
                self.stack.push(self.memo.get(&slot).ok_or(DAMAGED)?.clone());
            }
            b't' => {
                let values = self.marked()?;
                self.tuple(values)?;
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(code) - 0x84).ok_or(DAMAGED)?;
                let values = self.stack.split_off(start);
                self.tuple(values)?;
            }
            b'a' => self.append(1)?,
            b'e' => {
                let values = self.marked()?;
                self.note_strings(&values);
            }
            b's' => {
                let start = self.stack.len().checked_sub(2).ok_or(DAMAGED)?;
                let pair = self.stack.split_off(start);
                self.note_tensors(&pair)?;
            }
            b'u' => {
                let pairs = self.marked()?;
                self.note_tensors(&pairs)?;
            }
            // The state of an object: PyTorch keeps version numbers of modules there.
            b'b' => drop(self.stack.pop().ok_or(DAMAGED)?),
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            other => {
                return Err(format!(
                    "pickle instruction {other:#04x} is not one that a state dict needs: refused"
                ));
            }
        }
        Ok(true)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.input.split_first_chunk().ok_or(TRUNCATED)?;
        *self.input = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&'b [u8], String> {
        let (head, rest) = self.input.split_at_checked(length).ok_or(TRUNCATED)?;
        *self.input = rest;
        Ok(head)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.input.iter().take(256).position(|&b| b == b'\n').ok_or(DAMAGED)?;
        let line = std::str::from_utf8(self.slice(end)?).map_err(|_| DAMAGED)?.to_owned();
        self.bytes::<1>()?;
        Ok(line)
    }

    fn slot(&mut self, short: bool) -> Result<u32, String> {
        Ok(if short { u32::from(self.bytes::<1>()?[0]) } else { u32::from_le_bytes(self.bytes()?) })
    }

    fn integer<const N: usize>(&mut self, decode: impl Fn([u8; N]) -> i64) -> Result<(), String> {
        let value = decode(self.bytes()?);
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn long(&mut self) -> Result<(), String> {
        let [length] = self.bytes()?;
        let bytes = self.slice(usize::from(length))?.to_vec();
        let value = if bytes.len() < 8 {
            let mut full = [0; 8];
            full[..bytes.len()].copy_from_slice(&bytes);
            Value::Int(i64::from_le_bytes(full))
        } else {
            Value::Other
        };
        self.result.long = Some(bytes);
        self.stack.push(value);
        Ok(())
    }

    fn tuple(&mut self, values: Vec<Value>) -> Result<(), String> {
        let inner = values.iter().map(|v| if let Value::Tuple(_, depth) = v { *depth } else { 0 }).max();
        let depth = inner.unwrap_or(0) + 1;
        if depth > DEPTH {
            return Err(format!("tuples lie more than {DEPTH} deep: refused"));
        }
        self.stack.push(Value::Tuple(values.into(), depth));
        Ok(())
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or(DAMAGED)?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn append(&mut self, count: usize) -> Result<(), String> {
        let start = self.stack.len().checked_sub(count).ok_or(DAMAGED)?;
        let values = self.stack.split_off(start);
        self.note_strings(&values);
        Ok(())
    }

    fn note_strings(&mut self, values: &[Value]) {
        let texts = values
            .iter()
            .filter_map(|v| if let Value::Text(text) = v { Some(Rc::clone(text)) } else { None });
        self.result.strings.extend(texts);
    }

    fn note_tensors(&mut self, pairs: &[Value]) -> Result<(), String> {
        let (pairs, rest) = pairs.as_chunks();
        if !rest.is_empty() {
            return Err(DAMAGED.to_owned());
        }
        for pair in pairs {
            if let [Value::Text(name), Value::Tensor(view)] = pair {
                self.result.tensors.push((Rc::clone(name), View::clone(view)));
            }
        }
        Ok(())
    }

    /// `('storage', type, key, place, values, ..)`.
    fn persistent(&mut self) -> Result<(), String> {
        let Some(Value::Tuple(parts, _)) = self.stack.pop() else { return Err(DAMAGED.to_owned()) };
        let [Value::Text(what), Value::Global(kind), Value::Text(key), _, values, ..] = &*parts else {
            return Err(DAMAGED.to_owned());
        };
        let kind = Kind::named(kind).filter(|_| &**what == "storage");
        let kind = kind.ok_or("holds a storage of a type that is not supported")?;
        let values = values.index().ok_or(DAMAGED)?;
        self.stack.push(Value::Storage(Rc::new(Storage { key: Rc::clone(key), kind, values })));
        Ok(())
    }

    /// A call: of the three functions that make up a state dict, and of no other.
    fn reduce(&mut self) -> Result<(), String> {
        let (Some(Value::Tuple(arguments, _)), Some(Value::Global(function))) =
            (self.stack.pop(), self.stack.pop())
        else {
            return Err(DAMAGED.to_owned());
        };
        let value = match (&*function, &*arguments) {
            ("collections OrderedDict", []) => Value::Other,
            ("torch._utils _rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            ("torch._utils _rebuild_tensor_v2", [Value::Storage(storage), offset, shape, stride, ..]) => {
                let (offset, shape, stride) = (offset.index(), shape.indices(), stride.indices());
                let (Some(offset), Some(shape), Some(stride)) = (offset, shape, stride) else {
                    return Err(DAMAGED.to_owned());
                };
                if shape.len() != stride.len() {
                    return Err(DAMAGED.to_owned());
                }
                Value::Tensor(Rc::new(View { storage: Rc::clone(storage), offset, shape, stride }))
            }
            _ => return Err(format!("calls {function:?}, which a state dict does not: refused")),
        };
        self.stack.push(value);
        Ok(())
    }
}

const DAMAGED: &str = "its pickle is damaged; fetch it again";
const TRUNCATED: &str = "ends in the middle of its pickle; fetch it again";
