//! Who this site is to the coordinator: one file with key and certificate, another with what is trusted.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use sheaf_proto::v1::{
    EnrolRequest, RenewRequest, enrolment_client::EnrolmentClient, fleet_client::FleetClient,
};
use sheaf_transport::{
    channel::{CallerChannel, dial},
    identity::{PeerCertificate, SiteName},
    keys::{
        SecretKey, certificate_pem, create_private_folder, load_certificates, save_certificates,
        write_private,
    },
    signature::{Credentials, SigningKey},
    tls::{SwappableCertificate, client_config, enrolment_config, fingerprint},
    token::EnrolmentToken,
};

use crate::{VERSION, config::Config, error::AgentError};

/// What enrolment leaves in the home: `site.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Profile {
    /// This site's name at the coordinator.
    pub site: SiteName,
    /// The coordinator's address.
    pub url: String,
}

/// An enrolled site's identity, loaded.
pub struct Identity {
    home: PathBuf,
    /// Name and coordinator.
    pub profile: Profile,
    certificate: Arc<SwappableCertificate>,
    ca: CertificateDer<'static>,
    signing: SigningKey,
}

fn identity_error(error: impl std::fmt::Display) -> AgentError {
    AgentError::Identity(error.to_string())
}

fn key_file(home: &Path) -> PathBuf {
    home.join("identity.pem")
}

/// The authority's certificate, as fetched while enrolling: its fingerprint for people to compare.
pub struct Enrolled {
    /// Name and coordinator.
    pub profile: Profile,
    /// SHA-256 of the authority's certificate, hexadecimal.
    pub ca_fingerprint: String,
}

/// Trades a token for a certificate. The key is made here and stays here; run again after a broken link, it
/// uses the same key, for which the coordinator gives the same answer.
///
/// # Errors
/// This home is enrolled already, or the coordinator cannot be reached or refuses the token.
pub async fn enrol(token: &EnrolmentToken, config: &Config) -> Result<Enrolled, AgentError> {
    let home = &config.home;
    if key_file(home).exists() {
        return Err(AgentError::Identity(format!(
            "{} is enrolled already; to enrol anew, have the operator revoke the site, then move {} away",
            home.display(),
            key_file(home).display()
        )));
    }
    create_private_folder(home).map_err(identity_error)?;
    // The same request after a broken link: the coordinator answers a token's first request only.
    let (request_file, request_key) = (home.join("request.der"), home.join("request.key.pem"));
    let (key, csr) = if request_file.exists() && request_key.exists() {
        (
            SecretKey::load(&request_key).map_err(identity_error)?,
            fs::read(&request_file).map_err(AgentError::file(&request_file))?,
        )
    } else {
        let key = SecretKey::generate().map_err(identity_error)?;
        let csr = key.request().map_err(identity_error)?;
        key.save(&request_key).map_err(identity_error)?;
        write_private(&request_file, &csr).map_err(identity_error)?;
        (key, csr)
    };
    let url = config.url.clone().unwrap_or_else(|| token.url.clone());
    let tls = enrolment_config(token.ca_fingerprint).map_err(identity_error)?;
    let channel = dial(&url, tls).await.map_err(|e| AgentError::Link(e.to_string()))?;
    let request = EnrolRequest {
        token_secret: token.secret.to_vec().into(),
        csr_der: csr.into(),
        agent_version: VERSION.to_owned(),
    };
    let answer = EnrolmentClient::new(channel)
        .enrol(request)
        .await
        .map_err(|status| {
            AgentError::Link(format!("the coordinator did not enrol this site: {}", status.message()))
        })?
        .into_inner();
    if fingerprint(&answer.ca_der) != token.ca_fingerprint {
        return Err(AgentError::Identity(
            "the coordinator's authority is not the one of the token".to_owned(),
        ));
    }
    let certificate = CertificateDer::from(answer.certificate_der.to_vec());
    let site = answer.site.parse().map_err(identity_error)?;
    let profile = Profile { site, url };
    let text = toml::to_string(&profile).map_err(identity_error)?;
    save_certificates(&home.join("ca.pem"), &[CertificateDer::from(answer.ca_der.to_vec())])
        .and_then(|()| write_private(&home.join("site.toml"), text.as_bytes()))
        .and_then(|()| write_identity(home, &key, &certificate))
        .map_err(identity_error)?;
    for file in [request_file, request_key] {
        fs::remove_file(&file).map_err(AgentError::file(&file))?;
    }
    Ok(Enrolled { profile, ca_fingerprint: hex::encode(token.ca_fingerprint) })
}

/// Key and certificate in one file, so that a renewal replaces both or neither.
fn write_identity(
    home: &Path,
    key: &SecretKey,
    certificate: &CertificateDer<'_>,
) -> Result<(), sheaf_transport::keys::KeyError> {
    let text = format!("{}{}", key.pair().serialize_pem(), certificate_pem(certificate));
    write_private(&key_file(home), text.as_bytes())
}

impl Identity {
    /// Loads the identity of a home.
    pub fn load(config: &Config) -> Result<Self, AgentError> {
        let home = config.home.clone();
        let missing = |e: &dyn std::fmt::Display| {
            AgentError::Identity(format!(
                "this site is not enrolled ({e}); ask the operator for a token and run `sheaf-agent enroll TOKEN`"
            ))
        };
        let file = key_file(&home);
        let pem = fs::read(&file).map_err(|e| missing(&format!("{}: {e}", file.display())))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| missing(&e))?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| missing(&e))?;
        let profile_file = home.join("site.toml");
        let profile = fs::read_to_string(&profile_file).map_err(|e| missing(&e))?;
        let mut profile: Profile = toml::from_str(&profile).map_err(|e| missing(&e))?;
        if let Some(url) = &config.url {
            profile.url.clone_from(url);
        }
        let ca = load_certificates(&home.join("ca.pem")).map_err(|e| missing(&e))?.remove(0);
        let certificate = SwappableCertificate::new(chain, &key).map_err(identity_error)?;
        let signing = SigningKey::open(&home.join("signing.pem")).map_err(identity_error)?;
        Ok(Self { home, profile, certificate, ca, signing })
    }

    /// The configuration of connections to the coordinator.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, AgentError> {
        client_config(Arc::clone(&self.certificate), &self.ca).map_err(identity_error)
    }

    /// The certificate in use.
    pub fn certificate(&self) -> Result<PeerCertificate, AgentError> {
        PeerCertificate::from_der(&self.certificate.leaf()).map_err(identity_error)
    }

    /// What signs for this site beyond the life of a certificate.
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// What shows others that the signing key is this site's.
    pub fn credentials(&self) -> Result<Credentials, AgentError> {
        self.signing.credentials(&self.certificate).map_err(identity_error)
    }

    /// The authority's certificate, DER.
    pub fn authority(&self) -> &[u8] {
        &self.ca
    }

    /// SHA-256 of the authority's certificate, hexadecimal.
    pub fn ca_fingerprint(&self) -> String {
        hex::encode(fingerprint(&self.ca))
    }

    /// Gets a new certificate for a new key and uses it from the next connection on.
    pub async fn renew(&self, channel: CallerChannel) -> Result<(), AgentError> {
        let key = SecretKey::generate().map_err(identity_error)?;
        let request = RenewRequest { csr_der: key.request().map_err(identity_error)?.into() };
        let answer = FleetClient::new(channel)
            .renew(request)
            .await
            .map_err(|status| AgentError::Link(format!("renewal: {}", status.message())))?;
        let certificate = CertificateDer::from(answer.into_inner().certificate_der.to_vec());
        write_identity(&self.home, &key, &certificate).map_err(identity_error)?;
        self.certificate.replace(vec![certificate], &key.to_der()).map_err(identity_error)
    }
}
