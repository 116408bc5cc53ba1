//! Records that a pre-trained model can read, and the data set of features that it makes of them.

use super::{Dataset, ImageShape, Records, Values, frame};
use crate::DataError;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// What a model can be given of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Images, all of this shape.
    Images(ImageShape),
    /// Texts.
    Texts,
}

/// One image.
pub struct RgbImage<'a> {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// `[height, width, 3]`.
    pub rgb: Cow<'a, [u8]>,
}

impl Dataset {
    /// Images or texts; `None` for tables and for vectors that are not images.
    pub fn media(&self) -> Option<Media> {
        match &self.records {
            Records::Dense { values: Values::U8(_), image, .. } => image.map(Media::Images),
            Records::Text(_) => Some(Media::Texts),
            _ => None,
        }
    }

    /// A row's image; `None` where the records are not images or there is no such row.
    pub fn image(&self, row: usize) -> Option<RgbImage<'_>> {
        let Records::Dense { dim, values: Values::U8(bytes), image: Some(shape) } = &self.records else {
            return None;
        };
        let bytes = bytes.get(row * dim..(row + 1) * dim)?;
        Some(RgbImage { height: shape.height, width: shape.width, rgb: shape.rgb(bytes) })
    }

    /// A row's text; `None` where the records are not texts or there is no such row.
    pub fn text(&self, row: usize) -> Option<&str> {
        match &self.records {
            Records::Text(texts) => texts.get(row).map(|text| text.body.as_str()),
            _ => None,
        }
    }

    /// Puts another text in the place of a row's, and of its answer where it has one: audits plant canaries so.
    ///
    /// # Errors
    /// [`DataError::Schema`] where the records are not texts or there is no such row.
    pub fn replace_text(&mut self, row: usize, text: &str) -> Result<(), DataError> {
        let Records::Text(texts) = &mut self.records else {
            return Err(DataError::Schema("a text is to be replaced, but the data are not texts".into()));
        };
        let old = texts.get_mut(row).ok_or_else(|| {
            DataError::Schema(format!("a text is to be replaced, but there is no row {row}"))
        })?;
        text.clone_into(&mut old.body);
        if let Some(answer) = &mut old.answer {
            text.clone_into(answer);
        }
        Ok(())
    }

    /// SHA-256 of what a model reads of a row: the image with its size, or the text. Equal content has equal digests
    /// wherever it lies and however its bytes are ordered there. `None` as for [`Dataset::image`] and
    /// [`Dataset::text`].
    pub fn content_digest(&self, row: usize) -> Option<[u8; 32]> {
        let mut hash = Sha256::new();
        if let Some(image) = self.image(row) {
            hash.update(b"sheaf image 1");
            hash.update((image.height as u64).to_le_bytes());
            hash.update((image.width as u64).to_le_bytes());
            frame(&mut hash, &image.rgb);
        } else {
            hash.update(b"sheaf text 1");
            frame(&mut hash, self.text(row)?.as_bytes());
        }
        Some(hash.finalize().into())
    }

    /// The same rows, with their labels, splits and sites, as feature vectors `[rows, dim]` in place of what they were.
    ///
    /// # Errors
    /// [`DataError::Source`] where the features are not `dim` finite values a row.
    pub fn with_features(&self, dim: usize, features: Vec<f32>) -> Result<Self, DataError> {
        if dim == 0 || features.len() != self.len() * dim {
            return Err(DataError::Source(format!(
                "{} features for {} rows of {dim} values",
                features.len(),
                self.len()
            )));
        }
        if let Some(at) = features.iter().position(|value| !value.is_finite()) {
            return Err(DataError::Source(format!(
                "feature {} of row {} is not finite",
                at % dim,
                at / dim + 1
            )));
        }
        Ok(Self {
            records: Records::Dense { dim, values: Values::F32(features), image: None },
            labels: self.labels.clone(),
            split: self.split.clone(),
            sites: self.sites.clone(),
        })
    }
}
