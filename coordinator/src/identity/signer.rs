//! Signs the manifests of reports with a key of its own, certified by the authority.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use sheaf_transport::{
    identity::Identity,
    keys::{SecretKey, certificate_pem, load_certificates, save_certificates},
    tls::fingerprint,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority::{Authority, Usage};
use crate::error::Error;

const LIFE: Duration = Duration::from_hours(87600);

/// A signing key and the certificates that vouch for it.
pub struct Signer {
    key: EcdsaKeyPair,
    chain_pem: Vec<String>,
}

/// A detached signature with all that is needed to check it but the authority's fingerprint.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Signature {
    /// Always `ECDSA_P256_SHA256`.
    pub algorithm: String,
    /// Base64 of the ASN.1 signature.
    pub value: String,
    /// PEM: the signer's certificate, then the authority's.
    pub certificates: Vec<String>,
}

impl Signer {
    /// Makes the key in `folder` and certifies it.
    pub fn create(folder: &Path, authority: &Authority) -> Result<(), Error> {
        let key = SecretKey::generate().map_err(|e| Error::bug(e.to_string()))?;
        let leaf = authority.issue(&key, &Identity::Coordinator, &[], Usage::Signing, LIFE)?;
        save_certificates(&folder.join("report.cert.pem"), &[leaf, authority.certificate().clone()])
            .and_then(|()| key.save(&folder.join("report.key.pem")))
            .map_err(|e| Error::transient(e.to_string()))
    }

    /// Reads the key that [`Signer::create`] made.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let missing = |e: sheaf_transport::keys::KeyError| Error::not_found(e.to_string());
        let pair = SecretKey::load(&folder.join("report.key.pem")).map_err(missing)?;
        let chain = load_certificates(&folder.join("report.cert.pem")).map_err(missing)?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            pair.pair().serialized_der(),
            &SystemRandom::new(),
        )
        .map_err(|e| Error::corrupt(format!("the report key cannot be used: {e}")))?;
        Ok(Self { key, chain_pem: chain.iter().map(|der| certificate_pem(der)).collect() })
    }

    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> Result<Signature, Error> {
        let signature =
            self.key.sign(&SystemRandom::new(), bytes).map_err(|_| Error::bug("signing failed"))?;
        Ok(Signature {
            algorithm: "ECDSA_P256_SHA256".to_owned(),
            value: STANDARD.encode(signature),
            certificates: self.chain_pem.clone(),
        })
    }
}

impl Signature {
    /// Checks the signature and the certificate chain; gives back the authority's fingerprint (SHA-256,
    /// hexadecimal), which the reader compares with the one of the coordinator they trust.
    pub fn verify(&self, bytes: &[u8]) -> Result<String, Error> {
        let bad = |what: &str| Error::corrupt(format!("the signature does not hold: {what}"));
        let mut chain = Vec::new();
        for text in &self.certificates {
            let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes())
                .map_err(|_| bad("a certificate is not PEM"))?;
            chain.push(pem.contents);
        }
        let [leaf_der, ca_der] = chain.as_slice() else {
            return Err(bad("two certificates are needed"));
        };
        let (_, leaf) =
            X509Certificate::from_der(leaf_der).map_err(|_| bad("the certificate cannot be read"))?;
        let (_, ca) = X509Certificate::from_der(ca_der).map_err(|_| bad("the certificate cannot be read"))?;
        let ca_key =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &ca.public_key().subject_public_key.data);
        ca_key
            .verify(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data)
            .map_err(|_| bad("the signer's certificate is not the authority's"))?;
        let value = STANDARD.decode(&self.value).map_err(|_| bad("it is not base64"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &leaf.public_key().subject_public_key.data)
            .verify(bytes, &value)
            .map_err(|_| bad("the content was changed"))?;
        Ok(hex::encode(fingerprint(ca_der)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_authority_alone() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::create(one.path()).unwrap();
        Signer::create(one.path(), &authority).unwrap();
        Signer::create(two.path(), &Authority::create(two.path()).unwrap()).unwrap();
        let signature = Signer::open(one.path()).unwrap().sign(b"manifest").unwrap();
        assert_eq!(signature.verify(b"manifest").unwrap(), hex::encode(authority.fingerprint()));
        assert!(signature.verify(b"manifesT").is_err());
        let other = Signer::open(two.path()).unwrap().sign(b"manifest").unwrap();
        let mut mixed = signature;
        mixed.certificates[1].clone_from(&other.certificates[1]);
        assert!(mixed.verify(b"manifest").is_err());
    }
}
