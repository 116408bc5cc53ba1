//! Secure aggregation: the coordinator learns the sum of the sites' integer vectors and no vector of a site.
//!
//! Double masking (Bonawitz et al., CCS 2017) over the neighbour graph of SecAgg+ (Bell et al., CCS 2020), in five stages:
//!
//! ```text
//!  site                                         coordinator
//!  Site::begin ──────────── Advert ───────────► Server::advert      keys, signed by the site's identity
//!  Site::share_keys ◄────── Roster ──────────── Server::close_adverts
//!              └─────────── KeyShares ────────► Server::shares      shares of two secrets, sealed for neighbours
//!  Site::mask ◄──────────── Inbox ───────────── Server::close_shares, inbox
//!              └─────────── MaskedInput ──────► Server::input       vector + self-mask ± pairwise masks
//!  Site::consistency ◄───── Uploaded ────────── Server::close_inputs
//!              └─────────── Vote ─────────────► Server::vote        signature over the one set of uploads
//!  Site::unmask ◄────────── UnmaskRequest ───── Server::close_votes
//!              └─────────── UnmaskShares ─────► Server::answer      of survivors the seed, of others the key
//!                                               Server::finish      the sum
//! ```
//!
//! Sites may drop out at every stage as long as two thirds stay. Masks cancel or are recovered to the last bit, so the sum
//! equals the plain integer sum.
//!
//! The crate is pure: no input or output, no clock, no entropy of its own. What must survive a crash goes through
//! [`SiteStore`] before a message is handed out.

mod codec;
mod cohort;
mod error;
mod fixed_point;
mod graph;
mod history;
mod identity;
mod keys;
pub mod mask;
mod message;
mod packing;
mod policy;
mod ring;
mod seal;
mod server;
mod shamir;
mod site;
mod terms;

pub use codec::Wire;
pub use cohort::Cohort;
pub use error::{SecAggError, Stage};
pub use fixed_point::FixedPoint;
pub use graph::{DEGREES, FULL_GRAPH, Graph, MAX_SITES, Member, degree, quorum};
pub use history::{History, Subject};
pub use identity::{Signer, SiteId, Verifier};
pub use message::{
    Advert, Inbox, KeyShares, MaskedInput, OpenShare, Roster, SealedShares, UnmaskRequest, UnmaskShares,
    Uploaded, Vote,
};
pub use policy::SitePolicy;
pub use ring::{Ring, add};
pub use seal::SEALED_LEN;
pub use server::{Server, Sum};
pub use site::{Site, SiteStore, Task};
pub use terms::{MAX_LENGTH, Terms};
