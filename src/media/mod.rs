//! The media repository: uploads, downloads, thumbnails, copies of media of peers.
//!
//! Bytes are streamed and never whole in memory. A file is noted as loose before it is written,
//! and owned by the row that comes to hold it, so that none is forgotten on disk.

pub mod download;
pub mod freeing;
mod multipart;
pub mod preview;
pub mod quarantine;
pub mod references;
pub mod remote;
pub mod retention;
pub mod thumbnail;
pub mod upload;

use std::{io, sync::Arc, time::Duration};

use moka::future::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

use self::thumbnail::{Frame, Outcome};
use crate::{
    blobs::{Blobs, Draft, Reader},
    clock::now_ms,
    context::Context,
    federation, storage,
};

/// Media of peers that are fetched at the same time.
const FETCHES_MAX: usize = 32;
/// Images that are decoded at the same time: each may take a quarter of a gigabyte.
const DECODERS_MAX: usize = 2;
/// How long it is remembered what came of a thumbnail; a bad image is not decoded over and over.
const OUTCOME_LIFE: Duration = Duration::from_mins(5);
/// Remembered outcomes.
const OUTCOMES_MAX: u64 = 10_000;

/// Previews of web pages that are made at the same time.
const PREVIEWERS_MAX: usize = 8;

/// Why something about media was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such media, or none to be seen.
    #[error("media not found")]
    NotFound,
    /// The id is reserved, the bytes are to come.
    #[error("the media was not uploaded yet")]
    NotYetUploaded,
    /// The id has its bytes.
    #[error("the media was uploaded already")]
    CannotOverwrite,
    /// More bytes than allowed.
    #[error("the media is larger than {0} bytes")]
    TooLarge(u64),
    /// The user's share is used up.
    #[error("your uploads would take more than the {0} bytes that are yours")]
    OverQuota(u64),
    /// Too many reserved ids.
    #[error("too many uploads are pending")]
    TooManyPending,
    /// The id is another user's.
    #[error("the media id is not yours")]
    Forbidden,
    /// We have nothing to do with the server of the media.
    #[error("this server does not federate with {0}")]
    RefusedServer(OwnedServerName),
    /// Nothing that a thumbnail can be made of.
    #[error("no thumbnail can be made of this media")]
    NotAnImage,
    /// The administrator wants no previews of web pages.
    #[error("there are no previews of URLs here")]
    PreviewsOff,
    /// Nothing that could be a web page.
    #[error("this is not the URL of a web page")]
    BadUrl,
    /// The administrator does not want this one to be looked at.
    #[error("this URL is not looked at here")]
    DeniedUrl,
    /// It could not be reached, or may not be called: who asks does not learn which.
    #[error("no preview of this URL could be made")]
    NoPreview,
    /// The upload ended early.
    #[error("the upload broke off")]
    BrokenOff,
    /// The peer did not give it.
    #[error("the media could not be fetched: {0}")]
    Remote(String),
    /// Reading or writing files.
    #[error("files of media: {0}")]
    Disk(#[from] io::Error),
    /// The database.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl From<federation::Error> for Error {
    fn from(error: federation::Error) -> Self {
        match error {
            federation::Error::Remote { status: 404, .. } => Self::NotFound,
            federation::Error::Remote { status: 504, .. } => Self::NotYetUploaded,
            federation::Error::Refused(server) => Self::RefusedServer(server),
            federation::Error::Storage(error) => error.into(),
            other => Self::Remote(other.to_string()),
        }
    }
}

impl Error {
    /// Why a file was not read that a row owns.
    pub fn reading(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            tracing::error!(%error, "a file of the media repository is missing");
            return Self::NotFound;
        }
        Self::Disk(error)
    }
}

/// The repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Media(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ctx: Context,
    blobs: Blobs,
    /// Media of peers that are being fetched: one fetch for all who ask.
    fetching: Cache<(OwnedServerName, String), ()>,
    fetches: Semaphore,
    outcomes: Cache<(i64, Frame), Outcome>,
    decoders: Semaphore,
    waiting: thumbnail::Waiting,
    /// Previews that are being made: one for all who ask.
    previewing: Cache<storage::previews::Key, Arc<str>>,
    previewers: Semaphore,
    /// Files became loose that can go at once.
    freed: Notify,
    /// Counts uploads, for those who wait for one.
    uploaded: watch::Sender<u64>,
}

/// A file to serve.
#[derive(Debug)]
pub struct Served {
    /// The bytes.
    pub file: Reader,
    /// How many.
    pub size: u64,
    /// What the uploader called it, checked to fit into a header.
    pub content_type: Option<String>,
    /// Name the uploader gave.
    pub file_name: Option<String>,
}

impl Media {
    /// Opens the repository in the folder `media` of the data folder.
    pub fn open(ctx: Context) -> io::Result<Self> {
        let store = match &ctx.config.media.s3 {
            None => None,
            Some(config) => {
                let http = federation::tls::plain_client(&ctx.config.outbound);
                Some((config, http.map_err(io::Error::other)?))
            }
        };
        let blobs = Blobs::open(&ctx.config.data_dir.join("media"), store)?;
        Ok(Self(Arc::new(Inner {
            ctx,
            blobs,
            // What is fetched is in the database: nothing needs to be kept here.
            fetching: Cache::builder()
                .time_to_live(Duration::from_millis(100))
                .max_capacity(OUTCOMES_MAX)
                .build(),
            fetches: Semaphore::new(FETCHES_MAX),
            outcomes: Cache::builder()
                .time_to_live(OUTCOME_LIFE)
                .max_capacity(OUTCOMES_MAX)
                .build(),
            decoders: Semaphore::new(DECODERS_MAX),
            waiting: thumbnail::Waiting::new(),
            previewing: Cache::builder()
                .time_to_live(Duration::from_millis(100))
                .max_capacity(OUTCOMES_MAX)
                .build(),
            previewers: Semaphore::new(PREVIEWERS_MAX),
            freed: Notify::new(),
            uploaded: watch::Sender::new(0),
        })))
    }

    /// Infrastructure.
    pub fn ctx(&self) -> &Context {
        &self.0.ctx
    }

    /// An upload is there: its usual thumbnails are made in time.
    fn make_thumbnails(&self, id: &str, named: &upload::Named) {
        if self.ctx().config.media.premade_thumbnails {
            self.0.waiting.add(id, named.content_type.as_deref());
        }
    }

    /// Bytes of the largest media, ours or a peer's.
    pub fn bytes_max(&self) -> u64 {
        self.ctx().config.media.max_upload_bytes
    }

    async fn own_nid(&self) -> Result<storage::ServerNid, Error> {
        Ok(self.ctx().db.ids.server(self.ctx().server_name()).await?)
    }

    /// Begins a file that is deleted later unless a row comes to own it.
    async fn draft(&self) -> Result<Draft, Error> {
        let draft = self.0.blobs.draft().await?;
        let mut conn = self.ctx().db.conn().await?;
        storage::media::insert_loose(&mut conn, draft.id, now_ms()).await?;
        Ok(draft)
    }

    async fn serve(
        &self,
        blob: Uuid,
        size: i64,
        (content_type, file_name): (Option<String>, Option<String>),
    ) -> Result<Served, Error> {
        Ok(Served {
            file: self.0.blobs.read(blob).await.map_err(Error::reading)?,
            size: u64::try_from(size).unwrap_or(0),
            content_type,
            file_name,
        })
    }

    fn is_own(&self, server: &ServerName) -> bool {
        server == self.ctx().server_name()
    }
}
