//! Bytes that are kept: blobs that are whole and safe, or not there. In a folder, or in an object
//! store; what is being written is a file here in both cases.

mod store;

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use self::store::Store;
use crate::config::media::S3;

/// Drafts of a process that ended are older than any upload takes.
const DRAFT_LIFE: Duration = Duration::from_hours(24);

/// Bytes that are read from a file at once.
const PIECE: usize = 64 << 10;

/// Bytes of a blob as they come.
pub type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Where blobs are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: Arc<Path>,
    /// `None`: the folder holds them itself.
    store: Option<Arc<Store>>,
}

/// A blob to read.
#[derive(Debug)]
pub struct Reader(Source);

#[derive(Debug)]
enum Source {
    File(fs::File),
    Stored(Arc<Store>, Uuid),
}

/// A blob as a file here.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    is_copy: bool,
}

/// A blob that is written.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its name.
    pub id: Uuid,
    /// Bytes.
    pub size: u64,
    /// Hash of the bytes.
    pub sha256: [u8; 32],
}

/// A blob that is being written; dropped unfinished, it is gone.
#[derive(Debug)]
pub struct Draft {
    /// Name it will have.
    pub id: Uuid,
    file: fs::File,
    path: PathBuf,
    blobs: Blobs,
    size: u64,
    hash: Sha256,
}

impl Blobs {
    /// Opens the folder, makes it if needed, and removes drafts that were left behind. With a store
    /// and a client to reach it, blobs are there.
    pub fn open(folder: &Path, store: Option<(&S3, reqwest::Client)>) -> io::Result<Self> {
        let drafts = folder.join("drafts");
        std::fs::create_dir_all(&drafts)?;
        // Another node may write here now: only what is old was left behind.
        let before = SystemTime::now() - DRAFT_LIFE;
        for entry in std::fs::read_dir(&drafts)? {
            let entry = entry?;
            if entry.metadata()?.modified()? < before {
                std::fs::remove_file(entry.path())?;
            }
        }
        let store = store.map(|(config, http)| Store::new(config, http));
        Ok(Self {
            folder: folder.into(),
            store: store.transpose()?.map(Arc::new),
        })
    }

    /// Begins a blob.
    pub async fn draft(&self) -> io::Result<Draft> {
        let id = Uuid::new_v4();
        let path = self.folder.join("drafts").join(id.simple().to_string());
        Ok(Draft {
            id,
            file: fs::File::create_new(&path).await?,
            path,
            blobs: self.clone(),
            size: 0,
            hash: Sha256::new(),
        })
    }

    /// A blob, to read. Of one in a store it shows when it is read whether it is there.
    pub async fn read(&self, id: Uuid) -> io::Result<Reader> {
        let source = match &self.store {
            None => Source::File(fs::File::open(self.path(id)).await?),
            Some(store) => Source::Stored(store.clone(), id),
        };
        Ok(Reader(source))
    }

    /// A blob as a file, for those who cannot read it piece by piece.
    pub async fn local(&self, id: Uuid, size: u64) -> io::Result<Local> {
        let Some(store) = &self.store else {
            return Ok(Local {
                path: self.path(id),
                is_copy: false,
            });
        };
        let name = Uuid::new_v4().simple().to_string();
        let local = Local {
            path: self.folder.join("drafts").join(name),
            is_copy: true,
        };
        let mut file = fs::File::create_new(&local.path).await?;
        let mut pieces = store.get(id, 0, size).await?;
        while let Some(piece) = pieces.next().await {
            file.write_all(&piece?).await?;
        }
        file.flush().await?;
        Ok(local)
    }

    /// Deletes blobs; one that is not there is no error.
    pub async fn delete(&self, ids: &[Uuid]) -> io::Result<()> {
        if let Some(store) = &self.store {
            return store.delete(ids).await;
        }
        for id in ids {
            match fs::remove_file(self.path(*id)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a blob is in the folder. Two levels, since folders with a million files are slow to
    /// list.
    fn path(&self, id: Uuid) -> PathBuf {
        let name = id.simple().to_string();
        self.folder.join(&name[..2]).join(&name[2..])
    }

    /// Puts a file in its place, on disk with all that leads to it.
    async fn place(&self, file: &Path, id: Uuid) -> io::Result<()> {
        let place = self.path(id);
        let folder = place.parent().unwrap_or(&place);
        fs::create_dir_all(folder).await?;
        fs::rename(file, &place).await?;
        // The new name is on disk when its folder is, and the folder's when that above it is.
        for folder in folder.ancestors().take(2) {
            fs::File::open(folder).await?.sync_all().await?;
        }
        Ok(())
    }
}

impl Reader {
    /// So many bytes from there on.
    pub async fn pieces(self, first: u64, length: u64) -> io::Result<Pieces> {
        match self.0 {
            // A store has no range of no bytes.
            Source::Stored(..) if length == 0 => Ok(futures_util::stream::empty().boxed()),
            Source::Stored(store, id) => store.get(id, first, length).await,
            Source::File(mut file) => {
                file.seek(SeekFrom::Start(first)).await?;
                let part = file.take(length);
                Ok(ReaderStream::with_capacity(part, PIECE).boxed())
            }
        }
    }
}

impl Local {
    /// Where it is, as long as this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.is_copy {
            // If it cannot be removed, a later start does it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Draft {
    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Puts the blob in its place once it is on disk.
    pub async fn finish(mut self) -> io::Result<Blob> {
        self.file.flush().await?;
        if let Some(store) = &self.blobs.store {
            store.put(self.id, &self.path, self.size).await?;
        } else {
            self.file.sync_all().await?;
            self.blobs.place(&self.path, self.id).await?;
        }
        let hash = std::mem::take(&mut self.hash);
        Ok(Blob {
            id: self.id,
            size: self.size,
            sha256: hash.finalize().into(),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there once it is in its place; if it cannot be removed, the next start does it.
        let _ = std::fs::remove_file(&self.path);
    }
}
