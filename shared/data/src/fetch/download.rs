//! Downloads over HTTPS that go on where they stopped.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Downloads into `part`, from the end of what is there already. The caller checks the hash.
pub(super) fn resume(
    url: &str,
    part: &Path,
    limit: u64,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), String> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(part)
        .map_err(|e| format!("{}: {e}", part.display()))?;
    let mut done = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_mins(1)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.get(url);
    if done > 0 {
        request = request.header("Range", format!("bytes={done}-"));
    }
    let mut response = request.call().map_err(|e| e.to_string())?;
    match response.status().as_u16() {
        206 if starts_at(response.headers(), done) => {}
        // The whole file in answer to a range: begin again. A range past the end (416): what is there may be all.
        200 => {
            file.set_len(0).map_err(|e| e.to_string())?;
            done = 0;
        }
        416 if done > 0 => return Ok(()),
        status => return Err(format!("the server answered with status {status}")),
    }
    let total = response.body().content_length().map(|rest| done + rest);
    if total.is_some_and(|total| total > limit) {
        return Err(format!("the server offers {} bytes, at most {limit} are expected", total.unwrap_or(0)));
    }
    let mut reader =
        response.body_mut().with_config().limit(limit.saturating_sub(done).saturating_add(1)).reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader
            .read(&mut buffer)
            .map_err(|e| format!("cut off after {done} bytes, the next try goes on there: {e}"))?
        {
            0 => break,
            read => {
                done += read as u64;
                if done > limit {
                    return Err(format!("more than the expected {limit} bytes came"));
                }
                file.write_all(&buffer[..read]).map_err(|e| e.to_string())?;
                report(done, total);
            }
        }
    }
    file.sync_all().map_err(|e| e.to_string())?;
    match total {
        Some(total) if done < total => {
            Err(format!("cut off after {done} of {total} bytes; the next try goes on there"))
        }
        _ => Ok(()),
    }
}

/// True where a partial answer really starts where the file ends.
fn starts_at(headers: &ureq::http::HeaderMap, done: u64) -> bool {
    headers
        .get("content-range")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split('-').next())
        .and_then(|start| start.parse::<u64>().ok())
        == Some(done)
}
