//! NumPy's `.npy`, versions 1 to 3 (NEP 1): a magic, a Python dictionary literal, then the values.

use super::array::{Array, Element};
use super::bytes;
use crate::DataError;
use std::io::Read;
use std::path::Path;

/// Headers are some 100 bytes; a damaged length must not ask for gigabytes.
const HEADER_LIMIT: usize = 64 << 10;

/// Reads one array, little-endian, in C order.
pub(super) fn read(path: &Path) -> Result<Array, DataError> {
    let mut reader = bytes::open(path)?;
    let fail = |e: std::io::Error| DataError::file(path, format!("cut off in the header: {e}"));
    let mut lead = [0; 8];
    reader.read_exact(&mut lead).map_err(fail)?;
    if !lead.starts_with(b"\x93NUMPY") || !(1..=3).contains(&lead[6]) {
        return Err(DataError::file(path, "not a .npy file of version 1 to 3; save it with numpy.save"));
    }
    let length = if lead[6] == 1 {
        let mut short = [0; 2];
        reader.read_exact(&mut short).map_err(fail)?;
        usize::from(u16::from_le_bytes(short))
    } else {
        let mut long = [0; 4];
        reader.read_exact(&mut long).map_err(fail)?;
        u32::from_le_bytes(long) as usize
    };
    if length > HEADER_LIMIT {
        return Err(DataError::file(path, format!("the header claims {length} bytes; it is damaged")));
    }
    let mut header = vec![0; length];
    reader.read_exact(&mut header).map_err(fail)?;
    let header = String::from_utf8(header).map_err(|_| DataError::file(path, "the header is not text"))?;
    let (element, shape) = parse(&header).map_err(|problem| DataError::file(path, problem))?;
    let count = bytes::volume(path, &shape, element.width())?;
    Ok(Array { element, shape, bytes: bytes::read_rest(path, reader, count)? })
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`.
fn parse(header: &str) -> Result<(Element, Vec<usize>), String> {
    let after = |key: &str| {
        let at = header.find(&format!("'{key}'")).ok_or_else(|| format!("the header has no '{key}'"))?;
        let rest = header[at + key.len() + 2..].trim_start();
        rest.strip_prefix(':').map(str::trim_start).ok_or_else(|| format!("the header is damaged at '{key}'"))
    };
    let descr = after("descr")?;
    let descr = descr.strip_prefix('\'').and_then(|d| d.split('\'').next()).unwrap_or("a structure");
    let element = match descr {
        "|u1" | "<u1" | "|b1" => Element::U8,
        "<i4" => Element::I32,
        "<i8" => Element::I64,
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => {
            return Err(format!(
                "the type {other} is not read; convert to f4, f8, u1 or, for labels, i4 or i8"
            ));
        }
    };
    if !after("fortran_order")?.starts_with("False") {
        return Err("the array is in Fortran order; save numpy.ascontiguousarray of it".into());
    }
    let shape = after("shape")?
        .strip_prefix('(')
        .and_then(|shape| shape.split_once(')'))
        .ok_or("the shape in the header is damaged")?
        .0;
    let shape = shape
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| format!("the shape in the header has the entry {n:?}")))
        .collect::<Result<Vec<usize>, String>>()?;
    Ok((element, shape))
}
