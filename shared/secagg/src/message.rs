//! What travels. Senders are not in the messages: the channel authenticates them.

use serde::{Deserialize, Serialize};

use crate::graph::Member;
use crate::identity::SiteId;

/// A site's keys of this round, signed with its identity. Site to coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// Whose keys.
    pub site: SiteId,
    /// X25519 key that pairwise masks come from.
    pub mask_key: [u8; 32],
    /// X25519 key that shares are sealed with.
    pub seal_key: [u8; 32],
    /// By the site's identity, over the terms and both keys.
    pub signature: Vec<u8>,
}

/// All keys, ordered by site. Coordinator to every site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// In ascending order of `site`.
    pub adverts: Vec<Advert>,
}

/// A pair of shares sealed for one neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedShares {
    /// The receiver in [`KeyShares`], the sender in [`Inbox`].
    pub peer: Member,
    /// [`crate::SEALED_LEN`] bytes.
    pub bytes: Vec<u8>,
}

/// What a site deals. Site to coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShares {
    /// SHA-256 over the self-mask's seed, so that a false share shows when the seed is recovered.
    pub commitment: [u8; 32],
    /// One for each neighbour.
    pub sealed: Vec<SealedShares>,
}

/// What a site's neighbours dealt it. A neighbour that is not in it has dropped out. Coordinator to one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbox {
    /// One of each neighbour that dealt.
    pub sealed: Vec<SealedShares>,
}

/// A masked vector. Site to coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedInput {
    /// Elements of the ring, bits densely packed, least significant first.
    pub packed: Vec<u8>,
}

/// The sites whose vectors arrived. Coordinator to every site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// In ascending order.
    pub members: Vec<Member>,
}

/// A site's signature over the uploaded set, of which it signs one only. Site to coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// By the site's identity.
    pub signature: Vec<u8>,
}

/// Proof that enough sites signed the same set. Coordinator to every site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmaskRequest {
    /// The set.
    pub members: Vec<Member>,
    /// Signatures over it, by members of it.
    pub votes: Vec<(Member, Vec<u8>)>,
}

/// A share of another site's secret, or of the sender's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenShare {
    /// Whose secret.
    pub of: Member,
    /// The share.
    pub bytes: [u8; 32],
}

/// What opens the sum. Site to coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnmaskShares {
    /// Of the self-mask's seed, for each neighbour that uploaded, and the sender's own.
    pub seeds: Vec<OpenShare>,
    /// Of the mask key, for each neighbour that dealt and did not upload.
    pub keys: Vec<OpenShare>,
}
