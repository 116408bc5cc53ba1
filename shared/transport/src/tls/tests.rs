//! Handshakes over a pipe in memory: who gets through to whom.

use std::{io, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const HOST: &str = "coordinator.example";

/// An authority of a test.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate and its key.
struct Leaf {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::from_ca_cert_der(&der, key).unwrap();
        Self { issuer, der }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose, change: impl Fn(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf {
            der: params.signed_by(&key, &self.issuer).unwrap().der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    fn server(&self) -> Leaf {
        self.issue(ExtendedKeyUsagePurpose::ServerAuth, |_| {})
    }

    fn client(&self) -> Arc<SwappableCertificate> {
        let leaf = self.issue(ExtendedKeyUsagePurpose::ClientAuth, |_| {});
        SwappableCertificate::new(vec![leaf.der], &leaf.key).unwrap()
    }

    fn pin(&self) -> Arc<ClientConfig> {
        enrolment_config(fingerprint(&self.der)).unwrap()
    }
}

/// A server of authority `ca` that shows this certificate and, after it, `chain`.
fn serve(ca: &Ca, leaf: &Leaf, chain: &[&Ca]) -> Arc<ServerConfig> {
    let mut shown = vec![leaf.der.clone()];
    shown.extend(chain.iter().map(|ca| ca.der.clone()));
    server_config(SwappableCertificate::new(shown, &leaf.key).unwrap(), &ca.der).unwrap()
}

/// What each side made of the other's certificate.
struct Met {
    client: io::Result<CertificateDer<'static>>,
    server: io::Result<Option<CertificateDer<'static>>>,
}

impl Met {
    fn refused(&self) -> String {
        assert!(self.server.is_err(), "the server must not think that all is well");
        self.client.as_ref().unwrap_err().to_string()
    }
}

async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>, host: &str) -> Met {
    let (here, there) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let first = |certificates: Option<&[CertificateDer<'_>]>| {
        certificates.and_then(|chain| chain.first().map(|der| der.clone().into_owned()))
    };
    // Both streams stay open until both handshakes have ended.
    let (client, server) =
        tokio::join!(TlsConnector::from(client).connect(name, here), TlsAcceptor::from(server).accept(there));
    if let Ok(stream) = &server {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN_H2));
    }
    Met {
        client: client
            .as_ref()
            .map(|stream| first(stream.get_ref().1.peer_certificates()).unwrap())
            .map_err(|e| io::Error::new(e.kind(), e.to_string())),
        server: server
            .as_ref()
            .map(|stream| first(stream.get_ref().1.peer_certificates()))
            .map_err(|e| io::Error::new(e.kind(), e.to_string())),
    }
}

#[tokio::test]
async fn an_enrolling_site_trusts_the_authority_of_its_token_alone() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let leaf = ours.server();
    let met = meet(ours.pin(), serve(&ours, &leaf, &[&ours]), HOST).await;
    assert_eq!(met.client.unwrap(), leaf.der);
    assert_eq!(met.server.unwrap(), None, "it has no certificate yet");

    let stranger = theirs.server();
    let met = meet(ours.pin(), serve(&theirs, &stranger, &[&theirs]), HOST).await;
    assert!(met.refused().contains("UnknownIssuer"), "another authority");
    let met = meet(ours.pin(), serve(&ours, &leaf, &[]), HOST).await;
    assert!(met.refused().contains("UnknownIssuer"), "a chain without the authority");
    // The authority's certificate is public: anybody can put it behind a certificate of their own.
    for chain in [&[&ours][..], &[&ours, &theirs], &[&theirs, &ours]] {
        let met = meet(ours.pin(), serve(&theirs, &stranger, chain), HOST).await;
        assert!(met.refused().contains("certificate"), "{} certificates", chain.len());
    }
}

#[tokio::test]
async fn an_enrolling_site_checks_name_time_and_purpose_too() {
    let ca = Ca::new();
    let (yesterday, last_week) = (days_ago(1), days_ago(7));
    let expired = ca.issue(ExtendedKeyUsagePurpose::ServerAuth, |params| {
        params.not_before = last_week.into();
        params.not_after = yesterday.into();
    });
    let client = ca.issue(ExtendedKeyUsagePurpose::ClientAuth, |_| {});
    for (leaf, host, what) in [
        (&ca.server(), "elsewhere.example", "another host's"),
        (&expired, HOST, "expired"),
        (&client, HOST, "a site's"),
    ] {
        let met = meet(ca.pin(), serve(&ca, leaf, &[&ca]), host).await;
        assert!(met.refused().contains("certificate"), "{what}");
        let sure = client_config(ca.client(), &ca.der).unwrap();
        let met = meet(sure, serve(&ca, leaf, &[&ca]), host).await;
        assert!(met.refused().contains("certificate"), "{what}, after enrolment");
    }
}

fn days_ago(days: u64) -> std::time::SystemTime {
    std::time::SystemTime::now() - Duration::from_secs(days * 86_400)
}

#[tokio::test]
async fn both_sides_know_each_other_after_enrolment() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (site, leaf) = (ours.client(), ours.server());
    let config = client_config(Arc::clone(&site), &ours.der).unwrap();
    let met = meet(Arc::clone(&config), serve(&ours, &leaf, &[]), HOST).await;
    assert_eq!(met.client.unwrap(), leaf.der);
    assert_eq!(met.server.unwrap(), Some(site.leaf()));

    let met = meet(config, serve(&theirs, &theirs.server(), &[&theirs]), HOST).await;
    met.refused();
    // In TLS 1.3 the client has finished before the server looks at its certificate.
    let stranger = client_config(theirs.client(), &ours.der).unwrap();
    let met = meet(stranger, serve(&ours, &leaf, &[]), HOST).await;
    assert!(met.server.unwrap_err().to_string().contains("certificate"));
    // A server's certificate does not make a site.
    let server = SwappableCertificate::new(vec![leaf.der.clone()], &leaf.key).unwrap();
    let met = meet(client_config(server, &ours.der).unwrap(), serve(&ours, &leaf, &[]), HOST).await;
    assert!(met.server.is_err());
}

#[tokio::test]
async fn a_replaced_certificate_is_used_by_the_next_handshake_on_either_side() {
    let ca = Ca::new();
    let (old, new, other) = (ca.server(), ca.server(), ca.server());
    let shown = SwappableCertificate::new(vec![old.der.clone()], &old.key).unwrap();
    let server = server_config(Arc::clone(&shown), &ca.der).unwrap();
    let site = ca.client();
    let client = client_config(Arc::clone(&site), &ca.der).unwrap();
    let before = meet(Arc::clone(&client), Arc::clone(&server), HOST).await;
    assert_eq!(before.client.unwrap(), old.der);
    let first = site.leaf();
    assert_eq!(before.server.unwrap().as_ref(), Some(&first));

    shown.replace(vec![new.der.clone()], &new.key).unwrap();
    let renewed = ca.issue(ExtendedKeyUsagePurpose::ClientAuth, |_| {});
    site.replace(vec![renewed.der.clone()], &renewed.key).unwrap();
    let after = meet(Arc::clone(&client), Arc::clone(&server), HOST).await;
    assert_eq!(after.client.unwrap(), new.der, "without a resumed session");
    assert_eq!(after.server.unwrap(), Some(renewed.der));

    assert!(shown.replace(vec![old.der], &other.key).is_err(), "not its key");
    assert!(shown.replace(Vec::new(), &other.key).is_err(), "no certificate");
    assert_eq!(shown.leaf(), new.der, "and the old one stays");
}
