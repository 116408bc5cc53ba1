//! Promise: blobs of any size move in flat memory, only to and from those they are for, and only as what they were
//! announced to be.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
};

use sheaf_proto::{
    BlobId,
    v1::{InfoRequest, StatRequest, Task, UploadHeader, transfer_client::TransferClient},
};
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    random::Random,
    raw::{RawSite, header, upload},
    site::Rules,
};
use sheaf_transport::{
    channel::CallerChannel,
    digest::{BlobHasher, blob_id},
    transfer::{BlobMover, UploadPurpose},
};
use tonic::Code;

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_a_gibibyte_moves_in_flat_memory() {
    let cluster = Cluster::start(Kind::Process).await;
    let (source, copy) = (cluster.folder().join("source"), cluster.folder().join("copy"));
    let mut file = BufWriter::new(File::create(&source).unwrap());
    let block = Random::new(91).bytes(MIB as usize);
    for number in 0..256_u64 {
        file.write_all(&number.to_le_bytes()).unwrap();
        file.write_all(&block[8..]).unwrap();
    }
    file.into_inner().unwrap();
    let blob = BlobHasher::of_prefix(&source, u64::MAX).unwrap().finish();
    assert_eq!(blob.size(), 256 * MIB);
    let blobs = &cluster.operator.blobs;
    blobs.upload(blob, &source, &UploadPurpose::default()).await.unwrap();
    // The download checks the digest of what arrives.
    blobs.download(blob, &copy).await.unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().len(), blob.size());
    let info = cluster.operator.rpc.clone().info(InfoRequest {}).await.unwrap();
    let peak = info.into_inner().peak_resident_bytes;
    assert!(peak > 0, "the coordinator knows its peak");
    assert!(peak < 96 * MIB, "the coordinator's memory peaked at {} MiB", peak / MIB);
}

async fn held(channel: &CallerChannel, blob: BlobId) -> (u64, bool) {
    let request = StatRequest { blob: Some(blob.to_wire()) };
    let stat = TransferClient::new(channel.clone()).stat(request).await.unwrap();
    let stat = stat.into_inner();
    (stat.offset, stat.complete)
}

fn plain(blob: BlobId, offset: u64) -> UploadHeader {
    UploadHeader { offset, ..header(blob, &Task::default()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_must_be_what_was_announced() {
    let cluster = Cluster::start(Kind::Here).await;
    let channel = &cluster.operator.channel;
    let send = async |header: UploadHeader, chunks: &[(u64, &[u8], bool)]| {
        upload(channel.clone(), header, chunks).await.map_err(|status| status.code())
    };
    let (right, wrong) = (b"0123456789".as_slice(), b"0123456788".as_slice());
    let blob = blob_id(right);

    assert_eq!(send(plain(blob, 0), &[(0, wrong, true)]).await, Err(Code::DataLoss));
    assert_eq!(held(channel, blob).await, (0, false), "what was wrong is thrown away");
    // More than announced, in one chunk and in several.
    assert_eq!(send(plain(blob, 0), &[(0, b"0123456789a", true)]).await, Err(Code::OutOfRange));
    assert_eq!(send(plain(blob, 0), &[(0, right, false), (10, b"a", true)]).await, Err(Code::OutOfRange));
    // Less than announced, a gap, an overlap.
    assert_eq!(send(plain(blob, 0), &[(0, b"0123", true)]).await, Err(Code::DataLoss));
    assert_eq!(
        send(plain(blob, 0), &[(0, b"0123", false), (5, b"56789", true)]).await,
        Err(Code::OutOfRange)
    );
    assert_eq!(
        send(plain(blob, 0), &[(0, b"0123", false), (2, b"23456789", true)]).await,
        Err(Code::OutOfRange)
    );
    // An offset beyond what is held: the sender is to ask again.
    assert_eq!(send(plain(blob, 9), &[(9, b"9", true)]).await, Err(Code::Unavailable));
    assert!(!held(channel, blob).await.1, "none of these made a blob");

    // A stream that ends early is kept, and gone on with.
    assert_eq!(send(plain(blob, 0), &[(0, b"0123", false)]).await, Err(Code::Unavailable));
    assert_eq!(held(channel, blob).await, (4, false));
    assert_eq!(send(plain(blob, 4), &[(4, b"456789", true)]).await, Ok(10));
    assert_eq!(held(channel, blob).await, (10, true));

    // A reference that is none.
    let mut header = plain(blob, 0);
    header.blob.as_mut().unwrap().sha256 = b"short".as_slice().into();
    assert_eq!(send(header, &[(0, right, true)]).await, Err(Code::InvalidArgument));
    let nothing = blob_id(b"");
    assert_eq!(send(plain(nothing, 0), &[(0, b"", true)]).await, Ok(0), "an empty blob is one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_moves_what_its_task_is_about_and_nothing_else() {
    let study = features(200, 6, 2, 92, "");
    let sites = study.deal(2);
    let mut cluster = Cluster::start(Kind::Here).await;
    cluster.join(&study, &sites[0], &Rules::default()).await;
    let raw = RawSite::enrol(&cluster, &sites[1].name).await;
    let stranger = RawSite::enrol(&cluster, "stranger").await;
    let bytes = b"an answer".as_slice();
    let blob = blob_id(bytes);
    let code = |result: Result<u64, tonic::Status>| result.map_err(|status| status.code());
    let send = |site: &RawSite, header: UploadHeader| {
        let channel = site.channel.clone();
        async move { code(upload(channel, header, &[(0, bytes, true)]).await) }
    };

    // No run, no task.
    assert_eq!(send(&raw, plain(blob, 0)).await, Err(Code::NotFound));
    let invited = format!("sites = ['{}', '{}']", sites[0].name, sites[1].name);
    let plan = study.plan.replacen("[run]\n", &format!("[run]\n{invited}\n"), 1);
    cluster.operator.submit(&plan, "run").await;
    let mut session = raw.session().await.unwrap();
    let task = session.task("survey").await;
    assert_eq!(send(&stranger, header(blob, &task)).await, Err(Code::FailedPrecondition));
    let mut other = task.clone();
    other.key = "sums-0123456789abcdef".to_owned();
    assert_eq!(send(&raw, header(blob, &other)).await, Err(Code::FailedPrecondition));
    // Larger than the task allows: refused before a byte of it is taken.
    let huge = BlobId::new(*blob.sha256(), task.max_result_bytes + 1);
    assert_eq!(send(&raw, header(huge, &task)).await, Err(Code::InvalidArgument));
    assert_eq!(send(&raw, header(blob, &task)).await, Ok(bytes.len() as u64));
    // What one site holds there another does not learn.
    assert_eq!(held(&stranger.channel, blob).await, (0, false));
    assert_eq!(held(&cluster.operator.channel, blob).await, (9, true));

    // Downloads: what was offered, to whom it was offered.
    let spec = BlobId::from_wire(task.spec.as_ref()).unwrap();
    let path = cluster.folder().join("fetched");
    let fetch = |site: &RawSite, blob: BlobId| {
        let (mover, path) = (BlobMover::new(site.channel.clone()), path.clone());
        async move {
            match mover.download(blob, &path).await {
                Ok(()) => Ok(()),
                Err(sheaf_transport::transfer::TransferError::Rpc { status, .. }) => Err(status.code()),
                Err(other) => panic!("{other}"),
            }
        }
    };
    assert_eq!(fetch(&raw, spec).await, Ok(()));
    assert_eq!(fetch(&raw, blob).await, Err(Code::PermissionDenied), "not even its own answer");
    assert_eq!(fetch(&stranger, spec).await, Err(Code::PermissionDenied));
    let other_session = stranger.session().await.unwrap();
    assert_eq!(fetch(&stranger, spec).await, Err(Code::PermissionDenied));
    drop(other_session);
    let absent = cluster.operator.blobs.download(blob_id(b"absent"), &path).await;
    assert!(absent.is_err_and(|error| error.to_string().contains("not held")));
}
