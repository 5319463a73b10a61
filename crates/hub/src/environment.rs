//! The hub that the environment names, in the variables of Hugging Face's own tools.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hub::{ENDPOINT, Hub};

impl Hub {
    /// The hub at `HF_ENDPOINT`, in the name of `HF_TOKEN` or of the token that a login left in
    /// `HF_TOKEN_PATH`, `HF_HOME/token` or `~/.cache/huggingface/token`.
    ///
    /// `SSL_CERT_FILE` replaces the built-in certificates; proxies are those of `HTTPS_PROXY`,
    /// `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// If one of them is set to something unusable.
    pub fn from_environment() -> Result<Self> {
        from(&|name| std::env::var_os(name), std::env::home_dir())
    }
}

fn from(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<Hub> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let endpoint = set("HF_ENDPOINT").map(|value| value.to_string_lossy().into_owned());
    let token = match set("HF_TOKEN") {
        Some(token) => {
            Some(token.into_string().map_err(|_| Error::Token("it is not valid Unicode"))?)
        }
        None => token_path(&set, home.as_deref()).map(|path| read_token(&path)).transpose()?,
    };
    let hub = Hub::new(endpoint.as_deref().unwrap_or(ENDPOINT), token)?;
    match set("SSL_CERT_FILE") {
        Some(path) => hub.with_certificates(Path::new(&path)),
        None => Ok(hub),
    }
}

fn token_path(set: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Option<PathBuf> {
    let expand = |value: OsString| {
        let path = PathBuf::from(value);
        match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    };
    if let Some(path) = set("HF_TOKEN_PATH") {
        return Some(expand(path));
    }
    if let Some(folder) = set("HF_HOME") {
        return Some(expand(folder).join("token"));
    }
    let cache = set("XDG_CACHE_HOME").map(expand).or_else(|| Some(home?.join(".cache")))?;
    Some(cache.join("huggingface").join("token"))
}

/// Empty where no one has logged in.
fn read_token(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(token) => Ok(token),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)], home: &Path) -> Result<Hub> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        from(&variable, Some(home.to_owned()))
    }

    #[test]
    fn defaults_and_variables() {
        let home = tempfile::tempdir().unwrap();
        let plain = hub(&[("HF_ENDPOINT", ""), ("HF_TOKEN", "")], home.path()).unwrap();
        assert_eq!((plain.endpoint(), plain.has_token()), (ENDPOINT, false));
        let mirror =
            hub(&[("HF_ENDPOINT", "http://mirror:8080/hf/"), ("HF_TOKEN", "hf_a\n")], home.path());
        let mirror = mirror.unwrap();
        assert_eq!((mirror.endpoint(), mirror.has_token()), ("http://mirror:8080/hf", true));
        assert!(!format!("{mirror:?}").contains("hf_a"));
        for endpoint in ["huggingface.co", "ftp://a", "https://", "https://u:p@a", "https://a?b"] {
            let refused = hub(&[("HF_ENDPOINT", endpoint)], home.path());
            assert!(matches!(refused, Err(Error::Endpoint { .. })), "{endpoint}: {refused:?}");
        }
        assert!(matches!(hub(&[("HF_TOKEN", "a b")], home.path()), Err(Error::Token(_))));
    }

    #[test]
    fn a_login_is_found_where_hugging_face_leaves_it() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "hf_a\n").unwrap();
        };
        write("elsewhere");
        write("hf/token");
        write("cache/huggingface/token");
        let has_token =
            |variables: &[(&str, &str)]| hub(variables, home.path()).unwrap().has_token();
        assert!(!has_token(&[]));
        assert!(has_token(&[("HF_TOKEN_PATH", "~/elsewhere")]));
        assert!(has_token(&[("HF_HOME", "~/hf")]));
        assert!(has_token(&[("XDG_CACHE_HOME", "~/cache")]));
        assert!(!has_token(&[("HF_HOME", "~/none"), ("XDG_CACHE_HOME", "~/cache")]));
        write(".cache/huggingface/token");
        assert!(has_token(&[]));
    }

    #[test]
    fn certificates_are_read_or_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("ca.pem");
        let name = file.to_str().unwrap();
        for text in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\n?\n")] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let refused = hub(&[("SSL_CERT_FILE", name)], home.path());
            assert!(matches!(refused, Err(Error::Certificates { .. })), "{text:?}: {refused:?}");
        }
    }
}
