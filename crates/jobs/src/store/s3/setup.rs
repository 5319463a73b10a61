//! The client: where the server is, how long everything may take, who we are.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::{TimeoutConfig, TimeoutConfigBuilder};
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::S3Store;
use crate::store::{StoreError, check_key};

/// Asked for by the signature, ignored by servers that are not Amazon's.
const ANY_REGION: &str = "us-east-1";

/// Where the bucket is.
#[derive(Debug, Clone, Default)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// In front of all keys; may be empty.
    pub prefix: String,
    /// Of a server that is not Amazon's: `https://host:9000`.
    pub endpoint: Option<String>,
    /// If the environment does not say; of no account with an endpoint.
    pub region: Option<String>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// The bucket in the path instead of the host's name. With an endpoint it always is: such
    /// servers seldom have a name for each bucket.
    pub path_style: bool,
}

pub(super) async fn open(
    options: S3Options,
    keys: Option<(&str, &str)>,
) -> Result<S3Store, StoreError> {
    let prefix = options.prefix.trim_matches('/');
    if !prefix.is_empty() {
        check_key(prefix)?;
    }
    if options.bucket.is_empty() || options.bucket.contains('/') {
        return Err(StoreError::NoBucket(format!("bucket `{}`", options.bucket)));
    }
    let http = http_client(options.ca_pem.as_deref())?;
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    let given = options.region.clone().map(Region::new);
    loader = match (&options.endpoint, given) {
        (_, Some(region)) => loader.region(region),
        // Not the whole chain: asking the machine for its role takes seconds where there is none.
        (Some(_), None) => loader.region(
            RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(Region::from_static(ANY_REGION)),
        ),
        (None, None) => loader,
    };
    if let Some((access_key, secret_key)) = keys {
        let keys = Credentials::new(access_key, secret_key, None, None, "given");
        loader = loader.credentials_provider(keys);
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        let message = "no region is known: set `AWS_REGION`, or `region` in the section `store`";
        return Err(StoreError::Unsuitable(message.to_owned()));
    }
    let mut config = Builder::from(&shared)
        .http_client(http)
        .force_path_style(options.path_style || options.endpoint.is_some())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .timeout_config(timeouts().build())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(5)
                .with_initial_backoff(Duration::from_millis(200))
                .with_max_backoff(Duration::from_secs(5)),
        );
    if let Some(endpoint) = options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(S3Store { client: Client::from_conf(config.build()), bucket: options.bucket, prefix })
}

/// For what fits in memory.
fn timeouts() -> TimeoutConfigBuilder {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        // Until the first byte of an answer, so with the upload.
        .read_timeout(Duration::from_secs(10))
        .operation_attempt_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(120))
}

/// For a part of a file: 64 MiB at 2 Mbit/s. A stalled upload is found earlier.
pub(super) fn patient() -> Builder {
    let timeouts = timeouts()
        .read_timeout(Duration::from_secs(300))
        .operation_attempt_timeout(Duration::from_secs(300))
        .operation_timeout(Duration::from_secs(1200));
    aws_sdk_s3::config::Config::builder().timeout_config(timeouts.build())
}

/// The one TLS of this workspace: the SDK brings none of its own.
fn http_client(ca_pem: Option<&[u8]>) -> Result<SharedHttpClient, StoreError> {
    let tls = Provider::Rustls(CryptoMode::Ring);
    let builder = aws_smithy_http_client::Builder::new().tls_provider(tls);
    let Some(pem) = ca_pem else { return Ok(builder.build_https()) };
    // Checked here, for the client would panic on it.
    if !String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----") {
        let message = "the file of certificates holds none in PEM".to_owned();
        return Err(StoreError::Unsuitable(message));
    }
    let trust = TrustStore::default().with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| {
        StoreError::Unsuitable(format!("the certificates cannot be used: {error}"))
    })?;
    Ok(builder.tls_context(context).build_https())
}
