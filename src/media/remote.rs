//! Media of peers, fetched once and kept.

use std::time::Duration;

use ruma::{
    OwnedServerName, ServerName,
    api::federation::authenticated_media::get_content::v1::Request as GetContent,
    http_headers::ContentDisposition,
};
use tokio::time::timeout;

use super::{
    Error, Media,
    multipart::{Found, Parser},
    upload::Named,
};
use crate::{blobs::Draft, clock::now_ms, federation, storage};

/// How long a peer may take to begin: as long as it may wait for an upload, and a little more.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a fetch may take in all.
const FETCH_TIMEOUT: Duration = Duration::from_mins(10);

/// Fetches media of a peer into the repository. Those who ask for the same wait for one fetch,
/// which goes on when they hang up.
pub async fn fetch(media: &Media, server: &ServerName, id: &str) -> Result<(), Error> {
    let key = (server.to_owned(), id.to_owned());
    let this = media.clone();
    let fetch = tokio::spawn(async move {
        let work = fetch_once(this.clone(), key.0.clone(), key.1.clone());
        this.0.fetching.try_get_with(key, work).await
    });
    let done = fetch
        .await
        .map_err(|error| Error::Remote(error.to_string()))?;
    done.map_err(|error| match &*error {
        Error::NotFound => Error::NotFound,
        Error::NotYetUploaded => Error::NotYetUploaded,
        Error::TooLarge(max) => Error::TooLarge(*max),
        Error::RefusedServer(server) => Error::RefusedServer(server.clone()),
        Error::Remote(why) => Error::Remote(why.clone()),
        other => Error::Remote(other.to_string()),
    })
}

async fn fetch_once(media: Media, server: OwnedServerName, id: String) -> Result<(), Error> {
    let slow = |_| Error::Remote("the other server is too slow".to_owned());
    let work = async {
        let permit = media.0.fetches.acquire().await;
        let _permit = permit.map_err(|error| Error::Remote(error.to_string()))?;
        let mut draft = media.draft().await?;
        let named = receive(&media, (&server, &id), &mut draft).await?;
        Ok::<_, Error>((draft.finish().await?, named))
    };
    let (blob, named) = timeout(FETCH_TIMEOUT, work).await.map_err(slow)??;
    let nid = media.ctx().db.ids.server(&server).await?;
    let mut conn = media.ctx().db.conn().await?;
    // Another node may have been faster; then its copy serves, and ours stays loose.
    storage::media::insert(&mut conn, (nid, &id), None, &named.of(&blob), now_ms()).await?;
    Ok(())
}

async fn receive(
    media: &Media,
    (server, id): (&ServerName, &str),
    draft: &mut Draft,
) -> Result<Named, Error> {
    let slow = |_| Error::Remote("the other server is too slow".to_owned());
    let client = &media.ctx().federation;
    let signed = client.open(server, GetContent::new(id.to_owned()), FETCH_TIMEOUT);
    match timeout(BEGIN_TIMEOUT, signed).await.map_err(slow)? {
        Ok(answer) => parts(media, answer, draft).await,
        // Servers from before version 1.11 of the specification: they refuse without a code of Matrix.
        Err(federation::Error::Remote {
            status: 400..500,
            errcode,
            ..
        }) if errcode.is_empty() || errcode == "M_UNRECOGNIZED" => {
            let path = format!("/_matrix/media/v3/download/{server}/{id}?allow_remote=false");
            let plain = client.open_path(server, &path, FETCH_TIMEOUT);
            let answer = timeout(BEGIN_TIMEOUT, plain).await.map_err(slow)??;
            whole(media, answer, draft).await
        }
        Err(error) => Err(error.into()),
    }
}

fn broke_off(error: &dyn std::fmt::Display) -> Error {
    Error::Remote(format!("the answer broke off: {error}"))
}

fn header<'a>(answer: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

async fn write(media: &Media, draft: &mut Draft, bytes: &[u8]) -> Result<(), Error> {
    let max = media.bytes_max();
    if draft.size() + bytes.len() as u64 > max {
        return Err(Error::TooLarge(max));
    }
    Ok(draft.write(bytes).await?)
}

fn named(content_type: Option<&str>, disposition: Option<&str>) -> Named {
    let disposition = disposition.and_then(|text| text.parse::<ContentDisposition>().ok());
    let file_name = disposition.and_then(|disposition| disposition.filename);
    Named::new(content_type.map(ToOwned::to_owned), file_name)
}

/// An answer of the server API: an object, then the media or its location.
async fn parts(
    media: &Media,
    mut answer: reqwest::Response,
    draft: &mut Draft,
) -> Result<Named, Error> {
    let nonsense = |why: &str| Error::Remote(why.to_owned());
    let kind = header(&answer, "content-type").unwrap_or_default();
    let mut parser = Parser::new(kind).map_err(nonsense)?;
    let mut names = Named::default();
    while let Some(piece) = answer.chunk().await.map_err(|error| broke_off(&error))? {
        parser.push(&piece);
        while let Some(found) = parser.next().map_err(nonsense)? {
            match found {
                Found::Headers(headers) => {
                    if let Some(location) = headers.location {
                        return elsewhere(media, &location, draft).await;
                    }
                    let disposition = headers.content_disposition.as_deref();
                    names = named(headers.content_type.as_deref(), disposition);
                }
                Found::Bytes(bytes) => write(media, draft, &bytes).await?,
            }
        }
    }
    if !parser.is_whole() {
        return Err(broke_off(&"no end"));
    }
    Ok(names)
}

/// Media that the peer keeps at another address, as it says.
async fn elsewhere(media: &Media, location: &str, draft: &mut Draft) -> Result<Named, Error> {
    let open = media.ctx().federation.open_url(location, FETCH_TIMEOUT);
    whole(media, open.await?, draft).await
}

/// An answer that is the media and nothing else.
async fn whole(
    media: &Media,
    mut answer: reqwest::Response,
    draft: &mut Draft,
) -> Result<Named, Error> {
    let names = named(
        header(&answer, "content-type"),
        header(&answer, "content-disposition"),
    );
    while let Some(piece) = answer.chunk().await.map_err(|error| broke_off(&error))? {
        write(media, draft, &piece).await?;
    }
    Ok(names)
}
