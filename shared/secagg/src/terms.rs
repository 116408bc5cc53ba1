use serde::{Deserialize, Serialize};

use crate::error::SecAggError;
use crate::graph::{MAX_SITES, quorum};
use crate::identity::Statement;
use crate::ring::Ring;

/// Longest vector, elements: 64 GiB of masks a peer.
pub const MAX_LENGTH: u64 = 1 << 33;

/// What a round is about. Every key, signature and sealed share is bound to all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The run.
    pub run: String,
    /// The round within the run; a round that failed is tried again under another number.
    pub round: u32,
    /// Digest of the plan that says what is computed.
    pub plan: [u8; 32],
    /// Elements of the vector.
    pub length: u64,
    /// The ring of the sum.
    pub ring: Ring,
    /// Fewest sites that may begin.
    pub min_cohort: u32,
    /// Fewest sites whose vectors may be in the sum; two thirds of those that began are needed in any case.
    pub min_survivors: u32,
}

impl Terms {
    /// Checks what can be checked before any site is known.
    pub fn validate(&self) -> Result<(), SecAggError> {
        let refuse = |field, reason| Err(SecAggError::Terms { field, reason });
        if self.run.is_empty() || self.run.len() > 255 {
            return refuse("run", format!("its name has {} bytes, allowed are 1 to 255", self.run.len()));
        }
        if self.length == 0 || self.length > MAX_LENGTH {
            return refuse("length", format!("{} is outside 1 to {MAX_LENGTH}", self.length));
        }
        // A ring read from outside has not passed its constructor.
        Ring::new(self.ring.bits())?;
        if self.min_cohort < 2 || self.min_cohort as usize > MAX_SITES {
            return refuse("min_cohort", format!("{} is outside 2 to {MAX_SITES}", self.min_cohort));
        }
        if self.min_survivors < 2 || self.min_survivors as usize > MAX_SITES {
            return refuse("min_survivors", format!("{} is outside 2 to {MAX_SITES}", self.min_survivors));
        }
        Ok(())
    }

    /// Sites that must have uploaded, and signatures over them, for a sum to be opened when `sites` began.
    ///
    /// At two thirds, two sets with enough signatures share an honest signer as long as fewer than a third of the
    /// sites collude, and an honest site signs one set only (Bonawitz et al., CCS 2017, section 6.2).
    pub fn survivors(&self, sites: usize) -> usize {
        quorum(sites).max(self.min_survivors as usize)
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        Statement::new("terms")
            .field(self.run.as_bytes())
            .number(u64::from(self.round))
            .field(&self.plan)
            .number(self.length)
            .number(u64::from(self.ring.bits()))
            .number(u64::from(self.min_cohort))
            .number(u64::from(self.min_survivors))
            .digest()
    }
}
