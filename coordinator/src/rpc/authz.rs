//! Who may call what: a static table of method and role, everything else denied, checked before a handler
//! is reached.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use sheaf_transport::{
    SITE_HEADER,
    identity::{Identity, PeerCertificate, SiteName},
};
use tonic::{
    Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use crate::identity::Admitted;

/// What a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No certificate was shown.
    Anonymous,
    /// An enrolled agent.
    Site,
    /// An operator.
    Operator,
}

use Role::{Anonymous, Operator, Site};

/// Every method of the package, and who may call it. A method that is not here is denied to all; a test
/// walks the proto descriptor so that none is forgotten.
pub const ACCESS: &[(&str, &[Role])] = &[
    ("/sheaf.v1.Enrolment/Enrol", &[Anonymous]),
    ("/sheaf.v1.Fleet/Session", &[Site]),
    ("/sheaf.v1.Fleet/SubmitResult", &[Site]),
    ("/sheaf.v1.Fleet/Renew", &[Site]),
    ("/sheaf.v1.Transfer/Stat", &[Site, Operator]),
    ("/sheaf.v1.Transfer/Upload", &[Site, Operator]),
    ("/sheaf.v1.Transfer/Download", &[Site, Operator]),
    ("/sheaf.v1.Operator/Info", &[Operator]),
    ("/sheaf.v1.Operator/InviteSite", &[Operator]),
    ("/sheaf.v1.Operator/ListSites", &[Operator]),
    ("/sheaf.v1.Operator/RevokeSite", &[Operator]),
    ("/sheaf.v1.Operator/SubmitRun", &[Operator]),
    ("/sheaf.v1.Operator/ListRuns", &[Operator]),
    ("/sheaf.v1.Operator/ShowRun", &[Operator]),
    ("/sheaf.v1.Operator/WatchRun", &[Operator]),
    ("/sheaf.v1.Operator/AbortRun", &[Operator]),
    ("/sheaf.v1.Operator/ResumeRun", &[Operator]),
    ("/sheaf.v1.Operator/WithdrawSite", &[Operator]),
    ("/sheaf.v1.Operator/AddSite", &[Operator]),
    ("/sheaf.v1.Operator/AttachEvaluation", &[Operator]),
    ("/sheaf.v1.Operator/Report", &[Operator]),
];

/// The verified caller, in a request's extensions.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Before enrolment.
    Anonymous,
    /// An enrolled site.
    Site(SiteName),
    /// An operator.
    Operator(SiteName),
}

/// The serial number of the caller's certificate, in a request's extensions: long calls ask again and again
/// whether it is still admitted.
#[derive(Debug, Clone)]
pub struct Serial(pub Arc<str>);

impl Caller {
    const fn role(&self) -> Role {
        match self {
            Self::Anonymous => Role::Anonymous,
            Self::Site(_) => Role::Site,
            Self::Operator(_) => Role::Operator,
        }
    }

    /// The site, for services only sites may call.
    ///
    /// # Errors
    /// Internal when the access table let another role through.
    pub fn site(extensions: &tonic::Extensions) -> Result<SiteName, Status> {
        match extensions.get::<Self>() {
            Some(Self::Site(name)) => Ok(name.clone()),
            _ => Err(Status::internal("the access table and the service disagree")),
        }
    }
}

/// Decides about one call from its path, its certificate and its site header.
pub fn authorise(
    path: &str,
    certificate: Option<&[u8]>,
    claimed_site: Option<&str>,
    admitted: &Admitted,
) -> Result<(Caller, Option<Serial>), Status> {
    let (caller, serial) = match certificate {
        None => (Caller::Anonymous, None),
        Some(der) => {
            let peer = PeerCertificate::from_der(der).map_err(|e| Status::unauthenticated(e.to_string()))?;
            if !admitted.holds(&peer.serial) {
                return Err(Status::unauthenticated(
                    "this certificate was revoked or never admitted; ask the operator for a new invitation",
                ));
            }
            let caller = match peer.identity {
                Identity::Site(name) => Caller::Site(name),
                Identity::Operator(name) => Caller::Operator(name),
                Identity::Coordinator => {
                    return Err(Status::permission_denied("a coordinator does not call itself"));
                }
            };
            (caller, Some(Serial(peer.serial.into())))
        }
    };
    if let (Some(claimed), Caller::Site(name)) = (claimed_site, &caller)
        && claimed != name.as_str()
    {
        return Err(Status::permission_denied(format!(
            "the certificate is of site `{name}`, the call is in the name of another"
        )));
    }
    let allowed = ACCESS.iter().find(|(method, _)| *method == path).map_or(&[][..], |(_, roles)| roles);
    match (allowed.contains(&caller.role()), &caller) {
        (true, _) => Ok((caller, serial)),
        (false, Caller::Anonymous) => Err(Status::unauthenticated(
            "this call needs a client certificate; enrol with `sheaf-agent enroll`",
        )),
        (false, _) => Err(Status::permission_denied("this certificate may not make this call")),
    }
}

/// Puts [`authorise`] before every service.
#[derive(Clone)]
pub struct AuthorisationLayer(pub Arc<Admitted>);

impl<S> Layer<S> for AuthorisationLayer {
    type Service = Authorisation<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authorisation { inner, admitted: Arc::clone(&self.0) }
    }
}

/// See [`AuthorisationLayer`].
#[derive(Clone)]
pub struct Authorisation<S> {
    inner: S,
    admitted: Arc<Admitted>,
}

impl<S, In, Out> Service<Request<In>> for Authorisation<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let certificates =
            request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let leaf = certificates.as_ref().and_then(|chain| chain.first()).map(AsRef::as_ref);
        let claimed = request.headers().get(SITE_HEADER).map(|value| value.to_str().unwrap_or(""));
        match authorise(request.uri().path(), leaf, claimed, &self.admitted) {
            Ok((caller, serial)) => {
                request.extensions_mut().insert(caller);
                if let Some(serial) = serial {
                    request.extensions_mut().insert(serial);
                }
                Either::Left(self.inner.call(request))
            }
            Err(status) => {
                tracing::warn!(path = request.uri().path(), "call refused: {}", status.message());
                Either::Right(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn the_table_names_every_method_and_no_other() {
        let descriptor = prost_types::FileDescriptorSet::decode(sheaf_proto::DESCRIPTOR).unwrap();
        let mut methods = BTreeSet::new();
        for file in &descriptor.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let table: BTreeSet<_> = ACCESS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(table.len(), ACCESS.len(), "no method twice");
        assert_eq!(table, methods);
    }

    #[test]
    fn only_enrolment_is_open_without_a_certificate() {
        for (path, roles) in ACCESS {
            let allowed = authorise(path, None, None, &Admitted::default()).is_ok();
            assert_eq!(allowed, roles.contains(&Anonymous), "{path}");
            assert_eq!(allowed, *path == "/sheaf.v1.Enrolment/Enrol", "{path}");
        }
        assert!(authorise("/sheaf.v1.Fleet/Nothing", None, None, &Admitted::default()).is_err());
        assert!(authorise("/sheaf.v1.Fleet/Session", Some(b"junk"), None, &Admitted::default()).is_err());
    }
}
