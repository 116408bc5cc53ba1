//! What a site says a run has cost it, signed by the site: checked when it comes, kept in the journal, shown in the report.

use serde::{Deserialize, Serialize};
use sheaf_privacy::ledger::{Head, Statement};
use sheaf_proto::v1::SpendStatement;
use sheaf_transport::{identity::SiteName, signature::Credentials};

use crate::error::Error;

/// The longest statement, bytes: a run of many reservations has many events.
const LONGEST: usize = 1 << 20;
/// First line of what is signed.
const HEADER: &[u8] = b"sheaf-spend-statement-1\n";

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
        let invalid =
            |e: &dyn std::fmt::Display| Error::invalid(format!("the statement of spent privacy: {e}"));
        if message.statement.len() > LONGEST || message.credentials.len() > LONGEST {
            return Err(invalid(&"it is too long"));
        }
        let credentials: Credentials =
            serde_json::from_slice(&message.credentials).map_err(|e| invalid(&e))?;
        let text = String::from_utf8(message.statement.to_vec()).map_err(|e| invalid(&e))?;
        let signed = SignedStatement { text, signature: hex::encode(&message.signature), credentials };
        let statement = signed.check(site, authority)?;
        if statement.run.as_str() != run_id {
            return Err(invalid(&format!("it is about run {}", statement.run)));
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
        let invalid =
            |e: &dyn std::fmt::Display| Error::invalid(format!("the statement of spent privacy: {e}"));
        let signer = self.credentials.site(authority).map_err(|e| invalid(&e))?;
        if signer != *site {
            return Err(invalid(&format!("site {signer} signed it, not {site}")));
        }
        let signature = hex::decode(&self.signature).map_err(|e| invalid(&e))?;
        if !self.credentials.verify(self.text.as_bytes(), &signature) {
            return Err(invalid(&"its signature does not hold"));
        }
        let body =
            self.text.as_bytes().strip_prefix(HEADER).ok_or_else(|| invalid(&"it lacks its header"))?;
        serde_json::from_slice(body).map_err(|e| invalid(&e))
    }
}
