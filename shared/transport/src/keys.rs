//! Private keys and the files they live in. A key is made where it is used and never travels.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

/// Trouble with a key or its file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not PEM, or not of the kind expected.
    #[error("{path}: not a readable PEM {what}; restore the file from a backup or enrol again")]
    Pem {
        /// The file.
        path: PathBuf,
        /// "key" or "certificate".
        what: &'static str,
    },
    /// The generator or the signer failed.
    #[error("cannot make a key or sign a request: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// A private key (ECDSA P-256) that can sign a request for a certificate.
pub struct SecretKey(KeyPair);

impl SecretKey {
    /// A fresh key from the system's generator.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Reads a key that [`SecretKey::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = fs::read_to_string(path).map_err(|source| KeyError::File { path: path.into(), source })?;
        KeyPair::from_pem(&pem).map(Self).map_err(|_| KeyError::Pem { path: path.into(), what: "key" })
    }

    /// Writes the key so that only its owner can read it, durably.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        write_private(path, self.0.serialize_pem().as_bytes())
    }

    /// A certificate signing request (PKCS #10, DER). The name in it is advice: the authority decides.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let params = CertificateParams::new(Vec::<String>::new())?;
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// The key in the form TLS takes.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// The key pair, for signing certificates and manifests.
    pub const fn pair(&self) -> &KeyPair {
        &self.0
    }
}

/// Reads the certificates of a PEM file, leaf first.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    let bytes = fs::read(path).map_err(|source| KeyError::File { path: path.into(), source })?;
    let bad = || KeyError::Pem { path: path.into(), what: "certificate" };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|_| bad())?;
    if chain.is_empty() { Err(bad()) } else { Ok(chain) }
}

/// Writes certificates as PEM, leaf first, durably.
pub fn save_certificates(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(), KeyError> {
    let text: String = chain.iter().map(|der| certificate_pem(der)).collect();
    write_private(path, text.as_bytes())
}

/// One certificate as PEM text.
pub fn certificate_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// Makes a folder, with those above it, that only its owner can look into.
pub fn create_private_folder(path: &Path) -> Result<(), KeyError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| KeyError::File { path: path.into(), source })
}

/// Replaces a file atomically with mode 0600 and waits until it is on the disk.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.into(), source };
    let staged = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&staged).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&staged, path).map_err(failed)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}
