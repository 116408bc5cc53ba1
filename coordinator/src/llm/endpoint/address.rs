//! Where a server is: which addresses may be used, and how they are named to people.

use std::net::IpAddr;

use http::{Uri, uri::Scheme};

use crate::error::Error;

/// A server's base URL that has been checked.
#[derive(Debug, Clone)]
pub(in crate::llm) struct Address {
    /// As it is shown, without a slash at its end.
    pub(super) base: String,
    /// Where completions are asked for.
    pub(super) completions: Uri,
}

impl Address {
    /// Checks a base URL, `https://host[:port][/path]`.
    ///
    /// # Errors
    /// [`crate::error::Class::Invalid`]: no such URL, a name, password or query in it, or plain HTTP to another machine.
    pub(super) fn parse(base_url: &str, allow_plaintext: bool) -> Result<Self, Error> {
        // A password in the text would end up in a log: the text is shown only once it is known to have none.
        let wrong = |what: &str| Error::invalid(format!("[llm] base_url: {what}"));
        let base = base_url.trim_end_matches('/');
        if base.contains('@') {
            return Err(wrong("it must hold no name and no password; a key goes into key_file"));
        }
        let uri: Uri = format!("{base}/chat/completions")
            .parse()
            .map_err(|_| wrong("it is not a URL; write https://host[:port]/v1"))?;
        let (Some(scheme), Some(host)) = (uri.scheme(), uri.host()) else {
            return Err(wrong("it is not a whole URL; write https://host[:port]/v1"));
        };
        if base.contains(['?', '#']) {
            return Err(wrong("it must end with a path, without ? and #"));
        }
        if *scheme == Scheme::HTTP {
            if !allow_plaintext && !is_loopback(host) {
                return Err(Error::invalid(format!(
                    "[llm] base_url {base}: plain HTTP shows prompts and key to everybody on the way; use https://, or set \
                     allow_plaintext = true on a network that is yours"
                )));
            }
        } else if *scheme != Scheme::HTTPS {
            return Err(wrong("it must begin with https:// or http://"));
        }
        Ok(Self { base: base.to_owned(), completions: uri })
    }
}

/// Whether packets to this host stay on this machine. Of names only `localhost` is known to.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
        for url in [
            "http://localhost:8000/v1",
            "http://127.0.0.1/v1/",
            "http://127.9.9.9:1/v1",
            "http://[::1]:8000/v1",
            "https://api.example.org/v1",
        ] {
            let address = Address::parse(url, false).unwrap();
            assert_eq!(address.completions.path(), "/v1/chat/completions", "{url}");
        }
        for url in [
            "http://10.0.0.1/v1",
            "http://localhost.example.org/v1",
            "http://127.0.0.1.example.org/v1",
            "http://[::2]/v1",
        ] {
            let error = Address::parse(url, false).unwrap_err().message;
            assert!(error.contains("allow_plaintext"), "{error}");
            Address::parse(url, true).unwrap();
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("", "URL"),
            ("/v1", "URL"),
            ("localhost:8000", "URL"),
            ("ftp://localhost/v1", "https://"),
            ("https://user:secret@host/v1", "key_file"),
            ("https://host/v1?key=secret", "without ?"),
        ] {
            let error = Address::parse(url, true).unwrap_err().message;
            assert!(error.starts_with("[llm] base_url") && error.contains(part), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
