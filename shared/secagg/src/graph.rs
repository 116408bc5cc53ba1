//! Who shares masks with whom.
//!
//! To [`FULL_GRAPH`] sites everybody with everybody (Bonawitz et al., CCS 2017). Above, sites stand on a ring in an order
//! drawn from the roster's digest, and each is joined to the `k / 2` nearest on either side: a Harary graph, as in
//! SecAgg+ (Bell et al., CCS 2020, arXiv via eprint 2020/704).
//!
//! # Degree
//! A secret is shared over the closed neighbourhood, `n = k + 1` with the owner, at `t = floor(2 n / 3) + 1`. The degrees
//! in [`DEGREES`] are the least even numbers for which, with 10 % of the sites colluding with the coordinator and
//! another 10 % dropping out (both placed at random on the ring), exact tail sums give
//! - at most 2^-40 that any site has `t` colluding neighbours, who could open its vector (their definition 3.2, 1);
//! - at most 2^-40 that the ring falls apart at two gaps of `k / 2` (definition 3.2, 2: part sums would show);
//! - at most 2^-20 that any site has fewer than `t` neighbours left, which fails the round and reveals nothing (3).
//!
//! They are larger than `2 log2 K` mostly because of `t`: two thirds instead of a half. In return a coordinator that lies
//! about who dropped out cannot cut the ring, however it chooses: a site at the edge of a gap of `k / 2` keeps
//! `k / 2 + 1` of its closed neighbourhood, so `t - 1 - k / 2` of its neighbours must collude to open it
//! ([`Graph::tolerated_colluders`]).
//!
//! The order is drawn from the digest of all keys, so nobody chooses it; a coordinator with a colluding site can draw
//! again by changing that site's key, each try at the odds above.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::{Deserialize, Serialize};

/// Sites up to which everybody is everybody's neighbour.
pub const FULL_GRAPH: usize = 32;
/// Most sites, the range that the degrees were checked for.
pub const MAX_SITES: usize = 1024;
/// `(sites up to, degree)`.
pub const DEGREES: [(usize, usize); 8] =
    [(64, 24), (80, 28), (100, 34), (128, 42), (200, 54), (256, 60), (512, 76), (MAX_SITES, 84)];

/// Position of a site in the sorted roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Member(pub u16);

impl Member {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// `floor(2 n / 3) + 1`.
pub fn quorum(n: usize) -> usize {
    2 * n / 3 + 1
}

/// Neighbours that a site has among `sites`.
pub fn degree(sites: usize) -> usize {
    if sites <= FULL_GRAPH {
        return sites.saturating_sub(1);
    }
    let found = DEGREES.iter().find(|(up_to, _)| sites <= *up_to);
    found.map_or(sites - 1, |(_, degree)| *degree)
}

/// The neighbour graph of a roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    degree: usize,
    /// Members in ring order.
    ring: Vec<Member>,
    /// Place of each member on the ring.
    place: Vec<u16>,
}

impl Graph {
    /// The graph of `sites`, at most [`MAX_SITES`], in the order that `seed` gives.
    pub fn new(seed: [u8; 32], sites: usize) -> Self {
        let mut ring: Vec<Member> = (0..sites as u16).map(Member).collect();
        let mut draw = ChaCha20::new(&seed.into(), &[0; 12].into());
        // Fisher and Yates. Written out, since all parties must get the same order from every version.
        for last in (1..sites).rev() {
            ring.swap(last, below(&mut draw, last as u32 + 1) as usize);
        }
        let mut place = vec![0; sites];
        ring.iter().enumerate().for_each(|(at, member)| place[member.index()] = at as u16);
        Self { degree: degree(sites), ring, place }
    }

    /// Neighbours of every site.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// Shares needed to recover a secret.
    pub fn share_threshold(&self) -> usize {
        quorum(self.degree + 1)
    }

    /// Colluding sites with which a coordinator that lies about drop-outs still learns nothing but the sum of all.
    pub fn tolerated_colluders(&self) -> usize {
        if self.degree + 1 == self.ring.len() {
            // Full graph: two signed sets must share an honest signer.
            (self.ring.len() - 1) / 3
        } else {
            self.share_threshold().saturating_sub(2 + self.degree / 2)
        }
    }

    /// A member and its neighbours, ascending. The place in this list is the place of a share.
    pub fn closed_neighbourhood(&self, of: Member) -> Vec<Member> {
        let sites = self.ring.len();
        let mut members: Vec<Member> = if self.degree + 1 >= sites {
            self.ring.clone()
        } else {
            let first = usize::from(self.place[of.index()]) + sites - self.degree / 2;
            (first..=first + self.degree).map(|at| self.ring[at % sites]).collect()
        };
        members.sort_unstable();
        members
    }

    /// Whether two different members share a mask.
    pub fn adjacent(&self, a: Member, b: Member) -> bool {
        let sites = self.ring.len();
        let (a_place, b_place) = (usize::from(self.place[a.index()]), usize::from(self.place[b.index()]));
        let apart = a_place.abs_diff(b_place);
        a != b && (self.degree + 1 >= sites || apart.min(sites - apart) <= self.degree / 2)
    }
}

/// A number below `limit`, uniform.
fn below(draw: &mut ChaCha20, limit: u32) -> u32 {
    // The multiples of `limit` that fit; above them the remainder would be uneven.
    let even = u32::MAX - u32::MAX % limit;
    loop {
        let mut bytes = [0; 4];
        draw.apply_keystream(&mut bytes);
        let number = u32::from_le_bytes(bytes);
        if number < even {
            return number % limit;
        }
    }
}

#[cfg(test)]
mod tests;
