//! Records seen by a frozen pre-trained model: images or texts become feature vectors, with their labels, splits and
//! sites, and every workload goes on with those. What was computed once is kept ([`cache`]): the same records, model
//! and options take seconds the next time.
//!
//! ```text
//! source ── open ──► images, texts ── digests ──► cache ──► rows that are there ──────┐
//!                                                   └─► the others ── model ──► ... ──┴──► data set of features
//! ```
//!
//! Features of a record depend on the record alone, never on the rows beside it, so the same record has the same bits at
//! a site and in one place with all others: that is what makes the federated model the pooled one.

mod backbone;
mod cache;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use sheaf_data::{Backbone, Dataset, Media, Schema, Source};

use crate::{error::AgentError, models, task::Resources};
use backbone::Extract;
use cache::{Cache, Digest};

/// Records given to the model at a time: what bounds memory, and the time until a cancelled task stops.
const BLOCK: usize = 128;
/// How often the log hears of progress.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// How often finished rows are kept while others are still computed.
const KEEP_EVERY: Duration = Duration::from_mins(1);

/// A data set as a workload reads it.
pub struct Opened {
    /// The records, or the features that stand for them.
    pub dataset: Dataset,
    /// What computed the features; none where the schema has no backbone.
    pub backend: Option<String>,
}

/// Hears how many of how many records are done; an error stops the work.
pub type Watch<'a> = &'a mut dyn FnMut(usize, usize) -> Result<(), AgentError>;

/// Reads a source and, where the schema asks for it, gives the records to the model.
///
/// # Errors
/// [`AgentError::Data`] where the records cannot be read or are not what the model takes, [`AgentError::Denied`] for
/// another model than the catalogue's, [`AgentError::Cancelled`].
pub fn open(
    source: &Source,
    schema: &Schema,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Opened, AgentError> {
    let dataset = source.open(schema, resources.assets)?;
    apply(dataset, schema, resources, &mut |_, _| {
        if cancelled() { Err(AgentError::Cancelled) } else { Ok(()) }
    })
}

/// What a backbone makes of texts, `[texts, dim]` row by row. Nothing is kept: for texts that are nobody's records.
///
/// # Errors
/// As for [`open`].
pub fn embed(
    texts: &[&str],
    backbone: &Backbone,
    resources: &Resources<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<(usize, Vec<f32>), AgentError> {
    models::check_hash(&backbone.model, backbone.sha256.as_deref())?;
    let extractor = backbone::loaded(backbone, resources.assets, &resources.compute()?)?;
    let extractor = extractor.lock().unwrap_or_else(PoisonError::into_inner);
    let mut values = Vec::with_capacity(texts.len() * extractor.dim());
    for block in texts.chunks(BLOCK) {
        if cancelled() {
            return Err(AgentError::Cancelled);
        }
        values.extend(extractor.texts(block)?);
    }
    Ok((extractor.dim(), values))
}

/// The second half of [`open`], for records that are in memory already.
///
/// # Errors
/// As for [`open`].
pub fn apply(
    dataset: Dataset,
    schema: &Schema,
    resources: &Resources<'_>,
    watch: Watch<'_>,
) -> Result<Opened, AgentError> {
    let Some(backbone) = &schema.backbone else {
        return Ok(Opened { dataset, backend: None });
    };
    models::check_hash(&backbone.model, backbone.sha256.as_deref())?;
    let compute = resources.compute()?;
    let cache = Cache::new(resources, backbone, &compute.name);
    let features = compute_missing(&dataset, backbone, &cache, watch, &mut || {
        backbone::loaded(backbone, resources.assets, &compute)
    })?;
    let dataset = dataset.with_features(features.dim, features.values)?;
    Ok(Opened { dataset, backend: Some(compute.name) })
}

/// Feature vectors of all rows.
struct Features {
    dim: usize,
    /// `[rows, dim]`.
    values: Vec<f32>,
}

/// Takes from the cache what is there and lets the model compute the rest, each different record once.
fn compute_missing(
    dataset: &Dataset,
    backbone: &Backbone,
    cache: &Cache,
    watch: Watch<'_>,
    load: &mut dyn FnMut() -> Result<backbone::Shared, AgentError>,
) -> Result<Features, AgentError> {
    let began = Instant::now();
    let media = dataset.media().ok_or_else(|| {
        AgentError::Data(format!("model {} reads images or texts; these records are neither", backbone.model))
    })?;
    let digests: Vec<Digest> = (0..dataset.len()).filter_map(|row| dataset.content_digest(row)).collect();
    // The first row of each different record stands for all of them.
    let mut first: HashMap<Digest, usize> = HashMap::new();
    let mut rows = Vec::new();
    for (row, digest) in digests.iter().enumerate() {
        first.entry(*digest).or_insert_with(|| {
            rows.push(row);
            rows.len() - 1
        });
    }
    let wanted: Vec<Digest> = rows.iter().map(|&row| digests[row]).collect();
    let mut table = cache.read(&wanted);
    if table.is_complete() {
        if cache.has_others(&table) {
            cache.write(&wanted, &table)?;
        }
        tracing::info!(model = backbone.model, "features of {} records: all from the cache", wanted.len());
    } else {
        // Whoever computes the same at this moment is waited for; then it may all be there.
        let _held = cache.lock(watch)?;
        table = cache.read(&wanted);
        if !table.is_complete() {
            let extractor = load()?;
            let extractor = extractor.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = table.missing();
            tracing::info!(
                model = backbone.model,
                "features of {} records: {} from the cache, {} to compute",
                wanted.len(),
                wanted.len() - missing.len(),
                missing.len()
            );
            table.expect_dim(extractor.dim());
            let computed =
                fill(dataset, media, &rows, &missing, &wanted, extractor.as_ref(), cache, &mut table, watch);
            // What is done is kept also where the rest was cancelled or failed.
            cache.write(&wanted, &table)?;
            computed?;
            let rate = missing.len() as f64 / began.elapsed().as_secs_f64().max(1e-3);
            tracing::info!(model = backbone.model, "{} records at {rate:.1} a second", missing.len());
        }
    }
    let dim = table.dim();
    let mut values = Vec::with_capacity(digests.len() * dim);
    for digest in &digests {
        values.extend_from_slice(table.row(first[digest]));
    }
    Ok(Features { dim, values })
}

/// Lets the model compute the `missing` places of the table, block by block.
#[expect(clippy::too_many_arguments, reason = "one loop, cut out for its length")]
fn fill(
    dataset: &Dataset,
    media: Media,
    rows: &[usize],
    missing: &[usize],
    wanted: &[Digest],
    extractor: &dyn Extract,
    cache: &Cache,
    table: &mut cache::Table,
    watch: Watch<'_>,
) -> Result<(), AgentError> {
    let began = Instant::now();
    let (mut logged, mut kept) = (began, began);
    let mut done = 0;
    for block in missing.chunks(BLOCK) {
        watch(done, missing.len())?;
        let features = extract(dataset, media, block.iter().map(|&place| rows[place]), extractor)?;
        if features.len() != block.len() * table.dim() {
            return Err(AgentError::Task("the model gave features of another size than it has".to_owned()));
        }
        for (&place, row) in block.iter().zip(features.chunks_exact(table.dim())) {
            table.set(place, row);
        }
        done += block.len();
        if logged.elapsed() > LOG_EVERY {
            logged = Instant::now();
            let rate = done as f64 / began.elapsed().as_secs_f64();
            tracing::info!("features: {done} of {} records, {rate:.1} a second", missing.len());
        }
        if kept.elapsed() > KEEP_EVERY {
            kept = Instant::now();
            cache.write(wanted, table)?;
        }
    }
    watch(done, missing.len())
}

fn extract(
    dataset: &Dataset,
    media: Media,
    rows: impl Iterator<Item = usize>,
    extractor: &dyn Extract,
) -> Result<Vec<f32>, AgentError> {
    match media {
        Media::Images(_) => {
            let images: Vec<_> = rows.filter_map(|row| dataset.image(row)).collect();
            extractor.images(&images)
        }
        Media::Texts => {
            let texts: Vec<_> = rows.filter_map(|row| dataset.text(row)).collect();
            extractor.texts(&texts)
        }
    }
}
