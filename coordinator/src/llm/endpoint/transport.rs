//! HTTP/1.1 with TLS: one request, one whole answer, within a time.

use std::{
    error::Error as StdError,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, crypto::ring, version::TLS13};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::address::Address;
use crate::{VERSION, error::Error, llm::LlmError};

/// Largest answer that is read, bytes: far more than a model writes.
const LARGEST: usize = 16 << 20;
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept; servers close theirs after a minute or so.
const IDLE: Duration = Duration::from_secs(30);

/// A whole answer.
pub(super) struct Response {
    pub(super) status: StatusCode,
    /// How long the server wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// Connections to a server.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl Transport {
    /// Trusts Mozilla's roots.
    pub(super) fn new(timeout: Duration) -> Result<Self, Error> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| Error::bug(format!("TLS set-up: {e}")))?
            .with_webpki_roots()
            .with_no_client_auth();
        Ok(Self::with_tls(tls, timeout))
    }

    pub(super) fn with_tls(tls: ClientConfig, timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        // https:// is not for it to judge.
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https);
        Self { client, timeout }
    }

    /// Posts a JSON body and reads the whole answer.
    pub(super) async fn post(
        &self,
        to: &Address,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response, LlmError> {
        let late = |_| {
            LlmError::transient(format!(
                "{} gave no whole answer within {}; where it is only slow, raise timeout in [llm]",
                to.base,
                humantime::format_duration(self.timeout)
            ))
        };
        tokio::time::timeout(self.timeout, self.exchange(to, authorization, body)).await.map_err(late)?
    }

    async fn exchange(
        &self,
        to: &Address,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response, LlmError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(to.completions.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, format!("sheaf/{VERSION}"));
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|e| LlmError::Refused { what: format!("{}: not a request: {e}", to.base) })?;
        let (head, body) =
            self.client.request(request).await.map_err(|e| unreachable(&to.base, &e))?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                let what = format!("{}: its answer is longer than {} MiB", to.base, LARGEST >> 20);
                return LlmError::Rubbish { what };
            }
            LlmError::transient(format!(
                "{}: the connection broke within the answer: {}",
                to.base,
                chain(&*e)
            ))
        })?;
        let retry_after = retry_after(&head.headers, SystemTime::now());
        Ok(Response { status: head.status, retry_after, body: body.to_bytes() })
    }
}

/// A request that got no answer. A certificate that is not trusted will not be trusted in a second either.
fn unreachable(base: &str, error: &hyper_util::client::legacy::Error) -> LlmError {
    let what = format!("{base} cannot be reached: {}", chain(error));
    if causes(error).any(is_certificate) {
        let advice = "the server's certificate must stand for this name and come from an authority that browsers trust";
        return LlmError::Refused { what: format!("{what}; {advice}") };
    }
    LlmError::transient(format!("{what}; is the server running, and is base_url in [llm] right?"))
}

/// An error and what led to it. An `io::Error` names the source of what it wraps as its own, so that what it wraps would
/// be passed over.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => (*error).source(),
        }
    })
}

fn is_certificate(error: &(dyn StdError + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// An error and its causes, each once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

/// The wait a server asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some((at - OffsetDateTime::from(now)).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_seconds_and_as_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_420); // Wed, 21 Oct 2015 07:27:00 GMT
        let read = |text: &'static str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(text))].into_iter().collect();
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Wed, 21 Oct 2015 07:26:00 GMT"), Some(Duration::ZERO), "it is over");
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
