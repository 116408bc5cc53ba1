//! The Enrolment service.

use std::sync::Arc;

use bytes::Bytes;
use sheaf_proto::v1::{EnrolRequest, EnrolResponse, enrolment_server::Enrolment};
use tonic::{Request, Response, Status};

use crate::{VERSION, hub::Hub};

pub(super) struct EnrolmentService(pub(super) Arc<Hub>);

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let (desk, now) = (self.0.desk.clone(), self.0.clock.now_ms());
        let enrolled =
            self.0.database.run(move |_| desk.enrol(&request.token_secret, &request.csr_der, now)).await?;
        tracing::info!(site = %enrolled.site, agent = %request.agent_version, "enrolled");
        Ok(Response::new(EnrolResponse {
            site: enrolled.site.to_string(),
            certificate_der: enrolled.certificate_der.into(),
            ca_der: Bytes::copy_from_slice(self.0.desk.authority.certificate()),
            coordinator_version: VERSION.to_owned(),
        }))
    }
}
