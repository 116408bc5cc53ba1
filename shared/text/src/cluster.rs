//! Spherical k-means: groups of texts that say similar things, so that a judge sees them side by side.
//!
//! On vectors of length one, with `1 - cosine` as distance and the mean direction as centre (Dhillon and Modha, 2001),
//! started by k-means++ (Arthur and Vassilvitskii, 2007). There `1 - cosine` is half the squared Euclidean distance, so
//! the weights of k-means++ are the usual ones.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::error::TextError;
use crate::random::unit;
use crate::vectors::{UnitVectors, cosine, mean_direction};

/// Most iterations by default.
pub const MAX_ITERATIONS: usize = 100;

/// Clusters for `n` texts by default, `ceil(n / 4)`: about four to a cluster, few enough for a judge to compare.
pub fn default_clusters(n: usize) -> usize {
    n.div_ceil(4)
}

/// What k-means found. Every vector is in the cluster whose centre is nearest, the first of equals, and no cluster is
/// empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// For each vector its cluster, `[N]`.
    pub assignment: Vec<usize>,
    /// The centres, `[k, D]`. There are fewer than were asked for where there are fewer distinct vectors.
    pub centres: UnitVectors,
    /// Sum of `1 - cosine` to the own centre after each iteration, never rising but for rounding.
    pub objective: Vec<f64>,
    /// Whether the last iteration moved no vector.
    pub converged: bool,
}

impl Clustering {
    /// The vectors of each cluster, `[k]`, in order.
    pub fn members(&self) -> Vec<Vec<usize>> {
        members(&self.assignment, self.centres.len())
    }
}

fn members(assignment: &[usize], k: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); k];
    assignment.iter().enumerate().for_each(|(index, &cluster)| members[cluster].push(index));
    members
}

/// Clusters `vectors`, `[N, D]`, into `k` groups, in at most `max_iterations`. The same vectors and seed give the same
/// clusters on every machine. A cluster that runs empty takes the vector that is farthest from its centre.
///
/// No vectors are no clusters. Errors: `k` is 0 or above `N`, no iteration is allowed.
pub fn k_means(
    vectors: &UnitVectors,
    k: usize,
    max_iterations: usize,
    seed: u64,
) -> Result<Clustering, TextError> {
    let n = vectors.len();
    if max_iterations == 0 {
        return Err(TextError::setting("max_iterations", "at least one is needed"));
    }
    if n > 0 && (k == 0 || k > n) {
        return Err(TextError::setting("k", format!("{k} clusters of {n} vectors; use 1 to {n}")));
    }
    let mut centres = first_centres(vectors, k, &mut ChaCha8Rng::seed_from_u64(seed));
    let mut objective = Vec::new();
    let mut before: Option<Vec<usize>> = None;
    loop {
        let nearest = settle(vectors, &mut centres);
        objective.push(nearest.iter().map(|near| near.distance).sum());
        let assignment: Vec<_> = nearest.into_iter().map(|near| near.cluster).collect();
        let converged = before.as_ref() == Some(&assignment);
        if converged || objective.len() == max_iterations {
            return Ok(Clustering { assignment, centres, objective, converged });
        }
        for (cluster, members) in members(&assignment, centres.len()).into_iter().enumerate() {
            // Vectors that cancel out have no direction, and every centre is as good for them as any other.
            if let Some(mean) = mean_direction(vectors, members.into_iter()) {
                centres.set(cluster, &mean);
            }
        }
        before = Some(assignment);
    }
}

/// A vector's nearest centre.
#[derive(Debug, Clone, Copy)]
struct Near {
    cluster: usize,
    distance: f64,
}

/// Closer than this two vectors are the same but for rounding.
const SAME: f64 = 1e-6;

fn distance(a: &[f32], b: &[f32]) -> f64 {
    (1.0 - cosine(a, b)).max(0.0)
}

fn nearest(row: &[f32], centres: &UnitVectors) -> Near {
    let distances =
        (0..centres.len()).map(|cluster| Near { cluster, distance: distance(row, centres.row(cluster)) });
    let first = Near { cluster: 0, distance: f64::INFINITY };
    distances.fold(first, |best, near| if near.distance < best.distance { near } else { best })
}

/// Vectors drawn with weights of their squared distance to those drawn before; as many as there are distinct ones.
fn first_centres(vectors: &UnitVectors, k: usize, rng: &mut ChaCha8Rng) -> UnitVectors {
    let mut centres = UnitVectors::empty(vectors.dim());
    let mut weights = vec![1.0_f64; vectors.len()];
    for _ in 0..k.min(vectors.len()) {
        let Some(drawn) = draw(&weights, unit(rng)) else { break };
        let centre = vectors.row(drawn);
        centres.push(centre);
        for (index, weight) in weights.iter_mut().enumerate() {
            let distance = distance(vectors.row(index), centre);
            *weight = weight.min(if distance > SAME { distance } else { 0.0 });
        }
    }
    centres
}

/// The index that `at`, in `[0, 1)`, falls on when each has a share of its weight; nothing where all weigh nothing.
fn draw(weights: &[f64], at: f64) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        *weight > 0.0 && sum > at * total
    });
    // Rounding may leave the sum just short of the total.
    reached.or_else(|| weights.iter().rposition(|weight| *weight > 0.0))
}

/// Assigns every vector to its nearest centre, after moving centres without vectors to the vector that is worst off.
/// Centres that no vector is left for are taken out.
fn settle(vectors: &UnitVectors, centres: &mut UnitVectors) -> Vec<Near> {
    let assign = |centres: &UnitVectors| -> Vec<Near> {
        (0..vectors.len()).map(|index| nearest(vectors.row(index), centres)).collect()
    };
    let mut near = assign(centres);
    // Each move lowers the objective; the bound is for rounding.
    for _ in 0..centres.len() {
        let Some(empty) = empty_clusters(&near, centres.len()).first().copied() else { return near };
        let worst = near.iter().enumerate().fold((0, SAME), |worst, (index, near)| {
            if near.distance > worst.1 { (index, near.distance) } else { worst }
        });
        if worst.1 <= SAME {
            break;
        }
        centres.set(empty, vectors.row(worst.0));
        near = assign(centres);
    }
    let empty = empty_clusters(&near, centres.len());
    if !empty.is_empty() {
        let mut used = UnitVectors::empty(vectors.dim());
        (0..centres.len())
            .filter(|cluster| !empty.contains(cluster))
            .for_each(|cluster| used.push(centres.row(cluster)));
        *centres = used;
        near = assign(centres);
    }
    near
}

fn empty_clusters(near: &[Near], k: usize) -> Vec<usize> {
    let mut used = vec![false; k];
    near.iter().for_each(|near| used[near.cluster] = true);
    (0..k).filter(|&cluster| !used[cluster]).collect()
}

#[cfg(test)]
mod tests;
