//! Promise: a newer and an older peer talk to this version. What is unknown is ignored, what is absent means what
//! it meant before.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use sheaf_proto::v1::{
    AgentMessage, Hello, RunRef, RunSummary, Task, TaskUpdate, Verdict, agent_message, task_update,
};
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    raw::RawSite,
    site::Rules,
};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Fields 1000 (a number) and 1001 (bytes), which no message has.
fn unknown() -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::uint64::encode(1000, &u64::MAX, &mut bytes);
    prost::encoding::string::encode(1001, &"of a newer version".to_owned(), &mut bytes);
    bytes
}

fn newer(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    bytes.extend(unknown());
    bytes
}

fn understood<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
    assert_eq!(&M::decode(newer(message).as_slice()).unwrap(), message);
}

#[test]
fn unknown_fields_are_ignored() {
    understood(&Hello {
        agent_version: "9.9".to_owned(),
        workloads: vec!["afl".to_owned()],
        device: "cpu".to_owned(),
    });
    understood(&TaskUpdate {
        run_id: "r".to_owned(),
        key: "k".to_owned(),
        state: task_update::State::Running.into(),
        ..TaskUpdate::default()
    });
    understood(&Task {
        run_id: "r".to_owned(),
        key: "k".to_owned(),
        cohort: 3,
        inputs: vec![sheaf_transport::digest::blob_id(b"x").to_wire()],
        ..Task::default()
    });
    // A kind of message that is not known reads as none, a state that is not known as unspecified.
    assert_eq!(AgentMessage::decode(unknown().as_slice()).unwrap(), AgentMessage { body: None });
    let update = TaskUpdate { state: 99, ..TaskUpdate::default() };
    let update = TaskUpdate::decode(newer(&update).as_slice()).unwrap();
    assert_eq!(update.state(), task_update::State::Unspecified);
}

/// Sends and receives the bytes of messages as they are.
#[derive(Default)]
struct Verbatim;

impl Codec for Verbatim {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Verbatim {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Verbatim {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_operator_is_answered() {
    let study = features(60, 4, 2, 101, "");
    let cluster = Cluster::with_sites(Kind::Here, &study, &study.deal(2)).await;
    cluster.operator.submit(&study.plan, "run").await;
    cluster.operator.done("run").await;
    let mut client = tonic::client::Grpc::new(cluster.operator.channel.clone());
    client.ready().await.unwrap();
    let request = newer(&RunRef { run_id: "run".to_owned() });
    let path = "/sheaf.v1.Operator/WithdrawSite".parse().unwrap();
    let mut ask = request.clone();
    prost::encoding::string::encode(2, &study.deal(2)[0].name, &mut ask);
    let answer = client.unary(Request::new(ask), path, Verbatim).await.unwrap();
    let summary = RunSummary::decode(answer.into_inner()).unwrap();
    assert_eq!((summary.run_id.as_str(), summary.version), ("run", 2));
    // A method of a newer version is refused, and nothing breaks.
    client.ready().await.unwrap();
    let path = "/sheaf.v1.Operator/Forecast".parse().unwrap();
    let answer = client.unary(Request::new(request), path, Verbatim).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::PermissionDenied);
    cluster.operator.done("run").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_and_a_newer_agent_take_part() {
    let study = features(200, 6, 2, 102, "");
    let sites = study.deal(2);
    let mut cluster = Cluster::start(Kind::Here).await;
    cluster.join(&study, &sites[1], &Rules::default()).await;
    let raw = RawSite::enrol(&cluster, &sites[0].name).await;
    let rows = study.dataset.subset(&sites[0].rows);
    cluster.operator.submit(&study.plan, "run").await;
    // The session begins with an empty Hello, as of a version before its fields; results have neither seconds nor
    // attempt.
    let mut session = raw.session().await.unwrap();
    let task = session.task("survey").await;
    // Messages and states of a newer version, which change nothing.
    session.say(AgentMessage { body: None }).await;
    let mut update =
        TaskUpdate { run_id: task.run_id.clone(), key: task.key.clone(), state: 99, ..TaskUpdate::default() };
    for state in [99, task_update::State::Running.into()] {
        update.state = state;
        session.say(AgentMessage { body: Some(agent_message::Body::Update(update.clone())) }).await;
    }
    let survey = crate::answers::survey(&raw, &task, &rows).await;
    assert_eq!(raw.answer(&task, &survey).await.unwrap().verdict(), Verdict::Accepted);
    let task = session.task("sums").await;
    let sums = crate::answers::sums(&raw, &task, &rows).await;
    assert_eq!(raw.answer(&task, &sums).await.unwrap().verdict(), Verdict::Accepted);
    crate::answers::decline(&mut session, "evaluate").await;
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
}
