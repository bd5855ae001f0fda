//! Blobs in an object store that speaks S3.

use std::{io, path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector},
    path::Path as Key,
};
use tokio::{fs, io::AsyncReadExt};
use uuid::Uuid;

use super::Pieces;
use crate::config::media::S3;

/// Bytes of a part: a hundred parts of the largest file that anybody allows, and in memory a few.
const PART: usize = 8 << 20;
/// Parts of one blob that are under way at the same time.
const PARTS_MAX: usize = 3;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// How long a request is tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    s3: AmazonS3,
    prefix: Key,
}

/// The client that all our requests leave by.
#[derive(Debug)]
struct Ours(reqwest::Client);

impl HttpConnector for Ours {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Store {
    pub(super) fn new(config: &S3, http: reqwest::Client) -> io::Result<Self> {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(config.secret_access_key.0.as_str())
            .with_virtual_hosted_style_request(!config.path_style)
            .with_allow_http(config.endpoint.starts_with("http://"))
            .with_retry(RetryConfig {
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            })
            .with_http_connector(Ours(http));
        if !config.endpoint.is_empty() {
            builder = builder.with_endpoint(&config.endpoint);
        }
        Ok(Self {
            s3: builder.build().map_err(failed)?,
            prefix: Key::from(config.prefix.as_str()),
        })
    }

    fn key(&self, id: Uuid) -> Key {
        self.prefix.clone().join(id.simple().to_string())
    }

    /// Stores a file, in parts if it is large. It is whole or not there: parts that were not put
    /// together are no object.
    pub(super) async fn put(&self, id: Uuid, file: &Path, size: u64) -> io::Result<()> {
        let key = self.key(id);
        if size <= PART as u64 {
            let bytes = fs::read(file).await?;
            self.s3.put(&key, bytes.into()).await.map_err(failed)?;
            return Ok(());
        }
        let mut file = fs::File::open(file).await?;
        let upload = self.s3.put_multipart(&key).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut piece = vec![0; PIECE];
        loop {
            let read = match file.read(&mut piece).await {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    let _ = upload.abort().await;
                    return Err(error);
                }
            };
            if let Err(error) = upload.wait_for_capacity(PARTS_MAX).await {
                let _ = upload.abort().await;
                return Err(failed(error));
            }
            upload.write(&piece[..read]);
        }
        // What fails here is taken back by `finish` itself.
        upload.finish().await.map_err(failed)?;
        Ok(())
    }

    /// Some bytes of a blob, piece by piece.
    pub(super) async fn get(&self, id: Uuid, first: u64, length: u64) -> io::Result<Pieces> {
        let range = first..first + length;
        let options = GetOptions::new().with_range(Some(range));
        let found = self.s3.get_opts(&self.key(id), options).await;
        let pieces = found.map_err(failed)?.into_stream();
        Ok(pieces.map_err(failed).boxed())
    }

    /// Deletes blobs; one that is not there is no error.
    pub(super) async fn delete(&self, ids: &[Uuid]) -> io::Result<()> {
        let keys: Vec<_> = ids.iter().map(|id| Ok(self.key(*id))).collect();
        let mut deleted = self.s3.delete_stream(stream::iter(keys).boxed());
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// Errors of the store name keys and hosts, and no secrets.
fn failed(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
