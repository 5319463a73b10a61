//! Certificates for TLS: an authority of our own, and a server's certificate that it signed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::folder::Folder;

/// Whom the server's certificate is for.
const SUBJECT: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1\n";

/// An authority and a server's certificate, for `localhost` and 127.0.0.1.
#[derive(Debug)]
pub struct Certs {
    folder: Folder,
}

impl Certs {
    /// Makes them anew, with `openssl`.
    pub fn new() -> Result<Self> {
        let folder = Folder::temporary("certs")?;
        folder.write("subject", SUBJECT)?;
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let run = |args: &str| {
            let mut openssl = Command::new("openssl");
            openssl.current_dir(folder.path()).stdin(Stdio::null());
            let output = openssl.args(args.split(' ')).args(if args.starts_with("req") {
                &curve[..]
            } else {
                &[]
            });
            let output = output.output().context("cannot start `openssl`: is it installed?")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("`openssl {args}` ended with {}: {said}", output.status);
            }
            Ok(())
        };
        // Two, for clients do not take an authority for a server.
        run("req -x509 -days 30 -subj /CN=excite-tests -keyout ca.key -out ca.pem")?;
        run("req -subj /CN=localhost -keyout server.key -out server.csr")?;
        run("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -extfile subject -out server.pem")?;
        Ok(Self { folder })
    }

    /// The authority's certificate, which clients must trust.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }
}
