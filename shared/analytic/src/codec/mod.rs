//! The wire form of [`Sums`].
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `SHFS` |
//! | 1, 1 | version 1, bits `s` |
//! | 2 | zero |
//! | 4, 4 | `D`, `C` (all numbers little-endian) |
//! | 8 | rows |
//! | 8 C | class counts |
//! | .. | the diagonal of `G`, its strict upper triangle row by row, `B` row by row: each in frame-of-reference blocks |
//!
//! The diagonal goes first: it is larger than the rest, so the other blocks are narrower without it, and a
//! reader can check `g_ij^2 <= g_ii g_jj` as the elements come. Decoding bounds every count by the expected shape;
//! hostile bytes give an error, never a panic and never an allocation larger than that shape.

mod blocks;

use crate::error::AnalyticError;
use crate::plausibility::Plausibility;
use crate::sums::{Sums, SumsShape, add_overflows, packed_index, packed_len, same_shape, subtract_overflows};

const MAGIC: &[u8; 4] = b"SHFS";
const VERSION: u8 = 1;
const FIXED_HEADER: usize = 24;

/// What encoded sums say about themselves, once checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumsHeader {
    /// Rows summed.
    pub rows: u64,
    /// Rows of each class, `[C]`.
    pub counts: Vec<u64>,
}

/// Encodes sums.
pub fn encode(sums: &Sums) -> Vec<u8> {
    let (dim, classes) = (sums.dim(), sums.classes());
    let mut out = Vec::with_capacity(FIXED_HEADER + 8 * classes + 5 * (packed_len(dim) + dim * classes));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[VERSION, sums.bits() as u8, 0, 0]);
    out.extend_from_slice(&(dim as u32).to_le_bytes());
    out.extend_from_slice(&(classes as u32).to_le_bytes());
    out.extend_from_slice(&sums.rows().to_le_bytes());
    sums.counts().iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    let mut block = Vec::with_capacity(blocks::BLOCK);
    let diagonal: Vec<i64> = (0..dim).map(|i| sums.gram()[packed_index(dim, i, i)]).collect();
    diagonal.chunks(blocks::BLOCK).for_each(|values| blocks::write(values, &mut out));
    for row in 0..dim {
        let start = packed_index(dim, row, row);
        let mut values = &sums.gram()[start + 1..start + dim - row];
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(blocks::BLOCK - block.len()));
            block.extend_from_slice(now);
            values = later;
            if block.len() == blocks::BLOCK {
                blocks::write(&block, &mut out);
                block.clear();
            }
        }
    }
    if !block.is_empty() {
        blocks::write(&block, &mut out);
    }
    sums.cross().chunks(blocks::BLOCK).for_each(|values| blocks::write(values, &mut out));
    out
}

/// Checks form and content of encoded sums ([`Sums::validate`]) without unpacking them.
pub fn check(bytes: &[u8], expected: &SumsShape) -> Result<SumsHeader, AnalyticError> {
    let (header, body) = read_header(bytes, expected)?;
    read_checked(body, expected, &header, |_, _| Ok(()))?;
    Ok(header)
}

/// What the beginning of encoded sums says, [`header_len`] bytes or more, of sums that were checked before.
pub fn header(bytes: &[u8], expected: &SumsShape) -> Result<SumsHeader, AnalyticError> {
    Ok(read_header(bytes, expected)?.0)
}

/// Bytes before the first block.
pub const fn header_len(expected: &SumsShape) -> usize {
    FIXED_HEADER + 8 * expected.classes
}

/// Decodes sums of the `expected` shape, checked as by [`check`].
pub fn decode(bytes: &[u8], expected: &SumsShape) -> Result<Sums, AnalyticError> {
    let (header, body) = read_header(bytes, expected)?;
    // A block of 1024 costs at least 9 bytes, so that a short message cannot ask for the full shape.
    let blocks = packed_len(expected.dim).div_ceil(blocks::BLOCK);
    if body.len() < 9 * blocks {
        return Err(AnalyticError::Truncated { section: "gram" });
    }
    let mut sums = Sums::zero(expected.dim, expected.classes, expected.bits);
    read_checked(body, expected, &header, |place, values| {
        sums.part_mut(place, values.len()).copy_from_slice(values);
        Ok(())
    })?;
    (sums.rows, sums.counts) = (header.rows, header.counts);
    Ok(sums)
}

/// Adds encoded sums to `into` without a second copy of their size. Everything is checked in a first pass, so on an
/// error `into` is unchanged.
pub fn decode_add(bytes: &[u8], into: &mut Sums, max_abs: i64) -> Result<(), AnalyticError> {
    let expected = SumsShape { dim: into.dim, classes: into.classes, bits: into.bits, max_abs };
    let (header, body) = read_header(bytes, &expected)?;
    let (rows, counts) = into.grown(header.rows, &header.counts)?;
    read_checked(body, &expected, &header, |place, values| {
        let overflows = add_overflows(into.part(place, values.len()), values);
        if overflows { Err(AnalyticError::Overflow { what: place.name() }) } else { Ok(()) }
    })?;
    read_body(body, &expected, |place, values| {
        into.part_mut(place, values.len()).iter_mut().zip(values).for_each(|(a, b)| *a += b);
        Ok(())
    })?;
    (into.rows, into.counts) = (rows, counts);
    Ok(())
}

/// Takes encoded sums out of `into`, as [`Sums::subtract`]. On an error `into` is unchanged.
pub fn decode_subtract(bytes: &[u8], into: &mut Sums, max_abs: i64) -> Result<(), AnalyticError> {
    let expected = SumsShape { dim: into.dim, classes: into.classes, bits: into.bits, max_abs };
    let (header, body) = read_header(bytes, &expected)?;
    let (rows, counts) = into.shrunk(header.rows, &header.counts)?;
    read_checked(body, &expected, &header, |place, values| {
        let held = into.part(place, values.len());
        if matches!(place, Place::Diagonal(_)) && held.iter().zip(values).any(|(a, b)| a < b) {
            return Err(AnalyticError::NotContained { what: "the diagonal of gram" });
        }
        let overflows = subtract_overflows(held, values);
        if overflows { Err(AnalyticError::Overflow { what: place.name() }) } else { Ok(()) }
    })?;
    read_body(body, &expected, |place, values| {
        into.part_mut(place, values.len()).iter_mut().zip(values).for_each(|(a, b)| *a -= b);
        Ok(())
    })?;
    (into.rows, into.counts) = (rows, counts);
    Ok(())
}

/// Where a run of decoded values belongs.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// One element of the diagonal.
    Diagonal(usize),
    /// `g[row, column..]`, right of the diagonal.
    Upper(usize, usize),
    /// `B` from a flat index on.
    Cross(usize),
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Diagonal(_) | Self::Upper(..) => "gram",
            Self::Cross(_) => "cross",
        }
    }
}

impl Sums {
    fn part(&self, place: Place, len: usize) -> &[i64] {
        match place {
            Place::Diagonal(i) => &self.gram[packed_index(self.dim, i, i)..][..len],
            Place::Upper(i, j) => &self.gram[packed_index(self.dim, i, j)..][..len],
            Place::Cross(k) => &self.cross[k..][..len],
        }
    }

    fn part_mut(&mut self, place: Place, len: usize) -> &mut [i64] {
        match place {
            Place::Diagonal(i) => &mut self.gram[packed_index(self.dim, i, i)..][..len],
            Place::Upper(i, j) => &mut self.gram[packed_index(self.dim, i, j)..][..len],
            Place::Cross(k) => &mut self.cross[k..][..len],
        }
    }
}

/// Reads and checks the header; the rest are the blocks.
fn read_header<'a>(bytes: &'a [u8], expected: &SumsShape) -> Result<(SumsHeader, &'a [u8]), AnalyticError> {
    expected.validate()?;
    let truncated = || AnalyticError::Truncated { section: "the header" };
    let (fixed, rest) = bytes.split_first_chunk::<FIXED_HEADER>().ok_or_else(truncated)?;
    let [m0, m1, m2, m3, version, bits, z0, z1, sizes @ ..] = fixed;
    if [*m0, *m1, *m2, *m3] != *MAGIC {
        return Err(AnalyticError::Format { found: "another signature".to_owned() });
    }
    if *version != VERSION || [*z0, *z1] != [0, 0] {
        return Err(AnalyticError::Format { found: format!("version {version}, reserved bytes {z0} {z1}") });
    }
    let number = |range: std::ops::Range<usize>| {
        sizes[range].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let (dim, classes, rows) = (number(0..4), number(4..8), number(8..16));
    same_shape((expected.dim, expected.classes, expected.bits), (dim, classes, u64::from(*bits)))?;
    let (counts, body) = rest.split_at_checked(8 * expected.classes).ok_or_else(truncated)?;
    let counts = counts.chunks_exact(8).map(|n| n.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)));
    Ok((SumsHeader { rows, counts: counts.collect() }, body))
}

/// Reads the blocks and checks their content on the way.
fn read_checked(
    body: &[u8],
    shape: &SumsShape,
    header: &SumsHeader,
    mut sink: impl FnMut(Place, &[i64]) -> Result<(), AnalyticError>,
) -> Result<(), AnalyticError> {
    let mut check = Plausibility::new(shape, header.rows, &header.counts)?;
    read_body(body, shape, |place, values| {
        match place {
            Place::Diagonal(_) => check.diagonal(values)?,
            Place::Upper(row, column) => check.off_diagonal(row, column, values)?,
            Place::Cross(start) => check.cross(start, values)?,
        }
        sink(place, values)
    })
}

fn read_body(
    body: &[u8],
    shape: &SumsShape,
    mut sink: impl FnMut(Place, &[i64]) -> Result<(), AnalyticError>,
) -> Result<(), AnalyticError> {
    let &SumsShape { dim, classes, .. } = shape;
    let mut rest = body;
    read_section(&mut rest, "the diagonal of gram", dim, |start, values| {
        let mut each = values.chunks(1).enumerate();
        each.try_for_each(|(k, value)| sink(Place::Diagonal(start + k), value))
    })?;
    let (mut row, mut column) = (0, 1);
    read_section(&mut rest, "gram", dim * (dim - 1) / 2, |_, mut values| {
        while !values.is_empty() {
            let (now, later) = values.split_at(values.len().min(dim - column));
            sink(Place::Upper(row, column), now)?;
            column += now.len();
            if column == dim {
                row += 1;
                column = row + 1;
            }
            values = later;
        }
        Ok(())
    })?;
    read_section(&mut rest, "cross", dim * classes, |start, values| sink(Place::Cross(start), values))?;
    if rest.is_empty() { Ok(()) } else { Err(AnalyticError::Trailing { extra: rest.len() }) }
}

fn read_section(
    rest: &mut &[u8],
    section: &'static str,
    len: usize,
    mut sink: impl FnMut(usize, &[i64]) -> Result<(), AnalyticError>,
) -> Result<(), AnalyticError> {
    let mut block = [0; blocks::BLOCK];
    for start in (0..len).step_by(blocks::BLOCK) {
        let values = &mut block[..blocks::BLOCK.min(len - start)];
        blocks::read(rest, values).map_err(|bad| match bad {
            blocks::BadBlock::Truncated => AnalyticError::Truncated { section },
            blocks::BadBlock::Width(width) => {
                AnalyticError::Format { found: format!("a block of {width} bits in {section}") }
            }
        })?;
        sink(start, values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
