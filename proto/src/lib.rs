//! The wire of Sheaf: package `sheaf.v1`, generated from the files under `proto/sheaf/v1`, its
//! descriptor, and the checked conversions between messages and domain types.
//!
//! Compatibility: fields are only ever added. A newer peer's unknown fields are ignored by an older one,
//! and a field an older peer does not send reads as its default, which always means "as before".
//! `tests/api.rs` compares the descriptor with `snapshot/sheaf.v1.txt`.

pub mod afl;
mod blob_id;
pub mod fdkt;
pub mod fedavg;
pub mod model;
pub mod privacy;
pub mod rewardds;
pub mod secure;

pub use blob_id::{BlobId, BlobIdError};

/// Generated messages, clients and servers of `sheaf.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("sheaf.v1");
}

/// The encoded `FileDescriptorSet` of the package, for the access table's test and the API snapshot.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Chunk of a blob as this version sends it, bytes: large enough for 1 GB/s on loopback, small enough for flat
/// memory and a prompt resume. A peer may send others up to [`MESSAGE_BYTES`].
pub const CHUNK_BYTES: usize = 1 << 18;

/// Receive limit of every message, bytes.
pub const MESSAGE_BYTES: usize = 4 << 20;
