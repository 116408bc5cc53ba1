//! A gRPC channel over TLS, dialled from here to the coordinator.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{CONNECTION_WINDOW, SITE_HEADER, STREAM_WINDOW, identity::SiteName};

/// A channel whose calls say which site the caller believes to be.
pub type CallerChannel = InterceptedService<Channel, Caller>;

/// Adds [`SITE_HEADER`] to every call of an agent; an operator's calls carry none.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<MetadataValue<Ascii>>);

impl Caller {
    /// Calls in the name of a site.
    pub fn site(name: &SiteName) -> Self {
        Self(MetadataValue::try_from(name.as_str()).ok())
    }

    /// Wraps a channel.
    pub fn on(self, channel: Channel) -> CallerChannel {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(site) = &self.0 {
            request.metadata_mut().insert(SITE_HEADER, site.clone());
        }
        Ok(request)
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a coordinator could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not an https address with a host and a port.
    #[error("`{0}` is no coordinator address; write https://host:port")]
    Address(String),
    /// TCP or TLS failed.
    #[error("cannot reach the coordinator at {url}: {reason}")]
    Connect {
        /// Address dialled.
        url: String,
        /// The innermost cause.
        reason: String,
    },
}

/// Dials `url` (`https://host:port`). TLS is made here rather than by tonic, so that a renewed
/// certificate is used by the next connection and the enrolling side can pin its authority.
pub async fn dial(url: &str, tls: Arc<ClientConfig>) -> Result<Channel, DialError> {
    let bad = || DialError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("https") || uri.host().is_none() {
        return Err(bad());
    }
    // The connector speaks TLS itself: to tonic the stream is a plain one.
    let endpoint = Endpoint::from_shared(format!("http://{}", uri.authority().ok_or_else(bad)?))
        .map_err(|_| bad())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connector = TlsConnector::from(tls);
    let connect = service_fn(move |uri: Uri| {
        let connector = connector.clone();
        async move { connect_tls(&uri, &connector).await.map(TokioIo::new) }
    });
    endpoint
        .connect_with_connector(connect)
        .await
        .map_err(|e| DialError::Connect { url: url.to_owned(), reason: innermost(&e) })
}

async fn connect_tls(
    uri: &Uri,
    connector: &TlsConnector,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    connector.connect(name, tcp).await
}

/// The cause at the bottom of an error's chain: "connection refused", "invalid peer certificate", ...
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
