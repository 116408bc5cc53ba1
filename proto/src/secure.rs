//! The documents of a secure sum (`sheaf_secagg`): five phases in which the coordinator learns the sum of the sites'
//! vectors and no vector of a site.
//!
//! | phase of base `sums` | input | answer |
//! |---|---|---|
//! | `sums.advertise` | what the workload needs | [`Introduction`] |
//! | `sums.shares` | [`Register`] | `KeyShares` |
//! | `sums.input` | what the workload needs, then an `Inbox`, one for each site | `MaskedInput` |
//! | `sums.vote` | `Uploaded` | `Vote` |
//! | `sums.unmask` | `UnmaskRequest`, [`Register`] | `UnmaskShares` |
//!
//! Specifications are JSON: the workload's own, as for the phase that the sum stands for, and beside it [`SecureSpec`]
//! under the name `secure`. Inputs and answers are in the byte form of `sheaf_secagg::Wire`.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sheaf_secagg::{Advert, Roster, SecAggError, Stage, Terms, Wire};

use crate::BlobId;

/// All stages, in order.
pub const STAGES: [Stage; 5] =
    [Stage::Advertise, Stage::ShareKeys, Stage::MaskedInput, Stage::Consistency, Stage::Unmask];

/// What one stage asks of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureSpec {
    /// What the sum is about; the same in all five stages.
    pub terms: Terms,
    /// Which stage.
    pub stage: Stage,
    /// The coordinator's state that answers are checked against; none in the first stage. Sites do not need it and
    /// cannot fetch it. Here it makes two questions differ that follow from different answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BlobId>,
}

/// A stage's specification with the workload's own beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecurePhase<S> {
    /// The stage.
    pub secure: SecureSpec,
    /// What the workload would ask for without secure aggregation.
    #[serde(flatten)]
    pub spec: S,
}

/// The part of a specification that says whether it is a stage of a secure sum.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MaybeSecure {
    /// The stage; none for an ordinary phase.
    #[serde(default)]
    pub secure: Option<SecureSpec>,
}

/// A site's keys of this round, and `C`, what shows whose signature is under them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction<C> {
    /// The keys.
    pub advert: Advert,
    /// Credentials of the signing key.
    pub credentials: C,
}

/// The keys of all sites that take part, and what shows whose signatures are under them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register<C> {
    /// The keys.
    pub roster: Roster,
    /// Credentials, in the roster's order.
    pub credentials: Vec<C>,
}

impl<C: Serialize + DeserializeOwned> Wire for Introduction<C> {
    const NAME: &'static str = "an introduction";
}

impl<C: Serialize + DeserializeOwned> Wire for Register<C> {
    const NAME: &'static str = "a register";

    fn from_bytes(bytes: &[u8]) -> Result<Self, SecAggError> {
        let document = RegisterBytes::from_bytes(bytes)?;
        let (sites, credentials) = (document.roster.adverts.len(), document.credentials.len());
        if sites == credentials {
            return Ok(Self { roster: document.roster, credentials: document.credentials });
        }
        let reason = format!("it has credentials of {credentials} sites and keys of {sites}");
        Err(SecAggError::Encoding { what: Self::NAME, reason })
    }
}

/// The form of a [`Register`] alone.
#[derive(Serialize, Deserialize)]
struct RegisterBytes<C> {
    roster: Roster,
    credentials: Vec<C>,
}

impl<C: Serialize + DeserializeOwned> Wire for RegisterBytes<C> {
    const NAME: &'static str = "a register";
}

/// The name of a stage's phase.
pub fn phase(base: &str, stage: Stage) -> String {
    format!("{base}.{}", suffix(stage))
}

/// Reads a phase's name: of which sum it is a stage, and which; none for an ordinary phase.
pub fn parse(name: &str) -> Option<(&str, Stage)> {
    let (base, end) = name.rsplit_once('.')?;
    STAGES.into_iter().find(|stage| suffix(*stage) == end).map(|stage| (base, stage))
}

/// The stage after this one.
pub fn following(stage: Stage) -> Option<Stage> {
    STAGES.into_iter().find(|later| *later > stage)
}

const fn suffix(stage: Stage) -> &'static str {
    match stage {
        Stage::Advertise => "advertise",
        Stage::ShareKeys => "shares",
        Stage::MaskedInput => "input",
        Stage::Consistency => "vote",
        Stage::Unmask => "unmask",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_names_that_read_back() {
        for stage in STAGES {
            assert_eq!(parse(&phase("round-3", stage)), Some(("round-3", stage)));
        }
        for name in ["sums", "sums.", "sums.sums", "survey"] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(following(Stage::Advertise), Some(Stage::ShareKeys));
        assert_eq!(following(Stage::Unmask), None);
    }

    #[test]
    fn a_register_names_credentials_for_every_site() {
        let register = Register { roster: Roster { adverts: Vec::new() }, credentials: vec!["x".to_owned()] };
        let error = Register::<String>::from_bytes(&register.to_bytes().unwrap()).unwrap_err();
        assert!(error.to_string().contains("1 sites and keys of 0"), "{error}");
    }
}
