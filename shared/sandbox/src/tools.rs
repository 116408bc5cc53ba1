use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::error::SandboxError;

/// Where the tools lie when `PATH` does not say so, as for a service.
const USUAL: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The path of a program of the site's.
pub(crate) fn find(name: &str) -> Result<PathBuf, SandboxError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(USUAL.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_absolute() && file.is_file())
        .ok_or_else(|| SandboxError::unavailable(format!("there is no program `{name}`")))
}

/// What a program of the site's prints. Its exit status does not count: `ldd` fails when one file of many is static.
pub(crate) fn output(command: &mut Command) -> Result<(String, String), SandboxError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| SandboxError::unavailable(format!("`{name}` cannot be started: {error}")))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr)))
}
