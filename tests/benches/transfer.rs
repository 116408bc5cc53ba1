//! One large blob through the Transfer service over mTLS, beside the same bytes through a bare TLS 1.3 stream.
//!
//! `cargo bench -p sheaf-tests --bench transfer`; `SHEAF_BENCH_MIB` (512) and `SHEAF_BENCH_REPEATS` (5) change it.
//! `-- upload` measures only the kinds whose name contains the word. Both ends are tasks of this process, so its CPU
//! seconds are those of both.
#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has failed")]

mod measure;

use std::{fs, io::Write as _, path::Path};

use rustls::pki_types::ServerName;
use sheaf_coordinator::identity::authority::Usage;
use sheaf_proto::BlobId;
use sheaf_tests::{
    cluster::{Cluster, Kind},
    random::Random,
};
use sheaf_transport::{
    digest::BlobHasher,
    identity::Identity,
    keys::{SecretKey, load_certificates},
    tls::{SwappableCertificate, client_config, server_config},
    transfer::{UploadPurpose, read_chunk},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use measure::{median, setting, spread, timed};

const BLOCK: usize = 1 << 20;

/// Both ends of a TLS 1.3 connection on which each has shown its certificate.
async fn tls_pair(cluster: &Cluster) -> (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>) {
    let authority = &cluster.hub().desk.authority;
    let key = SecretKey::generate().unwrap();
    let life = std::time::Duration::from_secs(3600);
    let names = ["127.0.0.1".to_owned()];
    let leaf = authority.issue(&key, &Identity::Coordinator, &names, Usage::Server, life).unwrap();
    let certificate = SwappableCertificate::new(vec![leaf], &key.to_der()).unwrap();
    let acceptor = TlsAcceptor::from(server_config(certificate, authority.certificate()).unwrap());
    let folder = cluster.home().operator();
    let key = SecretKey::load(&folder.join("key.pem")).unwrap();
    let chain = load_certificates(&folder.join("cert.pem")).unwrap();
    let certificate = SwappableCertificate::new(chain, &key.to_der()).unwrap();
    let connector = TlsConnector::from(client_config(certificate, authority.certificate()).unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        acceptor.accept(tcp).await.unwrap()
    });
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let sender = connector.connect(name, tcp).await.unwrap();
    (sender, accepted.await.unwrap())
}

/// Reads a file and sends it; ends when the other side says that it has everything.
async fn send(mut stream: client::TlsStream<TcpStream>, path: &Path) {
    let mut file = File::open(path).await.unwrap();
    loop {
        let block = read_chunk(&mut file).await.unwrap();
        if block.is_empty() {
            break;
        }
        stream.write_all(&block).await.unwrap();
    }
    stream.flush().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 1);
}

/// Takes `size` bytes and drops them.
async fn take(mut stream: server::TlsStream<TcpStream>, size: u64) {
    let mut block = vec![0; BLOCK];
    let mut left = size;
    while left > 0 {
        let n = stream.read(&mut block).await.unwrap();
        assert!(n > 0, "the stream ended early");
        left -= n as u64;
    }
    stream.write_u8(1).await.unwrap();
    stream.flush().await.unwrap();
}

/// Takes a blob, checks its digest and keeps it durably: what the coordinator does, without gRPC.
async fn keep(mut stream: server::TlsStream<TcpStream>, blob: BlobId, path: &Path) {
    let staged = path.with_extension("part");
    let mut file = File::create(&staged).await.unwrap();
    file.set_max_buf_size(BLOCK);
    let mut hasher = BlobHasher::default();
    let mut block = vec![0; BLOCK];
    while hasher.size() < blob.size() {
        let mut filled = 0;
        while filled < BLOCK && hasher.size() + (filled as u64) < blob.size() {
            let n = stream.read(&mut block[filled..]).await.unwrap();
            assert!(n > 0, "the stream ended early");
            filled += n;
        }
        file.write_all(&block[..filled]).await.unwrap();
        hasher.update(&block[..filled]);
    }
    assert_eq!(hasher.finish(), blob);
    file.sync_all().await.unwrap();
    fs::rename(&staged, path).unwrap();
    stream.write_u8(1).await.unwrap();
    stream.flush().await.unwrap();
}

fn random_file(path: &Path, mebibytes: usize) -> BlobId {
    let mut random = Random::new(7);
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut hasher = BlobHasher::default();
    let mut block = vec![0; BLOCK];
    for _ in 0..mebibytes {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&random.below(u64::MAX).to_le_bytes());
        }
        hasher.update(&block);
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
    hasher.finish()
}

const NAMES: [&str; 4] = ["bare TLS stream", "TLS stream + SHA-256 + file", "Sheaf upload", "Sheaf download"];

/// Wall and CPU seconds of one transfer. Nothing is left behind, so that the next one is not a resumption.
async fn measure_one(name: &str, cluster: &Cluster, blob: BlobId) -> [f64; 2] {
    let folder = cluster.folder();
    let (path, other) = (folder.join("blob"), folder.join("other"));
    let mover = &cluster.operator.blobs;
    let blobs = &cluster.hub().blobs;
    match name {
        "bare TLS stream" => {
            let (sender, receiver) = tls_pair(cluster).await;
            let taken = tokio::spawn(take(receiver, blob.size()));
            let time = timed(send(sender, &path)).await.1;
            taken.await.unwrap();
            time
        }
        "TLS stream + SHA-256 + file" => {
            let (sender, receiver) = tls_pair(cluster).await;
            let target = other.clone();
            let kept = tokio::spawn(async move { keep(receiver, blob, &target).await });
            let time = timed(send(sender, &path)).await.1;
            kept.await.unwrap();
            fs::remove_file(&other).unwrap();
            time
        }
        "Sheaf upload" => {
            let purpose = UploadPurpose::default();
            let (done, time) = timed(mover.upload(blob, &path, &purpose)).await;
            done.unwrap();
            assert!(blobs.contains(&blob));
            blobs.delete(&blob).await.unwrap();
            time
        }
        _ => {
            let held = blobs.path(&blob);
            fs::create_dir_all(held.parent().unwrap()).unwrap();
            fs::copy(&path, &held).unwrap();
            let (done, time) = timed(mover.download(blob, &other)).await;
            done.unwrap();
            assert_eq!(fs::metadata(&other).unwrap().len(), blob.size());
            fs::remove_file(&other).unwrap();
            blobs.delete(&blob).await.unwrap();
            time
        }
    }
}

#[tokio::main]
async fn main() {
    let mebibytes = setting("SHEAF_BENCH_MIB", 512);
    let repeats = setting("SHEAF_BENCH_REPEATS", 5);
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| name.contains(word.as_str()));
    let cluster = Cluster::start(Kind::Here).await;
    let blob = random_file(&cluster.folder().join("blob"), mebibytes);
    println!("{mebibytes} MiB, {repeats} repeats of each kind in turn");
    measure::print_load();
    let mut figures: [Vec<[f64; 2]>; 4] = Default::default();
    for _ in 0..repeats {
        for (name, figures) in NAMES.iter().zip(&mut figures) {
            if wanted(name) {
                figures.push(measure_one(name, &cluster, blob).await);
            }
        }
    }
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>12} {:>18}",
        "", "wall s", "CPU s", "MB/s", "of bare TLS", "wall, all"
    );
    let wall = |figures: &[[f64; 2]]| median(figures.iter().map(|f| f[0]));
    let bare = (!figures[0].is_empty()).then(|| wall(&figures[0]));
    for (name, measured) in NAMES.iter().zip(&figures).filter(|(_, f)| !f.is_empty()) {
        let walls: Vec<f64> = measured.iter().map(|f| f[0]).collect();
        println!(
            "{name:<28} {:>8.3} {:>8.3} {:>8.0} {:>12} {:>18}",
            wall(measured),
            median(measured.iter().map(|f| f[1])),
            blob.size() as f64 / wall(measured) / 1e6,
            bare.map_or_else(String::new, |bare| format!("{:.0}%", 100.0 * bare / wall(measured))),
            spread(&walls),
        );
    }
    measure::print_load();
}
