use super::*;

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A file of the older PyTorch format: `w`, a 2 by 3 array that lies transposed in a storage of six floats.
fn legacy(values: u8, offset: u8, function: &str) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(b"\x80\x02M\xe9\x03.");
    out.extend(b"\x80\x02}q\x00.");
    out.extend(b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(");
    text(&mut out, "w");
    out.extend(format!("c{function}\n((").as_bytes());
    text(&mut out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(&mut out, "7");
    text(&mut out, "cpu");
    out.extend([b'K', values, b'N', b't', b'Q', b'K', offset]);
    out.extend(b"K\x02K\x03\x86K\x01K\x02\x86\x89h\x00)RtRu.");
    out.extend(b"\x80\x02]q\x00(");
    text(&mut out, "7");
    out.extend(b"e.");
    out.extend(6_u64.to_le_bytes());
    (1..=6).for_each(|i| out.extend((i as f32).to_le_bytes()));
    out
}

const REBUILD: &str = "torch._utils\n_rebuild_tensor_v2";

#[test]
fn a_strided_tensor_is_gathered() {
    let mut map = from_bytes(&legacy(6, 0, REBUILD), "f").expect("a good file");
    let tensor = map.take("w", &[2, 3]).expect("it is there");
    assert_eq!(tensor.data, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
}

#[test]
fn a_file_that_calls_something_else_is_refused() {
    let error = from_bytes(&legacy(6, 0, "os\nsystem"), "f").expect_err("it must be refused").to_string();
    assert!(error.contains("os system"), "{error}");
}

#[test]
fn views_beyond_their_storage_and_wrong_lengths_are_refused() {
    assert!(from_bytes(&legacy(6, 1, REBUILD), "f").is_err());
    assert!(from_bytes(&legacy(7, 0, REBUILD), "f").is_err());
    assert!(from_bytes(&legacy(5, 0, REBUILD), "f").is_err());
}

#[test]
fn damaged_files_end_in_errors() {
    let good = legacy(6, 0, REBUILD);
    for end in 0..good.len() {
        assert!(from_bytes(&good[..end], "f").is_err(), "cut to {end} bytes");
    }
    for at in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            // Whatever comes out, nothing panics and nothing is larger than the file.
            let _ = from_bytes(&bad, "f").map(|map| map.0.values().for_each(|t| assert!(t.data.len() <= 6)));
        }
    }
}

#[test]
fn tuples_in_tuples_are_bounded() {
    let mut bytes = b"\x80\x02)".to_vec();
    bytes.resize(1 << 20, 0x85);
    assert!(from_bytes(&bytes, "f").is_err());
}

#[test]
fn other_formats_are_named() {
    for (bytes, word) in [(&b"PK\x03\x04"[..], "zip"), (b"GGUF\x03", "GGUF"), (b"what?", "safetensors")] {
        let error = from_bytes(bytes, "f").expect_err("it must be refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn missing_misshapen_and_nan_tensors_are_refused() {
    let tensor = |x| HostTensor { shape: vec![2], data: vec![1.0, x] };
    let mut map = TensorMap([("a".to_owned(), tensor(2.0)), ("b".to_owned(), tensor(f32::NAN))].into());
    for (name, shape, word) in [("c", [2], "missing"), ("a", [3], "shape"), ("b", [2], "NaN")] {
        let error = map.take(name, &shape).expect_err("it must be refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}
