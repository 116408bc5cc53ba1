//! The key of a hosted model: read from a file that nobody else may read, and never shown.

use std::{fmt, fs, path::Path};

use http::HeaderValue;

use crate::error::Error;

/// A bearer key. It cannot be printed; [`ApiKey::scrub`] takes it out of what others wrote.
#[derive(Clone)]
pub struct ApiKey(String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

impl ApiKey {
    /// Takes a key as its issuer gives it; white space around it is dropped.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] for an empty key and for one that cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::invalid("the key is empty"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid("the key is not one word of visible ASCII characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a file that holds a key and nothing else.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`] where the file is missing, holds no key, or may be read or written by others
    /// than its owner: whoever can read it can spend the owner's money.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Error::invalid(format!("[llm] key_file {}: {what}", path.display()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path).map_err(|e| wrong(e.to_string()))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(wrong(format!(
                    "others than its owner have access to it (mode {:03o}); run chmod 600 on it",
                    mode & 0o777
                )));
            }
        }
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Self::new(&text).map_err(|e| wrong(format!("{e}; put the server's key there and nothing else")))
    }

    /// The value of an `Authorization` header, marked as a secret.
    pub(super) fn header(&self) -> Result<HeaderValue, Error> {
        // The error of the header names no value, but the key is known to fit in any case.
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0))
            .map_err(|_| Error::bug("a checked key does not fit in a header"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What somebody else wrote, without the key: servers like to repeat what they refuse.
    pub fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let key = ApiKey::new("  sk-123456\n").unwrap();
        assert_eq!(format!("{key:?}"), "[key]");
        assert_eq!(key.scrub("no such key: sk-123456."), "no such key: [key].");
        assert!(!format!("{:?}", key.header().unwrap()).contains("sk-"));
        for bad in ["", " \n", "two words", "schlüssel"] {
            let error = ApiKey::new(bad).unwrap_err().to_string();
            assert!(bad.trim().is_empty() || !error.contains(bad), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(ApiKey::load(&path).unwrap_err().message.contains("key_file"));
        fs::write(&path, "sk-123456\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o640, 0o604, 0o620] {
            mode(open);
            let error = ApiKey::load(&path).unwrap_err().message;
            assert!(error.contains("chmod 600") && !error.contains("sk-"), "{error}");
        }
        mode(0o600);
        ApiKey::load(&path).unwrap();
        fs::write(&path, "two words").unwrap();
        let error = ApiKey::load(&path).unwrap_err().message;
        assert!(error.contains("nothing else") && !error.contains("two words"), "{error}");
    }
}
