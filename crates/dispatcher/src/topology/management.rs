//! RabbitMQ's management API: the policies are set through it.
//!
//! Its URL holds a password, so neither errors nor reports repeat it. Not here: which policies
//! there are (`excite_jobs::queue::rabbit::topology`).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use excite_jobs::queue::rabbit::{Policy, topology};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where it is, by default.
const EXAMPLE: &str = "http://user:password@host:15672";
/// For one answer, connecting included.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// RabbitMQ's management API.
pub struct Management {
    client: Client,
    url: Url,
}

/// Why policies cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The URL, or the certificates.
    #[error("the management URL cannot be used: {0}; write `{EXAMPLE}`")]
    Url(String),
    /// No answer.
    #[error(
        "the management API at `{place}` cannot be reached: {message}; enable the plugin with `rabbitmq-plugins enable rabbitmq_management`"
    )]
    Unreachable {
        /// Where it should be, without user and password.
        place: String,
        /// What went wrong.
        message: String,
    },
    /// An answer that is none of the expected ones.
    #[error("the management API at `{place}` answered {status} to `{what}`: {remedy}")]
    Refused {
        /// Where it is, without user and password.
        place: String,
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// What to do.
        remedy: String,
    },
}

/// What became of a policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicySet {
    /// Its name.
    pub name: String,
    /// What was done.
    #[serde(flatten)]
    pub did: Did,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "did")]
pub enum Did {
    /// There was none.
    Created,
    /// It was there as it should be.
    Unchanged,
    /// It was there otherwise.
    Replaced {
        /// Its definition.
        was: Value,
    },
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("set"),
            Self::Unchanged => f.write_str("there as it should be"),
            Self::Replaced { was } => write!(f, "set, was {was}"),
        }
    }
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

#[derive(Deserialize)]
struct Found {
    pattern: String,
    definition: Value,
}

impl Management {
    /// With user and password in the URL; `ca_pem` are certificates to trust beside the system's.
    ///
    /// # Errors
    /// [`ManagementError::Url`]; it never repeats the URL.
    pub fn new(url: &str, ca_pem: Option<&[u8]>) -> Result<Self, ManagementError> {
        let wrong = |what: &str| ManagementError::Url(what.to_owned());
        let url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it is neither http nor https"));
        }
        // An error means that the program has chosen its cryptography already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder().timeout(ANSWER_MAX);
        if let Some(pem) = ca_pem {
            let certificates = Certificate::from_pem_bundle(pem)
                .map_err(|error| wrong(&format!("the certificates cannot be read: {error}")))?;
            client = client.tls_certs_merge(certificates);
        }
        let client = client.build().map_err(|error| wrong(&words(error)))?;
        Ok(Self { client, url })
    }

    /// Sets the policies that this broker's version knows.
    ///
    /// # Errors
    /// If the API cannot be reached, or refuses.
    pub async fn set_policies(&self, vhost: &str) -> Result<Vec<PolicySet>, ManagementError> {
        let answer = self.ask(self.client.get(self.at(&["api", "overview"])), "overview").await?;
        let overview: Overview = self.read(self.accepted(answer, "overview", vhost)?).await?;
        let major = overview.rabbitmq_version.split('.').next().and_then(|n| n.parse().ok());
        let mut set = Vec::new();
        for policy in topology::policies(major.unwrap_or(0)) {
            let did = self.set(vhost, &policy).await?;
            set.push(PolicySet { name: policy.name, did });
        }
        Ok(set)
    }

    async fn set(&self, vhost: &str, policy: &Policy) -> Result<Did, ManagementError> {
        let url = self.at(&["api", "policies", vhost, &policy.name]);
        let what = format!("policy {}", policy.name);
        let answer = self.ask(self.client.get(url.clone()), &what).await?;
        let found = match answer.status() {
            StatusCode::NOT_FOUND => None,
            _ => Some(self.read::<Found>(self.accepted(answer, &what, vhost)?).await?),
        };
        let same = |found: &Found| {
            found.pattern == policy.pattern && found.definition == policy.definition
        };
        if found.as_ref().is_some_and(same) {
            return Ok(Did::Unchanged);
        }
        let body = json!({
            "pattern": policy.pattern, "definition": policy.definition, "apply-to": "queues",
            "priority": 1,
        });
        let answer = self.ask(self.client.put(url).json(&body), &what).await?;
        self.accepted(answer, &what, vhost)?;
        Ok(found.map_or(Did::Created, |found| Did::Replaced { was: found.definition }))
    }

    /// The address of something; every name is one part of the path, whatever it holds.
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        // Addresses of http have a path.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn ask(
        &self,
        request: reqwest::RequestBuilder,
        what: &str,
    ) -> Result<Response, ManagementError> {
        request.send().await.map_err(|error| ManagementError::Unreachable {
            place: self.place(),
            message: format!("{what}: {}", words(error)),
        })
    }

    fn accepted(
        &self,
        answer: Response,
        what: &str,
        vhost: &str,
    ) -> Result<Response, ManagementError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(
                "the user needs its password, the tag `policymaker`, and permissions in vhost \
                 `{vhost}`"
            ),
            StatusCode::NOT_FOUND => {
                format!("there is no vhost `{vhost}`, or this is not RabbitMQ's management API")
            }
            _ => "see the broker's log".to_owned(),
        };
        let (place, what, status) = (self.place(), what.to_owned(), status.as_u16());
        Err(ManagementError::Refused { place, what, status, remedy })
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        answer: Response,
    ) -> Result<T, ManagementError> {
        answer.json().await.map_err(|error| ManagementError::Unreachable {
            place: self.place(),
            message: format!("its answer cannot be read: {}", words(error)),
        })
    }

    fn place(&self) -> String {
        let mut url = self.url.clone();
        // Only addresses without a host refuse that, and those of http have one.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.to_string()
    }
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Management({})", self.place())
    }
}

/// An error with its causes, without the URL.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vhost_is_one_part_of_the_path() {
        let management = Management::new("http://u:p@host:15672/", None).unwrap();
        let url = management.at(&["api", "policies", "/a b", "excite.v1.jobs"]);
        assert_eq!(url.path(), "/api/policies/%2Fa%20b/excite.v1.jobs");
    }

    #[tokio::test]
    async fn the_password_is_never_shown() {
        // Nobody can listen on port 0.
        let management = Management::new("http://user:secret@127.0.0.1:0", None).unwrap();
        let error = management.set_policies("/").await.unwrap_err();
        let shown = format!("{management:?} {error} {error:?}");
        assert!(!shown.contains("secret") && shown.contains("127.0.0.1"), "{shown}");
        for wrong in ["user:secret@host", "ftp://user:secret@host", "http://user:secret@:1:x"] {
            let error = Management::new(wrong, None).unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("15672"), "{error}");
        }
    }
}
