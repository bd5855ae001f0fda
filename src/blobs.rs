//! Bytes on disk: files that are whole and on the platter, or not there.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tokio::{fs, io::AsyncWriteExt};
use uuid::Uuid;

/// Drafts of a process that ended are older than any upload takes.
const DRAFT_LIFE: Duration = Duration::from_hours(24);

/// A folder of blobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: Arc<Path>,
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
    place: PathBuf,
    size: u64,
    hash: Sha256,
}

impl Blobs {
    /// Opens the folder, makes it if needed, and removes drafts that were left behind.
    pub fn open(folder: &Path) -> io::Result<Self> {
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
        Ok(Self {
            folder: folder.into(),
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
            place: self.path(id),
            size: 0,
            hash: Sha256::new(),
        })
    }

    /// A blob's file, to read.
    pub async fn read(&self, id: Uuid) -> io::Result<fs::File> {
        fs::File::open(self.path(id)).await
    }

    /// Deletes blobs; one that is not there is no error.
    pub async fn delete(&self, ids: &[Uuid]) -> io::Result<()> {
        for id in ids {
            match fs::remove_file(self.path(*id)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a blob is. Two levels, since folders with a million files are slow to list.
    pub fn path(&self, id: Uuid) -> PathBuf {
        let name = id.simple().to_string();
        self.folder.join(&name[..2]).join(&name[2..])
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
        self.file.sync_all().await?;
        let folder = self.place.parent().unwrap_or(&self.place);
        fs::create_dir_all(folder).await?;
        fs::rename(&self.path, &self.place).await?;
        // The new name is on disk when its folder is, and the folder's when that above it is.
        for folder in folder.ancestors().take(2) {
            fs::File::open(folder).await?.sync_all().await?;
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
