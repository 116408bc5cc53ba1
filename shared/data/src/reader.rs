//! Readers, one a kind of file. Each checks what it reads against the file's own size before it allocates.

pub(crate) mod array;
mod bytes;
pub(crate) mod cifar;
pub(crate) mod idx;
pub(crate) mod images;
mod npy;
mod parquet;
mod safetensor;
pub(crate) mod table;
#[cfg(test)]
mod tests;
pub(crate) mod text;
