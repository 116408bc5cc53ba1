//! How Sheaf's processes reach one another: who a peer is ([`identity`]), TLS 1.3 with certificates of
//! the run's own authority ([`tls`], [`keys`], [`token`]), what a site signs ([`signature`]), channels that dial out ([`channel`]), blobs of
//! any size that resume where they were cut ([`transfer`], [`digest`]) and when to try again ([`retry`]).

pub mod channel;
pub mod digest;
pub mod identity;
pub mod keys;
pub mod retry;
pub mod signature;
pub mod tls;
pub mod token;
pub mod transfer;

/// HTTP/2 stream window, bytes. The default of 64 KiB to 1 MiB caps a 100 ms link at 10 MB/s.
pub const STREAM_WINDOW: u32 = 4 << 20;
/// HTTP/2 connection window, bytes.
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Header in which an agent repeats the site it believes to be; the coordinator refuses a call whose
/// header and certificate disagree before any handler sees it.
pub const SITE_HEADER: &str = "x-sheaf-site";
