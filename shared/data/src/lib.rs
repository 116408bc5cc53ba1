//! Records on their way into a federated run: where they are, how their columns are read, what every site has to
//! know before rows become numbers, and how one data set is cut into sites for a simulation.
//!
//! The path of a row:
//!
//! ```text
//! Source ── open(Schema) ──► Dataset ── survey ──► Survey ── merge over sites ──► Encoding::decide
//!                               │                                                     │
//!                               └────────────── Encoding::inputs, ::labels ◄──────────┘
//! ```
//!
//! Everything here blocks; nothing here knows about networks between sites. A site's records never leave a
//! [`Dataset`]; a [`Survey`] holds only counts, integer sums and sorted unions, so merging in any order gives the same bytes.
//!
//! Public data sets and models are listed in the [`catalogue`] and fetched, pinned by hash, through an [`AssetStore`].

pub mod catalogue;
mod dataset;
mod encoding;
mod error;
mod fetch;
mod partition;
mod reader;
mod schema;
mod source;
mod split;
mod survey;

pub use dataset::{
    ColumnDescription, Dataset, Description, Dialogue, ImageShape, Levels, Media, ROW_UNIT, RgbImage, Split,
    Tests,
};
pub use encoding::{ColumnEncoding, Encoding, Inputs, Moments};
pub use error::DataError;
pub use fetch::{AssetFiles, AssetStore, Progress};
pub use partition::{Partition, SiteRows, partition};
pub use schema::{
    Backbone, Correction, Declared, Missing, MissingCategorical, MissingNumeric, Schema, SplitRule, TextPart,
};
pub use source::Source;
pub use survey::{ColumnSurvey, InputSurvey, Sums, Survey, survey};
