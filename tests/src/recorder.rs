//! A proxy that reads along: it ends TLS on both sides, as the coordinator to a site and as that site to the coordinator,
//! and keeps every byte. Only a test can: it has the authority's key and the site's.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use sheaf_coordinator::identity::authority::{Authority, Usage};
use sheaf_transport::{
    identity::Identity,
    keys::{SecretKey, load_certificates},
    tls::{SwappableCertificate, client_config, server_config},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What went over the wire of one site, both ways, as it was before encryption.
pub struct Recorder {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    _end: DropGuard,
}

impl Recorder {
    /// Listens between the site whose home this is and the coordinator at a port, whose authority must be at hand.
    pub async fn between(site_home: &Path, authority: &Authority, coordinator: u16) -> Self {
        let key = SecretKey::generate().unwrap();
        let names = ["127.0.0.1".to_owned()];
        let leaf = authority
            .issue(&key, &Identity::Coordinator, &names, Usage::Server, Duration::from_hours(1))
            .unwrap();
        let certificate = SwappableCertificate::new(vec![leaf], &key.to_der()).unwrap();
        let acceptor = TlsAcceptor::from(server_config(certificate, authority.certificate()).unwrap());
        let as_site = client_of(site_home);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let end = CancellationToken::new();
        let (record, stop) = (Arc::clone(&heard), end.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((near, _)) = accepted else { continue };
                let (acceptor, as_site) = (acceptor.clone(), Arc::clone(&as_site));
                let (record, stop) = (Arc::clone(&record), stop.clone());
                tokio::spawn(async move {
                    let Ok(near) = acceptor.accept(near).await else { return };
                    let Ok(far) = TcpStream::connect(("127.0.0.1", coordinator)).await else { return };
                    let name = ServerName::try_from("127.0.0.1").unwrap();
                    let Ok(far) = TlsConnector::from(as_site).connect(name, far).await else { return };
                    let ((near_read, near_write), (far_read, far_write)) =
                        (tokio::io::split(near), tokio::io::split(far));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = pump(near_read, far_write, &record) => {}
                        () = pump(far_read, near_write, &record) => {}
                    }
                });
            }
        });
        Self { port, heard, _end: end.drop_guard() }
    }

    /// The address to dial.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Everything so far.
    pub fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }
}

/// Dials as the enrolled site does.
fn client_of(home: &Path) -> Arc<ClientConfig> {
    let pem = fs::read(home.join("identity.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap();
    let ca = load_certificates(&home.join("ca.pem")).unwrap().remove(0);
    client_config(SwappableCertificate::new(chain, &key).unwrap(), &ca).unwrap()
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, record: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        record.lock().unwrap().extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
