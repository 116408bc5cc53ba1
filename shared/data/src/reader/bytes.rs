//! Files as streams of bytes, plain or gzip, with a bound on what a compressed file may grow to.

use crate::DataError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// No file may unpack to more than this: a few megabytes of gzip can hold terabytes of zeros.
const UNPACKED_LIMIT: u64 = 8 << 30;

/// A reader that fails, instead of ending, after `left` bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            std::io::Error::other(format!("it unpacks to more than {UNPACKED_LIMIT} bytes"))
        })?;
        Ok(read)
    }
}

/// True when the name ends in `.gz`.
pub(super) fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// The extension without `.gz`, in lower case: `csv` for `a.csv.gz`.
pub(super) fn extension(path: &Path) -> String {
    let stem = if is_gzip(path) { path.with_extension("") } else { path.to_owned() };
    stem.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Opens a file, unpacking `.gz`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = BufReader::new(File::open(path).map_err(|e| DataError::read(path, e))?);
    Ok(if is_gzip(path) {
        Box::new(Bounded { inner: MultiGzDecoder::new(file), left: UNPACKED_LIMIT })
    } else {
        Box::new(file)
    })
}

/// Reads exactly `count` bytes and checks that nothing follows. The buffer grows with what is really there, so a
/// header that promises too much costs nothing.
pub(super) fn read_rest(path: &Path, mut reader: impl Read, count: usize) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    reader.by_ref().take(count as u64).read_to_end(&mut bytes).map_err(|e| DataError::read(path, e))?;
    if bytes.len() != count {
        return Err(DataError::file(
            path,
            format!(
                "the header promises {count} bytes of values, the file has {}; it is cut off or damaged",
                bytes.len()
            ),
        ));
    }
    if reader.read(&mut [0]).map_err(|e| DataError::read(path, e))? != 0 {
        return Err(DataError::file(
            path,
            format!("bytes follow after the {count} that the header promises"),
        ));
    }
    Ok(bytes)
}

/// The product of dimensions, refused where it overflows or is beyond any real file.
pub(super) fn volume(path: &Path, shape: &[usize], width: usize) -> Result<usize, DataError> {
    shape
        .iter()
        .try_fold(width, |product, &n| product.checked_mul(n))
        .filter(|&bytes| bytes as u64 <= UNPACKED_LIMIT)
        .ok_or_else(|| {
            DataError::file(path, format!("the shape {shape:?} is larger than any file read here"))
        })
}
