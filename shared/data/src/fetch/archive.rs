//! One member out of a wheel (zip) or a `.tgz`, without trusting paths or sizes in the archive.

use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use tempfile::NamedTempFile;

/// Copies the member into a temporary file in `folder`, at most `limit` bytes. Only the content is taken: names in the
/// archive never become paths.
pub(super) fn extract(
    archive: &Path,
    member: &str,
    folder: &Path,
    limit: u64,
) -> Result<NamedTempFile, String> {
    let file = File::open(archive).map_err(|e| format!("cannot open what was downloaded: {e}"))?;
    let is_zip = archive.extension().is_some_and(|extension| extension == "whl" || extension == "zip");
    if is_zip {
        let mut zip =
            zip::ZipArchive::new(BufReader::new(file)).map_err(|e| format!("not a whole wheel: {e}"))?;
        let entry = zip.by_name(member).map_err(|e| format!("no member {member}: {e}"))?;
        return copy(entry, folder, limit);
    }
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    for entry in tar.entries().map_err(|e| format!("not a whole .tar.gz: {e}"))? {
        let entry = entry.map_err(|e| format!("not a whole .tar.gz: {e}"))?;
        if entry.path_bytes().as_ref() == member.as_bytes() {
            return copy(entry, folder, limit);
        }
    }
    Err(format!("the archive has no member {member}"))
}

fn copy(reader: impl Read, folder: &Path, limit: u64) -> Result<NamedTempFile, String> {
    let mut out = NamedTempFile::new_in(folder).map_err(|e| e.to_string())?;
    let copied = std::io::copy(&mut reader.take(limit + 1), &mut out).map_err(|e| e.to_string())?;
    if copied > limit { Err(format!("the member is larger than {limit} bytes")) } else { Ok(out) }
}
