//! The single-use enrolment token an operator hands to a site: where to dial, whom to trust, and a
//! secret that the coordinator will take once.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::identity::SiteName;

const PREFIX: &str = "sheaf1-";
const FIXED: usize = 32 + 32 + 1;

/// An enrolment token. Its `Debug` form leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// Proof of the invitation, 32 random bytes; the coordinator stores only its hash.
    pub secret: [u8; 32],
    /// SHA-256 of the authority's certificate (DER): the site trusts nothing else while it enrols.
    pub ca_fingerprint: [u8; 32],
    /// The name the operator gave the site.
    pub site: SiteName,
    /// The coordinator's address, `https://host:port`.
    pub url: String,
}

/// A token that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "this is no Sheaf enrolment token ({0}); ask the operator for the whole line that `sheaf site invite` printed"
)]
pub struct TokenError(&'static str);

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.site.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(FIXED + name.len() + self.url.len());
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.ca_fingerprint);
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(self.url.as_bytes());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentToken")
            .field("site", &self.site)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError("it does not begin with sheaf1-"))?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError("it is damaged"))?;
        let short = TokenError("it is cut short");
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(TokenError("it is cut short"))?;
        let (name, url) = rest.split_at_checked(usize::from(fixed[FIXED - 1])).ok_or(short)?;
        let utf8 = |part: &[u8]| String::from_utf8(part.to_vec()).map_err(|_| TokenError("it is damaged"));
        let url = utf8(url)?;
        if !url.starts_with("https://") {
            return Err(TokenError("it carries no https address"));
        }
        let array = |part: &[u8]| <[u8; 32]>::try_from(part).map_err(|_| TokenError("it is cut short"));
        Ok(Self {
            secret: array(&fixed[..32])?,
            ca_fingerprint: array(&fixed[32..64])?,
            site: utf8(name)?.parse().map_err(|_| TokenError("its site name is not valid"))?,
            url,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(secret: [u8; 32], ca_fingerprint: [u8; 32], site in "[a-z][a-z0-9-]{0,20}", port: u16) {
            let token = EnrolmentToken {
                secret, ca_fingerprint, site: site.parse().unwrap(), url: format!("https://host.example:{port}"),
            };
            prop_assert_eq!(token.to_string().parse::<EnrolmentToken>().unwrap(), token);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in ".{0,200}", bytes: Vec<u8>) {
            prop_assert!(text.parse::<EnrolmentToken>().is_err());
            let _ = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).parse::<EnrolmentToken>();
        }
    }
}
