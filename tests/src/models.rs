//! Models of one's own, small enough for a test: random weights that both sides find through a catalogue beside the
//! shipped one.

use std::{fmt::Write as _, fs, path::Path};

use sheaf_transport::digest::sha256_hex;

use crate::process::Variable;

/// The language model, a Llama of two layers.
pub const LANGUAGE: &str = "tiny-llama";
/// The encoder of texts, a BERT of two layers.
pub const ENCODER: &str = "tiny-bert";
/// Values that the encoder makes of a text.
pub const WIDTH: usize = 32;
/// Positions of the language model. A token is about a letter, so that a prompt that shows two answers is longer than
/// the fixture's 256.
pub const POSITIONS: u32 = 2048;

fn fixture(name: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/models/tests/fixtures");
    fs::read(fixtures.join(name)).unwrap()
}

/// The fixture with so many positions. Rotary embeddings have no table: a number in the file's head is all that says how
/// many there are, and another number makes it another file to a hash.
fn language(positions: u32) -> Vec<u8> {
    let (mut bytes, key) = (fixture("tiny_llama/model.gguf"), b"llama.context_length");
    let at = bytes.windows(key.len()).position(|window| window == key);
    // Between a key and its value stands the value's kind, four bytes.
    let value = at.expect("a Llama says how many positions it has") + key.len() + 4;
    bytes[value..value + 4].copy_from_slice(&positions.to_le_bytes());
    bytes
}

/// Puts the models into a folder, with the catalogue that names them, and gives what a process must find in its
/// environment to know them.
pub fn lend(folder: &Path, positions: u32) -> Vec<Variable> {
    let files = [
        (LANGUAGE, "weights", "model.gguf", language(positions)),
        (ENCODER, "weights", "model.safetensors", fixture("tiny_bert/model.safetensors")),
        (ENCODER, "tokenizer", "tokenizer.json", fixture("tiny_bert/tokenizer.json")),
        (ENCODER, "config", "config.json", fixture("tiny_bert/config.json")),
    ];
    let mut catalogue = String::new();
    for model in [LANGUAGE, ENCODER] {
        let lent = folder.join(model);
        fs::create_dir_all(&lent).unwrap();
        let about = "title = 'random weights'\nlicence = 'none'\ncitation = 'none'\nkind = 'model'";
        writeln!(catalogue, "[[asset]]\nid = '{model}'\n{about}").unwrap();
        for (_, role, name, bytes) in files.iter().filter(|(of, ..)| *of == model) {
            fs::write(lent.join(name), bytes).unwrap();
            let sha256 = sha256_hex(bytes);
            writeln!(catalogue, "[[asset.files]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{sha256}'")
                .unwrap();
        }
    }
    let own = folder.join("catalogue.toml");
    fs::write(&own, catalogue).unwrap();
    // A cache of their own: what this machine has fetched has no part in a test.
    let cache = folder.join("cache");
    vec![("SHEAF_CATALOGUE", own), ("SHEAF_DATA_DIR", folder.to_owned()), ("SHEAF_CACHE", cache)]
}
