use thiserror::Error;

use crate::identity::SiteId;

/// The stages of a round, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Stage {
    /// Sites publish signed keys.
    Advertise,
    /// Sites deal sealed shares of their secrets.
    ShareKeys,
    /// Sites upload masked vectors.
    MaskedInput,
    /// Sites sign the set of those that uploaded.
    Consistency,
    /// Sites release the shares that open the sum.
    Unmask,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Advertise => "advertise",
            Self::ShareKeys => "share-keys",
            Self::MaskedInput => "masked-input",
            Self::Consistency => "consistency",
            Self::Unmask => "unmask",
        })
    }
}

/// Why a step was refused. Nothing has been revealed and no state has changed where an error is returned.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecAggError {
    /// A name that cannot be a site's.
    #[error("a site name has {0} bytes; use 1 to 255")]
    Name(usize),
    /// The terms of the round contradict themselves.
    #[error("the plan's {field} is not usable: {reason}")]
    Terms {
        /// The field.
        field: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// The plan protects less than the site asks for.
    #[error("the plan has {field} {plan}, this site accepts no less than {policy}; raise it in the plan")]
    Policy {
        /// Which protection.
        field: &'static str,
        /// What the plan says.
        plan: u32,
        /// What the site asks for.
        policy: u32,
    },
    /// Too few sites take part.
    #[error("{stage}: {got} sites where {needed} are needed; wait for more sites or start the run again")]
    TooFew {
        /// Where they were counted.
        stage: Stage,
        /// Sites there are.
        got: usize,
        /// Sites needed.
        needed: usize,
    },
    /// More sites than the protocol's parameters were chosen for.
    #[error("{got} sites are above the limit of {limit}; split the run")]
    TooMany {
        /// Sites there are.
        got: usize,
        /// Most sites.
        limit: usize,
    },
    /// A signature does not verify.
    #[error(
        "{stage}: the signature in the name of {site} does not verify; its keys or its vote may have been swapped on the way, find out before trying again"
    )]
    Signature {
        /// Which stage's signature.
        stage: Stage,
        /// In whose name.
        site: SiteId,
    },
    /// The signer could not sign.
    #[error("this site could not sign: {0}; check its identity key")]
    Signer(String),
    /// The roster is not one that honest sites can have made.
    #[error("the roster is refused: {reason}")]
    Roster {
        /// What is wrong.
        reason: String,
    },
    /// A message of another round, or for another site.
    #[error("{stage}: a message of {site} does not belong here: {reason}")]
    Message {
        /// The stage of the message.
        stage: Stage,
        /// Its sender.
        site: SiteId,
        /// What is wrong.
        reason: String,
    },
    /// A message names a position outside the roster.
    #[error("{stage}: position {member} is outside the roster of {sites}; the message is damaged")]
    Unknown {
        /// The stage of the message.
        stage: Stage,
        /// The position.
        member: u16,
        /// Sites in the roster.
        sites: usize,
    },
    /// A step out of order.
    #[error(
        "the {asked} stage cannot follow here, the round is at {at}; restart the round under a new number"
    )]
    Order {
        /// The step asked for.
        asked: Stage,
        /// The step the round is at.
        at: Stage,
    },
    /// A step was asked for again with other content.
    #[error("{stage}: {from} sent other content than before; a stage is answered once, start a new round")]
    Changed {
        /// The stage.
        stage: Stage,
        /// The site, or "the coordinator".
        from: String,
    },
    /// A sealed share does not open.
    #[error(
        "the sealed share from {from} does not open: tampered with, or meant for another round; the round cannot be trusted"
    )]
    Sealed {
        /// Who dealt it.
        from: SiteId,
    },
    /// Key agreement with a peer gave a constant.
    #[error(
        "the public key of {site} is of low order; its masks would be known to all, so the round is refused"
    )]
    WeakKey {
        /// The peer.
        site: SiteId,
    },
    /// Secret sharing was given parameters outside its range.
    #[error("cannot share or recover a secret of {site}: {reason}")]
    Sharing {
        /// Whose secret.
        site: SiteId,
        /// What is wrong.
        reason: String,
    },
    /// Too few shares came back to open the sum.
    #[error(
        "{got} shares for {site} where {needed} are needed, too many sites left; nothing was revealed, run a new round"
    )]
    NotEnoughShares {
        /// Whose secret.
        site: SiteId,
        /// Shares there are.
        got: usize,
        /// Shares needed.
        needed: usize,
    },
    /// Recovered bytes are not the secret that was committed to.
    #[error(
        "the shares for {site} do not give its secret: a neighbour sent a false one; run a new round without it"
    )]
    FalseShare {
        /// Whose secret.
        site: SiteId,
    },
    /// A vector of another length.
    #[error("a vector of {got} values where the plan says {expected}")]
    Length {
        /// Values by the plan.
        expected: u64,
        /// Values there are.
        got: u64,
    },
    /// A value so large that the sum over all sites could wrap.
    #[error(
        "value {index} is beyond +-{bound}, the sum over all sites could wrap; widen the ring or scale the data"
    )]
    OutOfRange {
        /// Place in the vector.
        index: usize,
        /// The largest magnitude allowed.
        bound: i64,
    },
    /// A real value that is NaN or infinite.
    #[error("value {index} is not finite; check the computation before it")]
    NotFinite {
        /// Place in the vector.
        index: usize,
    },
    /// The site has begun this round before and its state is gone.
    #[error(
        "round {round} of this run was begun before; go on from its saved state, or ask for a new round number"
    )]
    BegunBefore {
        /// The round.
        round: u32,
    },
    /// A peer uses a key it has used in another round.
    #[error("{site} uses a mask key of an earlier round; its secret may be known, so the round is refused")]
    ReusedKey {
        /// The peer.
        site: SiteId,
    },
    /// The sum would differ from an earlier one by too few sites.
    #[error(
        "the cohort differs from an earlier one over the same data by {differ} sites, fewer than {needed}: the difference of the two sums would single them out"
    )]
    Differencing {
        /// Sites in one cohort only.
        differ: usize,
        /// Fewest allowed.
        needed: usize,
    },
    /// The durable store failed; the message was not handed out.
    #[error("the state of the round could not be saved: {0}; nothing was sent, try the step again")]
    Store(String),
    /// Bytes that are not what they should be.
    #[error("{what} cannot be read: {reason}; it was damaged, or comes from another version of Sheaf")]
    Encoding {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
}
