//! From a URL to a page or an image: hop by hop, and no more than a preview needs.

use std::{io::Cursor, time::Duration};

use image::ImageReader;
use reqwest::{
    Response,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION},
};
use ruma::http_headers::ContentDisposition;
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    super::{Error, Media, upload, upload::Named},
    page,
};
use crate::{
    clock::now_ms,
    federation::{rules::matches, web::Wish},
    storage,
};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// How long one answer takes at most.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a page that are read: what it says of itself stands at its head.
const PAGE_MAX: usize = 1 << 20;
/// Bytes of an answer in oEmbed's words.
const OEMBED_MAX: usize = 64 << 10;
/// Bytes of an image in which it says how large it is.
const IMAGE_HEAD: usize = 64 << 10;
/// What is asked for where a link leads to anything.
pub(super) const PAGES: &str = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.5";
/// What is asked for where an image is expected.
pub(super) const IMAGES: &str = "image/png,image/jpeg,image/webp,image/gif";

/// What a URL led to.
pub(super) enum Fetched {
    /// A page, or its beginning, and where it is in the end.
    Page {
        url: Url,
        content_type: String,
        bytes: Vec<u8>,
    },
    /// An image, which is in the repository now.
    Image(Image),
    /// What there is no preview of.
    Other,
}

/// An image of a preview.
pub(super) struct Image {
    mxc: String,
    content_type: &'static str,
    size: u64,
    sides: Option<(u32, u32)>,
    pub(super) file_name: Option<String>,
}

impl Image {
    /// The image in the words of a preview.
    pub(super) fn properties(&self) -> Map<String, Value> {
        let mut properties = Map::new();
        let mut set = |name: &str, value: Value| properties.insert(name.to_owned(), value);
        set("og:image", json!(self.mxc));
        set("og:image:type", json!(self.content_type));
        set("matrix:image:size", json!(self.size));
        if let Some((width, height)) = self.sides {
            set("og:image:width", json!(width));
            set("og:image:height", json!(height));
        }
        properties
    }
}

/// Refuses URLs that the administrator does not want to be looked at.
pub(super) fn check(media: &Media, url: &Url) -> Result<(), Error> {
    let config = &media.ctx().config.media.url_previews;
    let is_denied = config.deny.iter().any(|pattern| pattern.fits(url, matches));
    let is_allowed = config.allow.is_empty()
        || config
            .allow
            .iter()
            .any(|pattern| pattern.fits(url, matches));
    if is_denied || !is_allowed {
        return Err(Error::DeniedUrl);
    }
    Ok(())
}

/// Follows a URL to its end.
pub(super) async fn open(
    media: &Media,
    url: Url,
    languages: &str,
    accept: &str,
) -> Result<Fetched, Error> {
    let (url, answer) = follow(media, url, languages, accept).await?;
    let content_type = header(&answer, CONTENT_TYPE.as_str()).to_owned();
    let essence = content_type.split(';').next().unwrap_or_default();
    match essence.trim().to_ascii_lowercase().as_str() {
        "text/html" | "application/xhtml+xml" if accept == PAGES => Ok(Fetched::Page {
            url,
            content_type,
            bytes: beginning(answer, PAGE_MAX).await?,
        }),
        "image/png" => image(media, &url, answer, "image/png").await,
        "image/jpeg" | "image/jpg" => image(media, &url, answer, "image/jpeg").await,
        "image/webp" => image(media, &url, answer, "image/webp").await,
        "image/gif" => image(media, &url, answer, "image/gif").await,
        _ => Ok(Fetched::Other),
    }
}

/// The answer that is no redirect, and where it came from.
async fn follow(
    media: &Media,
    mut url: Url,
    accept_language: &str,
    accept: &str,
) -> Result<(Url, Response), Error> {
    let wish = Wish {
        accept,
        accept_language,
        timeout: TIMEOUT,
    };
    for _ in 0..=REDIRECTS_MAX {
        check(media, &url)?;
        let web = media.ctx().federation.web();
        let answer = web.get(&url, wish).await.map_err(|_| Error::NoPreview)?;
        if answer.status().is_success() {
            return Ok((url, answer));
        }
        let next = header(&answer, LOCATION.as_str());
        if !answer.status().is_redirection() || next.is_empty() {
            return Err(Error::NoPreview);
        }
        url = url.join(next).map_err(|_| Error::NoPreview)?;
        url.set_fragment(None);
    }
    Err(Error::NoPreview)
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn broke_off(_: reqwest::Error) -> Error {
    Error::NoPreview
}

/// The first bytes of an answer; the rest is left unread.
async fn beginning(mut answer: Response, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broke_off)? {
        let left = bytes_max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if bytes.len() == bytes_max {
            break;
        }
    }
    Ok(bytes)
}

/// Takes an image into the repository, for as long as previews are kept.
async fn image(
    media: &Media,
    url: &Url,
    mut answer: Response,
    content_type: &'static str,
) -> Result<Fetched, Error> {
    let max = media.ctx().config.media.url_previews.max_bytes;
    let disposition = header(&answer, CONTENT_DISPOSITION.as_str());
    let disposition = disposition.parse::<ContentDisposition>().ok();
    let last = url.path_segments().and_then(|mut parts| parts.next_back());
    let file_name = disposition
        .and_then(|disposition| disposition.filename)
        .or_else(|| last.map(ToOwned::to_owned))
        .map(|name| page::clean(&name, 100));
    let mut head = Vec::new();
    let mut draft = media.draft().await?;
    while let Some(chunk) = answer.chunk().await.map_err(broke_off)? {
        if draft.size() + chunk.len() as u64 > max {
            return Err(Error::NoPreview);
        }
        let left = IMAGE_HEAD - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(left)]);
        draft.write(&chunk).await?;
    }
    let blob = draft.finish().await?;
    let named = Named::new(Some(content_type.to_owned()), file_name);
    let id = upload::fresh_id();
    let server = media.own_nid().await?;
    let mut content = named.of(&blob);
    content.is_preview = true;
    let mut conn = media.ctx().db.conn().await?;
    storage::media::insert(&mut conn, (server, &id), None, &content, now_ms()).await?;
    Ok(Fetched::Image(Image {
        mxc: format!("mxc://{}/{id}", media.ctx().server_name()),
        content_type,
        size: blob.size,
        sides: sides(&head),
        file_name: named.file_name,
    }))
}

/// Width and height, where they stand at the beginning.
fn sides(head: &[u8]) -> Option<(u32, u32)> {
    let reader = ImageReader::new(Cursor::new(head));
    reader.with_guessed_format().ok()?.into_dimensions().ok()
}

/// What a page says in oEmbed's words (<https://oembed.com>): title, author, image.
pub(super) async fn oembed(
    media: &Media,
    url: Url,
    languages: &str,
) -> Vec<(&'static str, String)> {
    let read = async {
        let (_, answer) = follow(media, url, languages, "application/json").await?;
        beginning(answer, OEMBED_MAX).await
    };
    let Ok(said) = read.await else {
        return Vec::new();
    };
    let said: Value = serde_json::from_slice(&said).unwrap_or_default();
    let names = [
        ("og:title", "title"),
        ("og:site_name", "provider_name"),
        ("og:description", "author_name"),
        ("og:image", "thumbnail_url"),
    ];
    let found = names.into_iter().filter_map(|(name, key)| {
        let text = page::clean(said[key].as_str()?, 1_000);
        (!text.is_empty()).then_some((name, text))
    });
    found.collect()
}
