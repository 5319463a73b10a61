//! A small S3 server over a folder, for tests and for trying things out.
//!
//! The library that does the work differs from S3 in two ways, which this program mends: of
//! writers that race under a condition more than one may win, and a missing bucket takes objects.
//! It can also refuse all that writes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::dto::{CreateMultipartUploadInput, PutObjectInput};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Request, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::RwLock;

const EXAMPLE: &str = "\
Example:
  mkdir -p target/s3/excite
  excite-s3 --port 9000 --access-key excite --secret-key excite-secret --root target/s3

Each folder in the root is a bucket.";

/// The largest object sent at once; larger ones come in parts.
const OBJECT_MAX: usize = 1 << 30;

/// Among how many locks objects are shared out.
const LOCKS: usize = 256;

/// Serve a folder as S3, for tests
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on
    #[arg(long)]
    port: u16,
    /// Key that clients name
    #[arg(long)]
    access_key: String,
    /// Secret that clients sign with
    #[arg(long)]
    secret_key: String,
    /// Folder of the data, which must exist
    #[arg(long)]
    root: PathBuf,
    /// Refuse whatever writes with 403 AccessDenied
    #[arg(long)]
    read_only: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind((args.host.as_str(), args.port)).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {} port {}", args.host, args.port))?;
    let router = Router::new().fallback(answer).with_state(Arc::new(Server::new(args)?));
    axum::serve(listener, router).await.context("serving")
}

struct Server {
    service: S3Service,
    locks: Vec<RwLock<()>>,
}

impl Server {
    fn new(args: Args) -> Result<Self> {
        let folder = FileSystem::new(&args.root);
        let folder = folder.map_err(|error| anyhow::anyhow!("{error:?}"));
        let folder = folder.with_context(|| format!("cannot use {}", args.root.display()))?;
        let mut builder = S3ServiceBuilder::new(folder);
        builder.set_auth(SimpleAuth::from_single(args.access_key, args.secret_key));
        builder.set_access(Access { root: args.root, read_only: args.read_only });
        let locks = (0..LOCKS).map(|_| RwLock::new(())).collect();
        Ok(Self { service: builder.build(), locks })
    }

    /// The lock of an object.
    fn lock(&self, path: &str) -> &RwLock<()> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let place = hasher.finish() % (LOCKS as u64);
        // Smaller than the number of locks.
        &self.locks[place as usize]
    }
}

/// Lets one writer at an object at a time, and no reader while it writes: the library looks at the
/// condition first and writes later, the bytes before the ETag.
async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let lock = server.lock(request.uri().path());
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut request = request.map(Body::http_body_unsync);
    // Before the lock, so that a slow client holds up nobody.
    if let Err(error) = request.body_mut().store_all_limited(OBJECT_MAX).await {
        return (StatusCode::BAD_REQUEST, format!("the body broke off: {error}")).into_response();
    }
    let answer = if reads {
        let _lock = lock.read().await;
        server.service.call(request).await
    } else {
        let _lock = lock.write().await;
        server.service.call(request).await
    };
    match answer {
        Ok(response) => response.map(axum::body::Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    }
}

/// Who may do what.
struct Access {
    root: PathBuf,
    read_only: bool,
}

impl Access {
    fn find(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "Signature is required"));
        }
        let name = context.s3_op().name();
        let reads = ["Get", "Head", "List"].iter().any(|start| name.starts_with(start));
        if self.read_only && !reads {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        Ok(())
    }

    async fn put_object(&self, request: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        self.find(&request.input.bucket)
    }

    async fn create_multipart_upload(
        &self,
        request: &mut S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<()> {
        self.find(&request.input.bucket)
    }
}
