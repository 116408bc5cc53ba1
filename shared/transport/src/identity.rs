//! Who a certificate speaks for: one URI subject alternative name, `sheaf://<role>/<name>`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Clocks of sites may lag: certificates are valid from this long before they are made, seconds.
pub const BACKDATE_S: i64 = 300;

/// A site's name: 1 to 63 of `a-z 0-9 - _ .`, first a letter or a digit; so it is a safe file name and DNS-like.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SiteName(String);

/// Why an identity was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    /// A name outside the alphabet or length.
    #[error(
        "`{0}` cannot name a site: use 1 to 63 of a-z, 0-9, '-', '_', '.', beginning with a letter or digit"
    )]
    Name(String),
    /// Not an X.509 certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Certificate(String),
    /// A certificate without exactly one `sheaf://` URI.
    #[error(
        "the peer's certificate names no Sheaf identity (one URI subject alternative name sheaf://<role>/<name>)"
    )]
    NoIdentity,
}

impl SiteName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.len() <= 63 && text.starts_with(first) && text.chars().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::Name(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for SiteName {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SiteName> for String {
    fn from(name: SiteName) -> Self {
        name.0
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The holder of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// An agent at a data-holding site.
    Site(SiteName),
    /// A person or script that runs studies.
    Operator(SiteName),
    /// The coordinator itself.
    Coordinator,
}

impl Identity {
    /// The URI that stands in the certificate.
    pub fn uri(&self) -> String {
        match self {
            Self::Site(name) => format!("sheaf://site/{name}"),
            Self::Operator(name) => format!("sheaf://operator/{name}"),
            Self::Coordinator => "sheaf://coordinator".to_owned(),
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        match uri.strip_prefix("sheaf://")?.split_once('/') {
            None => (uri == "sheaf://coordinator").then_some(Self::Coordinator),
            Some(("site", name)) => name.parse().ok().map(Self::Site),
            Some(("operator", name)) => name.parse().ok().map(Self::Operator),
            Some(_) => None,
        }
    }
}

/// What the coordinator needs of a peer's verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whom it speaks for.
    pub identity: Identity,
    /// Serial number, hexadecimal; what revocation is keyed by.
    pub serial: String,
    /// End of validity, Unix seconds.
    pub not_after: i64,
    /// Start of validity, Unix seconds.
    pub not_before: i64,
}

impl PeerCertificate {
    /// Reads a DER certificate whose chain TLS has already verified.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| IdentityError::Certificate(e.to_string()))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| IdentityError::Certificate(e.to_string()))?
            .ok_or(IdentityError::NoIdentity)?;
        let mut identities = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Identity::from_uri(uri),
            _ => None,
        });
        match (identities.next(), identities.next()) {
            (Some(identity), None) => Ok(Self {
                identity,
                serial: hex::encode(certificate.raw_serial()),
                not_after: certificate.validity().not_after.timestamp(),
                not_before: certificate.validity().not_before.timestamp(),
            }),
            _ => Err(IdentityError::NoIdentity),
        }
    }

    /// When to renew: after two thirds of the certificate's life, Unix seconds.
    pub const fn renew_at(&self) -> i64 {
        self.not_after - (self.not_after - self.not_before - BACKDATE_S) / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_files_and_uris() {
        for good in ["a", "va-long-beach", "site-0001", "3com", "st.gallen_2"] {
            assert!(good.parse::<SiteName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "a b", "ü", &"x".repeat(64)] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn uris_round_trip_and_strangers_have_no_role() {
        let site = Identity::Site("a".parse().unwrap());
        for identity in [site, Identity::Operator("op".parse().unwrap()), Identity::Coordinator] {
            assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
        }
        for uri in ["sheaf://root/x", "https://site/a", "sheaf://site/", "sheaf://site/../x", "sheaf://"] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
    }
}
