//! The listening side: TLS, the access layer, the services, and an orderly end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use sheaf_proto::{
    MESSAGE_BYTES,
    v1::{
        enrolment_server::EnrolmentServer, fleet_server::FleetServer, operator_server::OperatorServer,
        transfer_server::TransferServer,
    },
};
use sheaf_transport::{
    CONNECTION_WINDOW, STREAM_WINDOW,
    identity::Identity,
    keys::SecretKey,
    tls::{SwappableCertificate, server_config},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::{
    authz::AuthorisationLayer, enrolment::EnrolmentService, fleet::FleetService, operator::OperatorService,
    transfer::TransferService,
};
use crate::{
    error::Error,
    hub::Hub,
    identity::authority::{Authority, Usage},
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// After the end is called for, open calls get this long.
const DRAIN: Duration = Duration::from_secs(5);
/// Handshakes that may be done but not yet taken up.
const ACCEPTED: usize = 64;
/// Life of the server's own certificate; a new one is made at two thirds, without a restart.
const SERVER_LIFE: Duration = Duration::from_hours(720);
/// Plans are text written by people.
const PLAN_BYTES: usize = 16 << 20;

/// A coordinator that is bound to its address but does not serve yet.
pub struct BoundServer {
    hub: Arc<Hub>,
    listener: TcpListener,
}

impl BoundServer {
    /// Binds the configured address.
    pub async fn bind(hub: Arc<Hub>) -> Result<Self, Error> {
        let listen = hub.config.listen;
        let listener = TcpListener::bind(listen).await.map_err(|e| {
            Error::conflict(format!("cannot listen on {listen}: {e}; is another coordinator running there?"))
        })?;
        Ok(Self { hub, listener })
    }

    /// The address, with the port the system chose when port 0 was asked for.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until the hub's shutdown token is cancelled, then lets open calls and journal entries end.
    pub async fn serve(self) -> Result<(), Error> {
        let hub = self.hub;
        let certificate = issue_server_certificate(&hub)?;
        let tls = server_config(Arc::clone(&certificate), hub.desk.authority.certificate())
            .map_err(|e| Error::bug(e.to_string()))?;
        let (accepted, incoming) = mpsc::channel(ACCEPTED);
        tokio::spawn(accept(self.listener, TlsAcceptor::from(tls), accepted, Arc::clone(&hub)));
        tokio::spawn(renew_server_certificate(Arc::clone(&hub), certificate));
        let shutdown = hub.shutdown.clone();
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .layer(AuthorisationLayer(Arc::clone(&hub.desk.admitted)))
            .add_service(
                EnrolmentServer::new(EnrolmentService(Arc::clone(&hub))).max_decoding_message_size(1 << 16),
            )
            .add_service(
                FleetServer::new(FleetService(Arc::clone(&hub))).max_decoding_message_size(MESSAGE_BYTES),
            )
            .add_service(
                TransferServer::new(TransferService::new(Arc::clone(&hub)))
                    .max_decoding_message_size(MESSAGE_BYTES),
            )
            .add_service(
                OperatorServer::new(OperatorService(Arc::clone(&hub))).max_decoding_message_size(PLAN_BYTES),
            )
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown.clone().cancelled_owned());
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let served = tokio::select! {
            served = server => served.map_err(|e| Error::bug(format!("the server ended: {e}"))),
            // An open stream that does not end must not hold the process.
            () = late => Ok(()),
        };
        shutdown.cancel();
        hub.ended().await;
        served
    }
}

/// Does TLS handshakes beside one another, so that a slow one holds up nobody.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
    hub: Arc<Hub>,
) {
    loop {
        let connection = tokio::select! {
            () = hub.shutdown.cancelled() => return,
            connection = listener.accept() => connection,
        };
        match connection {
            Ok((tcp, peer)) => {
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    drop(tcp.set_nodelay(true));
                    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
                        Ok(Ok(stream)) => drop(accepted.send(Ok(stream)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake refused: {error}"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, say: wait for some to come back rather than spin.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn issue_server_certificate(hub: &Hub) -> Result<Arc<SwappableCertificate>, Error> {
    let (key, chain) = server_chain(hub)?;
    SwappableCertificate::new(chain, &key.to_der()).map_err(|e| Error::bug(e.to_string()))
}

fn server_chain(hub: &Hub) -> Result<(SecretKey, Vec<rustls::pki_types::CertificateDer<'static>>), Error> {
    let key = SecretKey::generate().map_err(|e| Error::bug(e.to_string()))?;
    let authority: &Authority = &hub.desk.authority;
    let leaf =
        authority.issue(&key, &Identity::Coordinator, &hub.config.names, Usage::Server, SERVER_LIFE)?;
    // The root goes along: an enrolling site knows it by its fingerprint only.
    Ok((key, vec![leaf, authority.certificate().clone()]))
}

async fn renew_server_certificate(hub: Arc<Hub>, certificate: Arc<SwappableCertificate>) {
    loop {
        tokio::select! {
            () = hub.shutdown.cancelled() => return,
            () = tokio::time::sleep(SERVER_LIFE * 2 / 3) => {}
        }
        let renewed = server_chain(&hub).and_then(|(key, chain)| {
            certificate.replace(chain, &key.to_der()).map_err(|e| Error::bug(e.to_string()))
        });
        match renewed {
            Ok(()) => tracing::info!("the server's certificate was renewed"),
            Err(error) => tracing::error!("the server's certificate cannot be renewed: {error}"),
        }
    }
}
