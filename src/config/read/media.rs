//! The section `[media]`.

use super::super::{
    Media,
    media::{S3, UrlPreviews},
    source::Source,
};

pub(super) fn read(source: &mut Source, defaults: &Media) -> Media {
    let max_upload_bytes = source.number("media.max_upload_bytes");
    if max_upload_bytes == Some(0) {
        let remedy = "nothing could be uploaded; give a number of bytes, such as 104857600";
        source.problem("media.max_upload_bytes", Some("0".to_owned()), remedy);
    }
    Media {
        max_upload_bytes: max_upload_bytes.unwrap_or(defaults.max_upload_bytes),
        user_quota_bytes: source.number("media.user_quota_bytes"),
        local_lifetime_days: lifetime(source, "media.local_lifetime_days", "uploads"),
        remote_lifetime_days: lifetime(source, "media.remote_lifetime_days", "copies"),
        premade_thumbnails: source.flag("media.premade_thumbnails", defaults.premade_thumbnails),
        unauthenticated: unauthenticated(source),
        url_previews: url_previews(source, &defaults.url_previews),
        s3: s3(source),
    }
}

fn lifetime(source: &mut Source, key: &'static str, what: &str) -> Option<u32> {
    let days = source.number(key)?;
    let found = u32::try_from(days).ok().filter(|days| *days > 0);
    if found.is_none() {
        let remedy = format!("is no number of days, such as 90; leave it out to keep {what}");
        source.problem(key, Some(days.to_string()), remedy);
    }
    found
}

fn s3(source: &mut Source) -> Option<S3> {
    let bucket = source.text("media.s3.bucket");
    let endpoint = source.text("media.s3.endpoint").unwrap_or_default();
    let region = source.text("media.s3.region");
    let prefix = source.text("media.s3.prefix").unwrap_or_default();
    let access_key_id = source.text("media.s3.access_key_id");
    let secret = source.secret(
        "media.s3.secret_access_key",
        "media.s3.secret_access_key_file",
    );
    let path_style = source.flag("media.s3.path_style", true);
    let is_address = |text: &str| {
        let url = url::Url::parse(text).ok();
        url.is_some_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
    };
    if !endpoint.is_empty() && !is_address(&endpoint) {
        let remedy = "is no address; write it as \"https://s3.amt.example\"";
        source.problem("media.s3.endpoint", Some(format!("{endpoint:?}")), remedy);
    }
    match (bucket, access_key_id, secret) {
        (Some(bucket), Some(access_key_id), Some(secret_access_key)) => Some(S3 {
            endpoint,
            bucket,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            prefix,
            access_key_id,
            secret_access_key,
            path_style,
        }),
        (None, None, None) => None,
        _ => {
            let remedy = "an object store needs bucket, access_key_id, and one of \
                          secret_access_key and secret_access_key_file";
            source.problem("media.s3", None, remedy);
            None
        }
    }
}

fn url_previews(source: &mut Source, defaults: &UrlPreviews) -> UrlPreviews {
    let pattern = "is no pattern of URLs; they look like \"*.amt.example\" or \
                   \"https://amt.example/news/*\"";
    let range = "is not a range of addresses; write it as \"10.0.0.0/8\" or \"fd00::/8\"";
    let key = "media.url_previews.accept_language";
    let accept_language = source.text(key);
    let is_header = |text: &String| text.bytes().all(|c| matches!(c, 32..=126));
    if accept_language
        .as_ref()
        .is_some_and(|text| !is_header(text))
    {
        let remedy = "is no list of languages; write it as \"de, en;q=0.5\"";
        source.problem(key, accept_language.clone(), remedy);
    }
    UrlPreviews {
        enabled: source.flag("media.url_previews.enabled", defaults.enabled),
        allow: source.parse_list("media.url_previews.allow", pattern),
        deny: source.parse_list("media.url_previews.deny", pattern),
        allow_ip_ranges: source.parse_list("media.url_previews.allow_ip_ranges", range),
        deny_ip_ranges: source.parse_list("media.url_previews.deny_ip_ranges", range),
        max_bytes: source
            .number("media.url_previews.max_bytes")
            .unwrap_or(defaults.max_bytes),
        accept_language: accept_language.unwrap_or_else(|| defaults.accept_language.clone()),
    }
}

fn unauthenticated(source: &mut Source) -> bool {
    let key = "media.unauthenticated";
    match source.text(key).as_deref() {
        None | Some("off") => false,
        Some("on") => true,
        Some(other) => {
            source.problem(
                key,
                Some(format!("{other:?}")),
                "expected \"off\" or \"on\"",
            );
            false
        }
    }
}
