//! Compiles the .proto files in pure Rust (protox), so that no system protoc is needed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 5] = [
    "sheaf/v1/types.proto",
    "sheaf/v1/enrolment.proto",
    "sheaf/v1/fleet.proto",
    "sheaf/v1/transfer.proto",
    "sheaf/v1/operator.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=sheaf");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    // Bytes instead of Vec<u8>: a chunk travels from the socket to the disk without a copy.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
