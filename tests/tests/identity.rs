//! Promise: who may call what is decided by certificates before a handler is reached, a token is good once, and a
//! revocation holds from that moment.

use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use sheaf_coordinator::identity::authority::{Authority, Usage};
use sheaf_proto::v1::{
    AgentMessage, Hello, InfoRequest, InviteSiteRequest, RenewRequest, RevokeSiteRequest, StatRequest,
    TaskResult, agent_message, fleet_client::FleetClient, operator_client::OperatorClient,
    transfer_client::TransferClient,
};
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    raw::{self, RawSite, dial_with},
    site::Rules,
};
use sheaf_transport::{
    channel::{Caller, CallerChannel, dial},
    digest::blob_id,
    identity::{Identity, PeerCertificate},
    keys::{SecretKey, load_certificates},
    tls::enrolment_config,
    token::EnrolmentToken,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};

fn session_of(
    channel: CallerChannel,
) -> impl Future<Output = Result<tonic::Response<tonic::Streaming<sheaf_proto::v1::CoordinatorMessage>>, Status>>
{
    let hello = AgentMessage { body: Some(agent_message::Body::Hello(Hello::default())) };
    async move { FleetClient::new(channel).session(tokio_stream::iter([hello])).await }
}

/// The codes that every kind of call of a site gets.
async fn site_calls(channel: &CallerChannel) -> Vec<Code> {
    let code = |result: Result<(), Status>| result.map_or_else(|status| status.code(), |()| Code::Ok);
    let mut fleet = FleetClient::new(channel.clone());
    let mut transfer = TransferClient::new(channel.clone());
    let stat = StatRequest { blob: Some(blob_id(b"x").to_wire()) };
    vec![
        code(session_of(channel.clone()).await.map(drop)),
        code(fleet.submit_result(TaskResult::default()).await.map(drop)),
        code(fleet.renew(RenewRequest::default()).await.map(drop)),
        code(transfer.stat(stat).await.map(drop)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_the_revoked_reach_no_handler() {
    let cluster = Cluster::start(Kind::Here).await;
    let site = RawSite::enrol(&cluster, "a").await;
    let life = Duration::from_secs(3600);
    let identity = Identity::Site("a".parse().unwrap());

    // A certificate in the site's name, of another authority.
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::create(elsewhere.path()).unwrap();
    let key = SecretKey::generate().unwrap();
    let forged = foreign.issue(&key, &identity, &[], Usage::Client, life).unwrap();
    // TLS 1.3 lets a client finish before it is refused: then its first call fails.
    if let Ok(channel) = dial_with(&cluster.url(), &forged, &key, &site.ca).await {
        let error = session_of(Caller::default().on(channel)).await.unwrap_err();
        assert!(matches!(error.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{error}");
    }
    assert!(!cluster.operator.site("a").await.connected);

    // A certificate of the right authority that was never admitted.
    let own = Authority::open(&cluster.home().ca()).unwrap();
    let unknown = own.issue(&key, &identity, &[], Usage::Client, life).unwrap();
    let channel = dial_with(&cluster.url(), &unknown, &key, &site.ca).await.unwrap();
    let codes = site_calls(&Caller::default().on(channel)).await;
    assert_eq!(codes, [Code::Unauthenticated; 4]);
    // The coordinator's own name opens nothing either.
    let self_named = own.issue(&key, &Identity::Coordinator, &[], Usage::Client, life).unwrap();
    let channel = dial_with(&cluster.url(), &self_named, &key, &site.ca).await.unwrap();
    assert_eq!(site_calls(&Caller::default().on(channel)).await, [Code::Unauthenticated; 4]);

    // No certificate at all.
    let tls = enrolment_config(own.fingerprint()).unwrap();
    let nobody = Caller::default().on(dial(&cluster.url(), tls).await.unwrap());
    assert_eq!(site_calls(&nobody).await, [Code::Unauthenticated; 4]);
    let refused = OperatorClient::new(nobody).info(InfoRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    // Revoked.
    revoke(&cluster, "a").await;
    assert_eq!(site_calls(&site.channel).await, [Code::Unauthenticated; 4]);
    assert_eq!(cluster.hub().fleet.len(), 0, "nobody got a session");
    let site = cluster.operator.site("a").await;
    assert_eq!((site.status.as_str(), site.last_seen.as_str()), ("revoked", ""), "no handler noted a visit");
}

async fn revoke(cluster: &Cluster, name: &str) {
    let request = RevokeSiteRequest { name: name.to_owned() };
    cluster.operator.rpc.clone().revoke_site(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_keeps_to_its_own_calls() {
    let cluster = Cluster::start(Kind::Here).await;
    let (a, b) = (RawSite::enrol(&cluster, "a").await, RawSite::enrol(&cluster, "b").await);

    // A site in another's name.
    let refused = {
        let channel = Caller::site(&b.name).on(a.bare.clone());
        site_calls(&channel).await
    };
    assert_eq!(refused, [Code::PermissionDenied; 4]);
    assert_eq!(cluster.hub().fleet.len(), 0);

    // A site as an operator.
    let mut operator = OperatorClient::new(a.channel.clone());
    let invite = InviteSiteRequest { name: "c".to_owned(), valid_seconds: 0 };
    let revoke = RevokeSiteRequest { name: "b".to_owned() };
    assert_eq!(operator.info(InfoRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(operator.invite_site(invite).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(operator.revoke_site(revoke).await.unwrap_err().code(), Code::PermissionDenied);
    let names: Vec<_> = cluster.operator.sites().await.into_iter().map(|s| (s.name, s.status)).collect();
    let enrolled = |name: &str| (name.to_owned(), "enrolled".to_owned());
    assert_eq!(names, [enrolled("a"), enrolled("b")], "nothing changed");

    // An operator as a site: the Fleet is closed, blobs are not.
    let codes = site_calls(&cluster.operator.channel).await;
    assert_eq!(codes, [Code::PermissionDenied, Code::PermissionDenied, Code::PermissionDenied, Code::Ok]);
    assert_eq!(cluster.hub().fleet.len(), 0);

    // An enrolled site does not enrol again over its own connection.
    let again = sheaf_proto::v1::enrolment_client::EnrolmentClient::new(a.channel.clone())
        .enrol(sheaf_proto::v1::EnrolRequest::default())
        .await;
    assert_eq!(again.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_for_its_site_and_for_a_while() {
    let cluster = Cluster::start(Kind::Here).await;
    let request = || SecretKey::generate().unwrap().request().unwrap();
    let token: EnrolmentToken = cluster.operator.invite("a").await.parse().unwrap();

    // Garbled on the way: the text, the secret, the request.
    let text = cluster.operator.invite("a").await;
    assert!(text[..text.len() / 2].parse::<EnrolmentToken>().is_err());
    assert!(text.replace("sheaf1-", "sheaf2-").parse::<EnrolmentToken>().is_err());
    let newer: EnrolmentToken = text.parse().unwrap();
    let mut secret = newer.secret;
    secret[0] ^= 1;
    assert_eq!(raw::enrol(&newer, &secret, request()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(raw::enrol(&newer, b"", request()).await.unwrap_err().code(), Code::PermissionDenied);
    let no_request = raw::enrol(&newer, &newer.secret, b"no request".to_vec()).await;
    assert_eq!(no_request.unwrap_err().code(), Code::InvalidArgument);
    // Replaced by the newer invitation.
    assert_eq!(
        raw::enrol(&token, &token.secret, request()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(cluster.operator.site("a").await.status, "invited");

    // Good once; the same request gets the same answer, for the first one may have been lost.
    let csr = request();
    let first = raw::enrol(&newer, &newer.secret, csr.clone()).await.unwrap();
    let again = raw::enrol(&newer, &newer.secret, csr).await.unwrap();
    assert_eq!(first.certificate_der, again.certificate_der);
    assert_eq!(
        raw::enrol(&newer, &newer.secret, request()).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    // A request cannot choose its name: the certificate is of the invited site.
    let certificate = PeerCertificate::from_der(&first.certificate_der).unwrap();
    assert_eq!(certificate.identity, Identity::Site("a".parse().unwrap()));

    // Expired.
    let brief = InviteSiteRequest { name: "b".to_owned(), valid_seconds: 1 };
    let brief = cluster.operator.rpc.clone().invite_site(brief).await.unwrap();
    let brief: EnrolmentToken = brief.into_inner().token.parse().unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let expired = raw::enrol(&brief, &brief.secret, request()).await.unwrap_err();
    assert_eq!(expired.code(), Code::PermissionDenied);
    assert!(expired.message().contains("expired"), "{expired}");

    // A server that is not the token's authority is not spoken to.
    let mut misled = brief;
    misled.ca_fingerprint[0] ^= 1;
    let tls = enrolment_config(misled.ca_fingerprint).unwrap();
    assert!(dial(&misled.url, tls).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_an_open_session_at_once() {
    let study = features(200, 6, 2, 61, "quorum = 1");
    let sites = study.deal(2);
    let cluster = Cluster::with_sites(Kind::Here, &study, &sites[..1]).await;
    let raw = RawSite::enrol(&cluster, "leaver").await;
    let mut session = raw.session().await.unwrap();
    cluster.operator.submit(&study.plan, "run").await;
    let task = session.task("survey").await;
    let began = Instant::now();
    revoke(&cluster, "leaver").await;
    while let Ok(Some(_)) = session.next().await {}
    assert!(began.elapsed() < Duration::from_secs(2), "the session went on for {:?}", began.elapsed());
    let answer = raw.submit(&task, blob_id(b"x")).await.unwrap_err();
    assert_eq!(answer.code(), Code::Unauthenticated);
    assert_eq!(raw.session().await.err().unwrap().code(), Code::Unauthenticated);
    // The run that waited for it goes on without it.
    assert_eq!(cluster.operator.done("run").await, study.hash_of_sites(&sites[..1]));
    let detail = cluster.operator.show("run").await.unwrap();
    let (how, why) = sheaf_tests::operator::member(&detail, "leaver");
    assert_eq!(how, "declined");
    assert!(why.contains("revoked"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_not_spoken() {
    let cluster = Cluster::start(Kind::Here).await;
    // A ClientHello of TLS 1.2: ECDHE suites, P-256 and X25519, no supported_versions extension.
    let extensions: &[&[u8]] =
        &[&[0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17], &[0, 11, 0, 2, 1, 0], &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4]];
    let extensions = extensions.concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend([0, 8, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 1, 0]);
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend((hello.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", cluster.port())).await.unwrap();
    tcp.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    // Record type 21 (alert), fatal (2), protocol_version (70).
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_without_a_restart() {
    let life = Duration::from_secs(12);
    let mut cluster = Cluster::start_with(Kind::Here, |config| config.certificate_life = life).await;
    let study = features(200, 6, 2, 62, "");
    let sites = study.deal(2);
    for site in &sites {
        cluster.join(&study, site, &Rules::default()).await;
        cluster.operator.connected(&site.name, true).await;
    }
    let certificate = |cluster: &Cluster, name: &str| {
        let file = cluster.sites[name].config().home.join("identity.pem");
        PeerCertificate::from_der(&load_certificates(&file).unwrap()[0]).unwrap()
    };
    let names: Vec<_> = sites.iter().map(|site| site.name.clone()).collect();
    let before: Vec<_> = names.iter().map(|name| certificate(&cluster, name)).collect();
    let listed = cluster.operator.site(&names[0]).await.certificate_expires_at;
    tokio::time::sleep(Duration::from_secs(15)).await;
    for (name, old) in names.iter().zip(&before) {
        let new = certificate(&cluster, name);
        assert_ne!(new.serial, old.serial, "{name} has a new certificate");
        assert!(new.not_after > old.not_after);
        assert!(cluster.operator.site(name).await.connected, "{name} is connected");
    }
    assert_ne!(cluster.operator.site(&names[0]).await.certificate_expires_at, listed);
    cluster.operator.submit(&study.plan, "run").await;
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
    // The first certificates have ended: a new connection is made with the new ones.
    cluster.down().await;
    cluster.up().await;
    for name in &names {
        cluster.operator.connected(name, true).await;
    }
}

#[test]
fn a_key_and_a_certificate_of_another_do_not_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let (mine, theirs) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let identity = Identity::Site("a".parse().unwrap());
    let certificate: CertificateDer<'static> =
        authority.issue(&theirs, &identity, &[], Usage::Client, Duration::from_secs(60)).unwrap();
    assert!(sheaf_transport::tls::SwappableCertificate::new(vec![certificate], &mine.to_der()).is_err());
}
