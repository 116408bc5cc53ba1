//! What a site says a run has cost it, signed by the site: checked when it comes, kept in the journal, shown in the report.

use serde::{Deserialize, Serialize};
use sheaf_privacy::ledger::{Head, Statement};
use sheaf_proto::v1::SpendStatement;
use sheaf_transport::{identity::SiteName, signature::Credentials};

use crate::error::Error;

/// The longest statement, bytes: a run of many reservations has many events.
const LONGEST: usize = 1 << 20;

/// A statement as it came. It can be checked again at any time, by anyone who has the authority's certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignedStatement {
    /// The bytes that are signed: a header line, then a JSON document.
    pub text: String,
    /// ECDSA P-256 with SHA-256, ASN.1, hexadecimal.
    pub signature: String,
    /// The signing key and who vouches for it.
    pub credentials: Credentials,
}

/// A statement that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Spend {
    /// What it says.
    pub statement: Statement,
    /// As it came.
    pub signed: SignedStatement,
}

impl Spend {
    /// Reads and checks what a site sent with an answer of a run.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`]: not readable, of another run or site, a signature that does not hold.
    pub fn read(
        message: &SpendStatement,
        run_id: &str,
        site: &SiteName,
        authority: &[u8],
    ) -> Result<Self, Error> {
        if message.statement.len() > LONGEST || message.credentials.len() > LONGEST {
            return Err(invalid("it is too long"));
        }
        let credentials: Credentials = serde_json::from_slice(&message.credentials).map_err(invalid)?;
        let text = String::from_utf8(message.statement.to_vec()).map_err(invalid)?;
        let signed = SignedStatement { text, signature: hex::encode(&message.signature), credentials };
        let statement = signed.check(site, authority)?;
        if statement.run.as_str() != run_id {
            return Err(invalid(format!("it is about run {}", statement.run)));
        }
        Ok(Self { statement, signed })
    }

    /// The newest entry of the site's ledger at that moment.
    pub const fn head(&self) -> Head {
        self.statement.head
    }
}

impl SignedStatement {
    /// What it says, if the site of this name signed it.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`].
    pub fn check(&self, site: &SiteName, authority: &[u8]) -> Result<Statement, Error> {
        let signer = self.credentials.site(authority).map_err(invalid)?;
        if signer != *site {
            return Err(invalid(format!("site {signer} signed it, not {site}")));
        }
        let signature = hex::decode(&self.signature).map_err(invalid)?;
        if !self.credentials.verify(self.text.as_bytes(), &signature) {
            return Err(invalid("its signature does not hold"));
        }
        Statement::from_bytes(self.text.as_bytes()).map_err(invalid)
    }
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the statement of spent privacy: {error}"))
}
