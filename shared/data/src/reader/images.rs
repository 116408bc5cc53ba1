//! Image files, JPEG and PNG, listed in an index: one a file, or end to end in a pack.

use super::bytes;
use super::table::{self, RawColumn};
use crate::dataset::{Records, Values};
use crate::{DataError, Dataset, ImageShape, Levels, Schema, split};
use image::{DynamicImage, ImageFormat, ImageReader, Limits, imageops::FilterType};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest file of one image, bytes.
const FILE_LIMIT: u64 = 64 << 20;
/// Largest width and height taken: a small file may claim any.
const SIDE_LIMIT: u32 = 1 << 14;
/// Largest `size`.
const SIZE_LIMIT: usize = 2048;
/// Decoded bytes of all images together.
const DECODED_LIMIT: usize = 16 << 30;

/// Where the files are.
enum Files<'a> {
    /// Paths, relative to the index.
    Single { folder: &'a Path, paths: &'a [String] },
    /// Offsets and lengths in one file.
    Pack { path: &'a Path, file: File, places: Vec<(u64, u64)> },
}

/// Reads the index and every image in it.
pub(crate) fn read(
    index: &Path,
    pack: Option<&Path>,
    size: Option<usize>,
    schema: &Schema,
) -> Result<Dataset, DataError> {
    if size.is_some_and(|size| size == 0 || size > SIZE_LIMIT) {
        return Err(DataError::Source(format!("size must be 1 to {SIZE_LIMIT} pixels")));
    }
    if bytes::extension(index) != "csv" {
        return Err(DataError::file(index, "an index of images is read from .csv or .csv.gz"));
    }
    let columns = table::read_csv(index)?;
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let named = |asked: Option<&String>, usual: &str| match asked {
        Some(name) => find(name).map(Some).ok_or_else(|| lacks(index, name, &columns)),
        None => Ok(find(usual)),
    };
    let mut files = if let Some(pack) = pack {
        Files::pack(index, pack, &columns)?
    } else {
        let paths = find("path").ok_or_else(|| lacks(index, "path", &columns))?;
        Files::Single { folder: index.parent().unwrap_or(Path::new("")), paths: &paths.cells }
    };
    // Images to predict have no label; a survey refuses training rows without one.
    let target = schema.target.as_deref().unwrap_or("label");
    let labels = match find(target) {
        Some(column) => Levels::new(column.cells.iter().map(|cell| table::present(schema, target, cell))),
        None => Levels::new(vec![None::<&str>; rows]),
    };
    let site = named(schema.site.as_ref(), "site")?;
    let sites = site.map(|column| {
        Levels::new(column.cells.iter().map(|cell| table::present(schema, &column.name, cell)))
    });
    let id = named(schema.id.as_ref(), "id")?;
    let split_column = named(schema.split.as_ref().and_then(|split| split.column.as_ref()), "split")?;

    let mut decoder = Decoder { size, first: None, pixels: Vec::new() };
    let mut split = Vec::with_capacity(rows);
    for row in 0..rows {
        let (name, bytes) = files.get(index, row)?;
        decoder.push(&name, &bytes, rows)?;
        split.push(if let Some(column) = split_column {
            split::parse(&column.cells[row]).ok_or_else(|| {
                let problem = "is none of train, valid and test; leave such rows out";
                DataError::cell(index, row, &column.name, problem)
            })?
        } else {
            let content = id.map_or(bytes.as_slice(), |column| column.cells[row].as_bytes());
            split::decide(schema.split.as_ref(), std::iter::once(content))
        });
    }
    let image = decoder.first.map(|(image, _)| image);
    let dim = image.map_or(1, |image| image.height * image.width * image.channels);
    Ok(Dataset {
        records: Records::Dense { dim, values: Values::U8(decoder.pixels), image },
        labels,
        split,
        sites,
    })
}

fn lacks(index: &Path, name: &str, columns: &[RawColumn]) -> DataError {
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let problem = format!(
        "has no column {name}; it has {}. An index has label and path, or offset and length with a pack",
        names.join(", ")
    );
    DataError::file(index, problem)
}

impl<'a> Files<'a> {
    fn pack(index: &Path, pack: &'a Path, columns: &[RawColumn]) -> Result<Self, DataError> {
        let numbers = |name: &str| -> Result<Vec<u64>, DataError> {
            let column = columns
                .iter()
                .find(|column| column.name == name)
                .ok_or_else(|| lacks(index, name, columns))?;
            let number = |(row, cell): (usize, &String)| {
                cell.trim()
                    .parse()
                    .map_err(|_| DataError::cell(index, row, name, "is not a whole number of bytes"))
            };
            column.cells.iter().enumerate().map(number).collect()
        };
        let places = numbers("offset")?.into_iter().zip(numbers("length")?).collect();
        let file = File::open(pack).map_err(|e| DataError::read(pack, e))?;
        Ok(Self::Pack { path: pack, file, places })
    }

    /// One file's name for messages, and its bytes.
    fn get(&mut self, index: &Path, row: usize) -> Result<(PathBuf, Vec<u8>), DataError> {
        let (name, reader, length) = match self {
            Self::Single { folder, paths } => {
                let path = folder.join(paths[row].trim());
                let file = File::open(&path).map_err(|e| DataError::read(&path, e))?;
                let length = file.metadata().map_err(|e| DataError::read(&path, e))?.len();
                (path, file, length)
            }
            Self::Pack { path, file, places } => {
                let (offset, length) = places[row];
                file.seek(SeekFrom::Start(offset)).map_err(|e| DataError::read(path, e))?;
                let file = file.try_clone().map_err(|e| DataError::read(path, e))?;
                (path.join(format!("image {}", row + 1)), file, length)
            }
        };
        if length > FILE_LIMIT {
            return Err(DataError::row(
                index,
                row,
                format!("the image has {length} bytes; {FILE_LIMIT} are the most"),
            ));
        }
        let mut bytes = Vec::new();
        reader.take(length).read_to_end(&mut bytes).map_err(|e| DataError::read(&name, e))?;
        if bytes.len() as u64 != length {
            let problem = format!("cut off: {} of {length} bytes are there", bytes.len());
            return Err(DataError::file(&name, problem));
        }
        Ok((name, bytes))
    }
}

/// Decodes one image after the other into rows of one size.
struct Decoder {
    size: Option<usize>,
    /// The size of all, and the file that set it.
    first: Option<(ImageShape, PathBuf)>,
    pixels: Vec<u8>,
}

impl Decoder {
    fn push(&mut self, name: &Path, bytes: &[u8], rows: usize) -> Result<(), DataError> {
        let decoded = decode(name, bytes)?;
        let decoded = match self.size {
            Some(size) if (decoded.width() as usize, decoded.height() as usize) != (size, size) => {
                decoded.resize_to_fill(size as u32, size as u32, FilterType::Triangle)
            }
            _ => decoded,
        };
        let (height, width) = (decoded.height() as usize, decoded.width() as usize);
        match &self.first {
            None => {
                let bytes = (height * width * 3).checked_mul(rows).filter(|&bytes| bytes <= DECODED_LIMIT);
                let bytes = bytes.ok_or_else(|| {
                    DataError::Source(format!(
                        "{rows} images of {width} x {height} do not fit into memory; set size to scale them down"
                    ))
                })?;
                self.pixels.reserve_exact(bytes);
                let image = ImageShape { height, width, channels: 3, planes: false };
                self.first = Some((image, name.to_owned()));
            }
            Some((image, first)) if (image.height, image.width) != (height, width) => {
                let problem = format!(
                    "is {width} x {height} pixels, {} is {} x {}; set size to scale all images to one",
                    first.display(),
                    image.width,
                    image.height
                );
                return Err(DataError::file(name, problem));
            }
            Some(_) => {}
        }
        self.pixels.extend_from_slice(decoded.to_rgb8().as_raw());
        Ok(())
    }
}

fn decode(name: &Path, bytes: &[u8]) -> Result<DynamicImage, DataError> {
    if bytes.is_empty() {
        return Err(DataError::file(
            name,
            "is empty (0 bytes); replace the image or leave it out of the index",
        ));
    }
    let broken = |problem: String| {
        DataError::file(
            name,
            format!("not a whole JPEG or PNG image: {problem}; replace it or leave it out of the index"),
        )
    };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| broken(e.to_string()))?;
    if !matches!(reader.format(), Some(ImageFormat::Jpeg | ImageFormat::Png)) {
        return Err(broken("its first bytes are of neither".into()));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_LIMIT);
    limits.max_image_height = Some(SIDE_LIMIT);
    reader.limits(limits);
    reader.decode().map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
mod tests;
