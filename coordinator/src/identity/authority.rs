//! The certificate authority: made once by `sheaf init`, never re-minted.

use std::{fs, path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sheaf_transport::{
    identity::{BACKDATE_S, Identity, PeerCertificate},
    keys::{SecretKey, load_certificates, save_certificates},
    tls::fingerprint,
};
use time::OffsetDateTime;

use crate::error::Error;

const CA_LIFE: Duration = Duration::from_hours(175_200);

/// Issues certificates under one self-signed root.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Which handshakes a certificate may be used in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Agents and operators.
    Client,
    /// The coordinator.
    Server,
    /// Manifests of reports.
    Signing,
}

impl Authority {
    /// Makes the authority's key and root certificate in `folder`.
    ///
    /// # Errors
    /// There is one already: it is never replaced, since every site's trust hangs on it.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let key_file = folder.join("ca.key.pem");
        if key_file.exists() {
            return Err(Error::conflict(format!(
                "{} exists: this home already has its authority, and a new one would lock out every enrolled site",
                key_file.display()
            )));
        }
        fs::create_dir_all(folder)?;
        let key = SecretKey::generate().map_err(|e| Error::bug(e.to_string()))?;
        let mut params = params("Sheaf certificate authority", CA_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(key.pair()).map_err(crypto)?;
        save_certificates(&folder.join("ca.cert.pem"), &[certificate.der().clone()])
            .and_then(|()| key.save(&key_file))
            .map_err(|e| Error::transient(e.to_string()))?;
        Self::open(folder)
    }

    /// Reads the authority of a home.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let file = |e: sheaf_transport::keys::KeyError| {
            Error::not_found(format!("{e}; a new coordinator home is made by `sheaf init`"))
        };
        let key = SecretKey::load(&folder.join("ca.key.pem")).map_err(file)?;
        let certificate = load_certificates(&folder.join("ca.cert.pem")).map_err(file)?.remove(0);
        let pair = KeyPair::from_pem(&key.pair().serialize_pem()).map_err(crypto)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).map_err(crypto)?;
        Ok(Self { issuer, certificate })
    }

    /// The root certificate, DER.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the root certificate: what tokens carry and people compare.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// Signs a site's or an operator's request. Of the request only the public key is used: names and
    /// powers are what the authority says.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] when the request is not a request or its signature is wrong.
    pub fn sign_request(
        &self,
        request_der: &[u8],
        identity: &Identity,
        life: Duration,
    ) -> Result<CertificateDer<'static>, Error> {
        let request = CertificateSigningRequestDer::from(request_der);
        let mut request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|e| Error::invalid(format!("the certificate request cannot be used: {e}")))?;
        request.params = leaf(identity, &[], Usage::Client, life)?;
        Ok(request.signed_by(&self.issuer).map_err(crypto)?.der().clone())
    }

    /// Issues a certificate for a key held here. `names` are DNS names or addresses (servers only).
    pub fn issue(
        &self,
        key: &SecretKey,
        identity: &Identity,
        names: &[String],
        usage: Usage,
        life: Duration,
    ) -> Result<CertificateDer<'static>, Error> {
        let params = leaf(identity, names, usage, life)?;
        Ok(params.signed_by(key.pair(), &self.issuer).map_err(crypto)?.der().clone())
    }

    /// Reads what was just issued.
    pub fn read(der: &CertificateDer<'_>) -> Result<PeerCertificate, Error> {
        Ok(PeerCertificate::from_der(der)?)
    }
}

fn leaf(
    identity: &Identity,
    names: &[String],
    usage: Usage,
    life: Duration,
) -> Result<CertificateParams, Error> {
    let mut leaf = params("Sheaf", life)?;
    leaf.subject_alt_names = CertificateParams::new(names.to_vec())
        .map_err(|e| Error::invalid(format!("a server name cannot stand in a certificate: {e}")))?
        .subject_alt_names;
    let uri = identity.uri().try_into().map_err(crypto)?;
    leaf.subject_alt_names.push(SanType::URI(uri));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = match usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Signing => Vec::new(),
    };
    leaf.use_authority_key_identifier_extension = true;
    Ok(leaf)
}

fn params(common_name: &str, life: Duration) -> Result<CertificateParams, Error> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - time::Duration::seconds(BACKDATE_S);
    params.not_after = now + life;
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::bug("the system has no random numbers"))?;
    serial[0] &= 0x7f; // a positive DER integer keeps its 16 bytes
    serial[0] |= 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn crypto(error: rcgen::Error) -> Error {
    Error::bug(format!("certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_signs_what_it_says_itself() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        assert!(Authority::create(folder.path()).is_err());
        let again = Authority::open(folder.path()).unwrap();
        assert_eq!(authority.fingerprint(), again.fingerprint());

        let key = SecretKey::generate().unwrap();
        let site = Identity::Site("a".parse().unwrap());
        let life = Duration::from_secs(3600);
        let der = again.sign_request(&key.request().unwrap(), &site, life).unwrap();
        let read = Authority::read(&der).unwrap();
        assert_eq!(read.identity, site);
        assert_eq!(read.serial.len(), 32);
        assert_eq!(read.not_after - read.not_before, 3600 + 300);

        let mut forged = key.request().unwrap();
        let end = forged.len() - 3;
        forged[end] ^= 1;
        assert!(again.sign_request(&forged, &site, life).is_err());
        assert!(again.sign_request(b"rubbish", &site, life).is_err());
    }
}
