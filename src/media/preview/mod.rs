//! Previews of web pages that messages link to ([specification], "URL previews").
//!
//! Whoever writes a link has us call it: what is called, how long and how much is read is bounded,
//! and addresses are checked at every hop (`federation::web`).
//!
//! [specification]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url

mod fetch;
mod page;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use url::Url;

use self::fetch::Fetched;
use super::{Error, Media};
use crate::{
    clock::now_ms,
    storage::{self, previews::Key},
};

/// Bytes of a URL.
const URL_MAX: usize = 2_048;
/// Bytes of a list of languages.
const LANGUAGES_MAX: usize = 100;
/// How long a preview takes at most, with redirects, image and all.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a preview is kept.
const LIFE_MS: i64 = 3_600_000;
/// Previews that are kept at the same time.
const KEPT_MAX: i64 = 20_000;

/// The preview of a URL, in the languages that the client names.
pub async fn get(media: &Media, url: &str, languages: Option<&str>) -> Result<Arc<str>, Error> {
    let config = &media.ctx().config.media.url_previews;
    if !config.enabled {
        return Err(Error::PreviewsOff);
    }
    let url = parse(url)?;
    fetch::check(media, &url)?;
    let languages = languages
        .filter(|list| list.len() <= LANGUAGES_MAX && list.bytes().all(|c| matches!(c, 32..=126)))
        .unwrap_or(&config.accept_language);
    let key = key(&url, languages);
    let mut conn = media.ctx().db.conn().await?;
    let kept = storage::previews::find(&mut conn, &key, now_ms()).await?;
    drop(conn);
    match kept {
        Some(body) => Ok(body.into()),
        None => look(media, key, url, languages.to_owned()).await,
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    if url.len() > URL_MAX {
        return Err(Error::BadUrl);
    }
    let mut url = Url::parse(url).map_err(|_| Error::BadUrl)?;
    let is_web = ["http", "https"].contains(&url.scheme()) && url.has_host();
    if !is_web || !url.username().is_empty() || url.password().is_some() {
        return Err(Error::BadUrl);
    }
    url.set_fragment(None);
    Ok(url)
}

/// Which links are looked at is nobody's business: only the hash of a URL is kept.
fn key(url: &Url, languages: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update(url.as_str());
    hash.update([0]);
    hash.update(languages);
    hash.finalize().into()
}

/// Those who ask for the same wait for one preview, which goes on when they hang up.
async fn look(media: &Media, key: Key, url: Url, languages: String) -> Result<Arc<str>, Error> {
    let this = media.clone();
    let work = tokio::spawn(async move {
        let work = make(this.clone(), key, url, languages);
        this.0.previewing.try_get_with(key, work).await
    });
    let done = work.await.map_err(|_| Error::NoPreview)?;
    done.map_err(|error| match &*error {
        Error::DeniedUrl => Error::DeniedUrl,
        _ => Error::NoPreview,
    })
}

async fn make(media: Media, key: Key, url: Url, languages: String) -> Result<Arc<str>, Error> {
    let permit = media.0.previewers.acquire().await;
    let _permit = permit.map_err(|_| Error::NoPreview)?;
    let work = preview(&media, url, &languages);
    let preview = timeout(TIMEOUT, work).await;
    let preview = preview.map_err(|_| Error::NoPreview)??;
    let body: Arc<str> = Value::Object(preview).to_string().into();
    let mut conn = media.ctx().db.conn().await?;
    let until = now_ms() + LIFE_MS;
    storage::previews::insert(&mut conn, &key, &body, until, KEPT_MAX).await?;
    Ok(body)
}

async fn preview(media: &Media, url: Url, languages: &str) -> Result<Map<String, Value>, Error> {
    match fetch::open(media, url, languages, fetch::PAGES).await? {
        Fetched::Image(image) => {
            let mut preview = image.properties();
            if let Some(name) = image.file_name {
                preview.insert("og:title".to_owned(), json!(name));
            }
            Ok(preview)
        }
        Fetched::Page {
            url,
            content_type,
            bytes,
        } => of_page(media, &url, (bytes, content_type), languages).await,
        Fetched::Other => Ok(Map::new()),
    }
}

async fn of_page(
    media: &Media,
    url: &Url,
    (bytes, content_type): (Vec<u8>, String),
    languages: &str,
) -> Result<Map<String, Value>, Error> {
    let base = url.clone();
    // A megabyte of tags takes its time.
    let read = tokio::task::spawn_blocking(move || page::read(&bytes, &content_type, &base));
    let page = read.await.map_err(|_| Error::NoPreview)?;
    let mut said = page.properties;
    if let Some(oembed) = page.oembed.filter(|_| !said.contains_key("og:image")) {
        // What it would add is not worth failing for.
        for (name, value) in fetch::oembed(media, oembed, languages).await {
            said.entry(name.to_owned()).or_insert(value);
        }
    }
    let image = said.remove("og:image");
    said.retain(|name, _| !name.starts_with("og:image:"));
    let mut preview: Map<String, Value> = said
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect();
    if let Some(image) = image.and_then(|image| url.join(&image).ok())
        && let Ok(Fetched::Image(image)) = fetch::open(media, image, languages, fetch::IMAGES).await
    {
        preview.extend(image.properties());
    }
    Ok(preview)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_plain_addresses_of_the_web_are_looked_at() {
        let parsed = parse("https://Amt.example/a#b").unwrap();
        assert_eq!(parsed.as_str(), "https://amt.example/a");
        for wrong in [
            "",
            "/a",
            "file:///etc/passwd",
            "ftp://amt.example/",
            "data:text/html,a",
            "https://a@amt.example/",
            "https://:b@amt.example/",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
