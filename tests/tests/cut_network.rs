//! Promise: a link that breaks in the middle of a blob costs at most the chunk that was on its way.

use std::time::{Duration, Instant};

use sheaf_coordinator::run::event::Event;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    data::features,
    operator::Operator,
    proxy::{Fault, Proxy, Way},
    random::Random,
    site::Rules,
};
use sheaf_transport::{
    digest::blob_id,
    transfer::{TransferError, UploadPurpose},
};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_link_is_cut_again_and_again_loses_nothing() {
    // Sums of several chunks up, a model of two chunks down.
    let study = features(363, 1600, 121, 71, "");
    let sites = study.deal(2);
    let mut cluster = Cluster::with_sites(Kind::Here, &study, &sites[1..]).await;
    let proxy = Proxy::before(cluster.port()).await;
    let rules = Rules { url: Some(proxy.url()), ..Rules::default() };
    let name = &sites[0].name;
    cluster.join(&study, &sites[0], &rules).await;
    cluster.operator.connected(name, true).await;
    proxy.count_anew();
    for after in [MIB + MIB / 2, MIB + MIB / 4] {
        proxy.plan(Way::Up, after, Fault::Cut);
    }
    proxy.plan(Way::Down, MIB + MIB / 8, Fault::Cut);
    cluster.operator.submit(&study.plan, "run").await;
    assert_eq!(cluster.operator.done("run").await, study.pooled_hash());
    assert_eq!(proxy.faults(), 3, "every planned cut was made");

    let journal = cluster.hub().database.journal("run").unwrap();
    let mut sent = 0;
    for entry in journal {
        if let Event::Delivered { site, delivery, .. } = entry.event
            && site.as_str() == name
        {
            sent += delivery.blob.size();
        }
    }
    assert!(sent > 3 * MIB, "the answers are of several chunks: {sent} bytes");
    let (up, _) = proxy.counted();
    assert!(
        up < sent + sent / 2 + MIB,
        "{sent} bytes of answers took {up} bytes with two cuts: the upload began anew"
    );
    assert!(cluster.sites[name].releases().values().all(|n| *n == 1), "nothing was computed twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_downloads_go_on_where_they_were_cut() {
    let cluster = Cluster::start(Kind::Here).await;
    let proxy = Proxy::before(cluster.port()).await;
    let operator = Operator::connect(cluster.home(), Some(&proxy.url())).await.unwrap();
    let bytes = Random::new(72).bytes(12 * MIB as usize);
    let (source, copy) = (cluster.folder().join("source"), cluster.folder().join("copy"));
    std::fs::write(&source, &bytes).unwrap();
    let blob = blob_id(&bytes);
    proxy.count_anew();
    for way in [Way::Up, Way::Down] {
        for _ in 0..3 {
            proxy.plan(way, 5 * MIB / 2, Fault::Cut);
        }
    }
    let purpose = UploadPurpose::default();
    again_and_again(async || operator.blobs.upload(blob, &source, &purpose).await).await;
    assert_eq!(proxy.faults(), 3);
    let (up, _) = proxy.counted();
    assert!(up < 18 * MIB, "12 MiB went up as {up} bytes");
    again_and_again(async || operator.blobs.download(blob, &copy).await).await;
    assert_eq!(proxy.faults(), 6);
    let (_, down) = proxy.counted();
    assert!(down < 18 * MIB, "12 MiB came down as {down} bytes");
    assert!(std::fs::read(&copy).unwrap() == bytes, "the copy is the source");
}

async fn again_and_again(transfer: impl AsyncFn() -> Result<(), TransferError>) {
    let began = Instant::now();
    loop {
        match transfer().await {
            Ok(()) => return,
            Err(error) => {
                assert!(error.is_transient(), "a cut is worth another try: {error}");
                assert!(began.elapsed() < Duration::from_secs(60), "{error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
