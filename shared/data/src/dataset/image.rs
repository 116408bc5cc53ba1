//! How a row of bytes is an image.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Height, width and channels of every image of a data set, and the order of a row's bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// True where a row is `[channels, height, width]`, false where it is `[height, width, channels]`.
    pub planes: bool,
}

impl ImageShape {
    /// The reading of an array's dimensions after the first: `[h, w]`, `[h, w, 1]`, `[h, w, 3]`, `[1, h, w]` or
    /// `[3, h, w]`; anything else is not an image. Channels last is tried first.
    pub(crate) fn of(trailing: &[usize]) -> Option<Self> {
        let shape = |height, width, channels, planes| Some(Self { height, width, channels, planes });
        match *trailing {
            [height, width] => shape(height, width, 1, false),
            [height, width, channels @ (1 | 3)] => shape(height, width, channels, false),
            [channels @ (1 | 3), height, width] => shape(height, width, channels, true),
            _ => None,
        }
    }

    /// The dimensions after the first of an array of such images: what [`ImageShape::of`] reads.
    pub(crate) fn dims(&self) -> [usize; 3] {
        if self.planes {
            [self.channels, self.height, self.width]
        } else {
            [self.height, self.width, self.channels]
        }
    }

    /// A row as `[height, width, 3]`: planes are interleaved, grey is repeated.
    pub(super) fn rgb<'a>(&self, row: &'a [u8]) -> Cow<'a, [u8]> {
        let pixels = self.height * self.width;
        match (self.channels, self.planes) {
            (3, false) => Cow::Borrowed(row),
            (3, true) => Cow::Owned(
                (0..pixels).flat_map(|at| [row[at], row[pixels + at], row[2 * pixels + at]]).collect(),
            ),
            _ => Cow::Owned(row.iter().flat_map(|&grey| [grey; 3]).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_read_back_and_rows_become_rgb() {
        for dims in [[2, 3, 3], [3, 2, 2], [4, 5, 1], [1, 4, 5]] {
            assert_eq!(ImageShape::of(&dims).unwrap().dims(), dims);
        }
        assert_eq!(ImageShape::of(&[28, 28]).unwrap().dims(), [28, 28, 1]);
        assert!(ImageShape::of(&[7]).is_none() && ImageShape::of(&[5, 5, 4]).is_none());
        let planes = ImageShape { height: 1, width: 2, channels: 3, planes: true };
        assert_eq!(*planes.rgb(&[1, 2, 3, 4, 5, 6]), [1, 3, 5, 2, 4, 6]);
        let grey = ImageShape { height: 1, width: 2, channels: 1, planes: false };
        assert_eq!(*grey.rgb(&[7, 8]), [7, 7, 7, 8, 8, 8]);
    }
}
