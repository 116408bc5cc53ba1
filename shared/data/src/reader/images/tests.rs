//! Indexes of images, whole and damaged.

use crate::dataset::{Records, Values};
use crate::{AssetStore, DataError, Dataset, Media, Schema, Source, Split};
use image::{ImageFormat, RgbImage};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn open(source: &Source, schema: &str) -> Result<Dataset, DataError> {
    let schema: Schema = toml::from_str(schema).unwrap();
    source.open(&schema, &AssetStore::new(PathBuf::from("no-such-cache"), None))
}

fn images(dir: &Path, pack: bool, size: Option<usize>) -> Source {
    let pack = pack.then(|| dir.join("pack"));
    Source::Images { index: Some(dir.join("index.csv")), pack, size, asset: None }
}

/// An image of one colour, and a white corner so that order of rows and columns shows.
fn encoded(width: u32, height: u32, colour: [u8; 3], format: ImageFormat) -> Vec<u8> {
    let mut image = RgbImage::from_pixel(width, height, image::Rgb(colour));
    image.put_pixel(width - 1, 0, image::Rgb([255; 3]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn message(result: Result<Dataset, DataError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn files_are_read_with_labels_splits_and_sites_and_written_back() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.png"), encoded(3, 2, [1, 2, 3], ImageFormat::Png)).unwrap();
    fs::write(dir.path().join("b.jpg"), encoded(3, 2, [200, 10, 10], ImageFormat::Jpeg)).unwrap();
    let index = "path,label,split,site\na.png,cat,train,north\nb.jpg,dog,test,south\na.png,cat,train,north\n";
    fs::write(dir.path().join("index.csv"), index).unwrap();
    let data = open(&images(dir.path(), false, None), "").unwrap();
    assert_eq!(data.labels().iter().flatten().collect::<Vec<_>>(), ["cat", "dog", "cat"]);
    assert_eq!(data.split(), [Split::Train, Split::Test, Split::Train]);
    assert_eq!(data.sites().unwrap().get(1), Some("south"));
    let Some(Media::Images(shape)) = data.media() else { panic!("images") };
    assert_eq!((shape.height, shape.width, shape.channels, shape.planes), (2, 3, 3, false));
    let first = data.image(0).unwrap();
    assert_eq!(first.rgb[..9], [1, 2, 3, 1, 2, 3, 255, 255, 255]);
    assert_eq!(data.content_digest(0), data.content_digest(2));
    assert_ne!(data.content_digest(0), data.content_digest(1));
    assert!(data.image(3).is_none() && data.text(0).is_none());

    // As a simulation writes a site's files: bytes stay bytes, names and the images' shape survive.
    let written = data.subset(&[1, 0]).write(&dir.path().join("site")).unwrap();
    let again = open(&written, "").unwrap();
    assert!(
        matches!(&again.records, Records::Dense { dim: 18, values: Values::U8(_), image: Some(s) } if *s == shape)
    );
    assert_eq!(again.labels().iter().flatten().collect::<Vec<_>>(), ["dog", "cat"]);
    assert_eq!(again.sites().unwrap().get(0), Some("south"));
    assert_eq!(again.content_digest(1), data.content_digest(0));
    assert!(fs::metadata(dir.path().join("site/records.safetensors")).unwrap().len() < 600);
}

#[test]
fn a_pack_gives_the_same_rows_and_size_scales_all() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (encoded(8, 4, [9, 9, 9], ImageFormat::Png), encoded(4, 8, [90, 0, 0], ImageFormat::Png));
    fs::write(dir.path().join("pack"), [a.clone(), b.clone()].concat()).unwrap();
    let index = format!("offset,length,kind\n0,{},x\n{},{},\n", a.len(), a.len(), b.len());
    fs::write(dir.path().join("index.csv"), index).unwrap();
    let text = message(open(&images(dir.path(), true, None), ""));
    assert!(text.contains("set size") && text.contains("image 2"), "{text}");
    let data = open(&images(dir.path(), true, Some(4)), "target = 'kind'").unwrap();
    assert!(matches!(&data.records, Records::Dense { dim: 48, .. }));
    assert_eq!(data.labels().iter().collect::<Vec<_>>(), [Some("x"), None]);
    assert_eq!(data.image(0).unwrap().rgb[..3], [9, 9, 9]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = TempDir::new().unwrap();
    let jpeg = encoded(16, 16, [1, 2, 3], ImageFormat::Jpeg);
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("empty.jpg", b"");
    put("short.jpg", &jpeg[..20]);
    put("text.png", b"not an image at all");
    put("pack", &jpeg);
    for (index, pack, part) in [
        ("path,label\nempty.jpg,1\n", false, "empty.jpg: is empty (0 bytes)"),
        ("path,label\nshort.jpg,1\n", false, "short.jpg: not a whole JPEG or PNG"),
        ("path,label\ntext.png,1\n", false, "text.png: not a whole JPEG or PNG"),
        ("path,label\ngone.jpg,1\n", false, "gone.jpg"),
        ("file,label\nx,1\n", false, "no column path"),
        ("offset,label\n0,1\n", true, "no column length"),
        ("offset,length\n0,99999\n", true, "cut off"),
        ("offset,length\n0,99999999999\n", true, "are the most"),
        ("offset,length\n-1,5\n", true, "not a whole number"),
        ("offset,length,split\n0,LEN,perhaps\n", true, "none of train"),
    ] {
        put("index.csv", index.replace("LEN", &jpeg.len().to_string()).as_bytes());
        let text = message(open(&images(dir.path(), pack, None), ""));
        assert!(text.contains(part), "{index:?} gave {text}");
    }
    assert!(message(open(&images(dir.path(), false, Some(0)), "")).contains("size must be"));
}

#[test]
fn cifar_planes_and_grey_images_are_images_too() {
    let dir = TempDir::new().unwrap();
    let mut record = vec![7];
    record.extend((0..3072).map(|at| (at / 1024) as u8));
    fs::write(dir.path().join("batch.bin"), record).unwrap();
    let source = Source::Cifar { train: vec![dir.path().join("batch.bin")], test: Vec::new(), asset: None };
    let data = open(&source, "").unwrap();
    assert_eq!(data.image(0).unwrap().rgb[..6], [0, 1, 2, 0, 1, 2]);
    let again = open(&data.write(dir.path()).unwrap(), "").unwrap();
    assert_eq!(again.image(0).unwrap().rgb, data.image(0).unwrap().rgb);
    let features = again.with_features(2, vec![0.5, 1.5]).unwrap();
    assert!(features.media().is_none());
    assert_eq!(features.labels().get(0), Some("7"));
    assert!(again.with_features(2, vec![0.5, f32::NAN]).is_err());
    assert!(again.with_features(3, vec![0.5, 1.5]).is_err());
}
