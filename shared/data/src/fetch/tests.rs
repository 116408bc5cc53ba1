//! Fetching from folders and from a server of our own, never from the network.

use super::{AssetStore, archive, download};
use crate::catalogue::{Asset, AssetFile, Kind, Origin, Role};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::thread::JoinHandle;
use tempfile::TempDir;

fn asset(content: &[u8], sources: Vec<Origin>) -> Asset {
    Asset {
        id: "try".into(),
        title: "t".into(),
        licence: "l".into(),
        citation: "c".into(),
        layout: None,
        kind: Kind::Text,
        files: vec![AssetFile {
            name: "a.jsonl".into(),
            role: Role::Records,
            form: String::new(),
            sha256: hex::encode(Sha256::digest(content)),
            bytes: Some(content.len() as u64),
            sources,
        }],
    }
}

/// Answers one request a turn: a whole file, cut after `cut` bytes in the first turn, ranges honoured if `ranges`.
fn serve(content: Vec<u8>, turns: Vec<Option<usize>>, ranges: bool) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.jsonl", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for cut in turns {
            let (mut stream, _) = listener.accept().unwrap();
            let mut range = None;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap().to_lowercase();
                if let Some(start) = line.strip_prefix("range: bytes=") {
                    range = Some(start.trim_end_matches('-').parse::<usize>().unwrap());
                }
                if line.is_empty() {
                    break;
                }
            }
            asked.push(format!("{range:?}"));
            let start = range.filter(|_| ranges).unwrap_or(0);
            let head = if start > 0 {
                format!(
                    "206 Partial Content\r\nContent-Range: bytes {start}-{}/{}",
                    content.len() - 1,
                    content.len()
                )
            } else {
                "200 OK".into()
            };
            let body = &content[start..];
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
                .unwrap();
            stream.write_all(&body[..cut.unwrap_or(body.len())]).unwrap();
        }
        asked
    });
    (url, server)
}

#[test]
fn a_file_in_the_data_folder_is_used_in_place_and_a_wrong_one_is_not() {
    let (cache, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = AssetStore::new(cache.path().into(), Some(folder.path().into()));
    let asset = asset(b"right", Vec::new());
    let path = folder.path().join("a.jsonl");
    fs::write(&path, b"right").unwrap();
    let found = store.ensure_asset(&asset, &mut |_| {}).unwrap();
    assert_eq!(found.paths(Role::Records), [path.as_path()]);
    fs::write(&path, b"wrong").unwrap();
    let error = store.ensure_asset(&asset, &mut |_| {}).unwrap_err().to_string();
    for expected in ["--data-dir", "SHA-256", "a.jsonl", "no public source"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for ranges in [true, false] {
        let cache = TempDir::new().unwrap();
        let store = AssetStore::new(cache.path().into(), None);
        let (url, server) = serve(content.clone(), vec![Some(70_000), None], ranges);
        let asset = asset(&content, vec![Origin::Https { url, member: None }]);
        let error = store.ensure_asset(&asset, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
        let mut last = 0;
        let found = store.ensure_asset(&asset, &mut |progress| last = progress.done).unwrap();
        assert_eq!(fs::read(&found.paths(Role::Records)[0]).unwrap(), content);
        assert_eq!(last, 200_000);
        assert_eq!(server.join().unwrap(), ["None", "Some(70000)"]);
        assert!(!cache.path().join("try/a.jsonl.part").exists());
        // Now it is cached: no server is asked.
        store.ensure_asset(&asset, &mut |_| {}).unwrap();
    }
}

#[test]
fn other_content_is_refused_and_not_resumed() {
    let cache = TempDir::new().unwrap();
    let store = AssetStore::new(cache.path().into(), None);
    let (url, server) = serve(b"evil!".to_vec(), vec![None], true);
    let error = store
        .ensure_asset(&asset(b"right", vec![Origin::Https { url, member: None }]), &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(!cache.path().join("try/a.jsonl").exists() && !cache.path().join("try/a.jsonl.part").exists());
    server.join().unwrap();
    let (url, server) = serve(vec![0; 1000], vec![None], true);
    let error = download::resume(&url, &cache.path().join("big.part"), 10, &mut |_, _| {}).unwrap_err();
    assert!(error.contains("at most 10"), "{error}");
    drop(server.join());
}

fn tar_gz(path: &Path, member: &str, content: &[u8]) {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        fs::File::create(path).unwrap(),
        flate2::Compression::fast(),
    ));
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, member, content).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn members_come_out_of_wheels_and_archives_within_their_limit() {
    let dir = TempDir::new().unwrap();
    let tar = dir.path().join("a.tgz");
    tar_gz(&tar, "package/data/x", b"hello");
    let wheel = dir.path().join("a.whl");
    let mut zip = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
    zip.start_file("package/data/x", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"hello").unwrap();
    zip.finish().unwrap();
    for path in [&tar, &wheel] {
        let file = archive::extract(path, "package/data/x", dir.path(), 5).unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"hello");
        assert!(archive::extract(path, "package/data/x", dir.path(), 4).unwrap_err().contains("larger than"));
        assert!(archive::extract(path, "nothing", dir.path(), 5).unwrap_err().contains("nothing"));
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() / 2]).unwrap();
        assert!(archive::extract(path, "package/data/x", dir.path(), 5).is_err());
    }
}

#[test]
fn one_archive_gives_several_files() {
    let (dir, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = dir.path().join("a.tar.gz");
    tar_gz(&path, "in/a", b"right");
    let (url, server) = serve(fs::read(&path).unwrap(), vec![None], true);
    let origin = Origin::Https { url, member: Some("in/a".into()) };
    let mut asset = asset(b"right", vec![origin]);
    let second = AssetFile { name: "b.jsonl".into(), ..asset.files[0].clone() };
    asset.files.push(second);
    let store = AssetStore::new(cache.path().into(), None);
    assert_eq!(store.ensure_asset(&asset, &mut |_| {}).unwrap().files.len(), 2);
    assert_eq!(server.join().unwrap().len(), 1);
}

#[test]
fn one_complete_form_is_enough() {
    let (cache, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut asset = asset(b"right", Vec::new());
    asset.files[0].form = "json".into();
    asset.files.push(AssetFile { name: "b.csv".into(), form: "csv".into(), ..asset.files[0].clone() });
    fs::write(folder.path().join("b.csv"), b"right").unwrap();
    let store = AssetStore::new(cache.path().into(), Some(folder.path().into()));
    assert_eq!(store.ensure_asset(&asset, &mut |_| {}).unwrap().files.len(), 1);
}
