//! Media: uploads, downloads, thumbnails.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use reqwest::{Method, Response, header::RANGE};
use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    http::{self, Ask as _},
    server::Server,
    user::User,
};

const REGISTRATION: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n";

/// Server and id of an address.
pub(crate) fn parts(mxc: &str) -> (&str, &str) {
    mxc.strip_prefix("mxc://").unwrap().split_once('/').unwrap()
}

/// Any request with bytes for a body.
pub(crate) async fn ask(
    user: &User,
    method: Method,
    path: &str,
    (content_type, bytes): (&str, Vec<u8>),
) -> Response {
    let url = user.url("").replace("/_matrix/client/v3", path);
    let http = http::client();
    let request = http.request(method, url).bearer_auth(&user.token);
    let request = request.header("content-type", content_type).body(bytes);
    request.ask().await.unwrap()
}

/// A `GET`.
pub(crate) async fn get(user: &User, path: &str) -> Response {
    ask(user, Method::GET, path, ("", Vec::new())).await
}

/// Uploads; returns the address.
pub(crate) async fn upload(user: &User, query: &str, content_type: &str, bytes: &[u8]) -> String {
    let path = format!("/_matrix/media/v3/upload{query}");
    let answer = ask(user, Method::POST, &path, (content_type, bytes.to_vec())).await;
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    body["content_uri"].as_str().unwrap().to_owned()
}

/// Where a user downloads an address.
pub(crate) fn download(mxc: &str) -> String {
    let (server, id) = parts(mxc);
    format!("/_matrix/client/v1/media/download/{server}/{id}")
}

fn thumbnail(mxc: &str, query: &str) -> String {
    let (server, id) = parts(mxc);
    format!("/_matrix/client/v1/media/thumbnail/{server}/{id}?{query}")
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers()[name].to_str().unwrap()
}

pub(crate) async fn refused(answer: Response, status: u16, errcode: &str) {
    let got = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    assert_eq!(
        (got, body["errcode"].as_str()),
        (status, Some(errcode)),
        "{body}"
    );
}

pub(crate) fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut image = RgbImage::new(width, height);
    for (x, _, pixel) in image.enumerate_pixels_mut() {
        *pixel = if x < width / 2 {
            Rgb([255, 0, 0])
        } else {
            Rgb([0, 0, 255])
        };
    }
    let mut bytes = Vec::new();
    let out = &mut Cursor::new(&mut bytes);
    DynamicImage::from(image).write_to(out, format).unwrap();
    bytes
}

async fn decoded(answer: Response) -> DynamicImage {
    assert_eq!(answer.status(), 200);
    image::load_from_memory(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uploaded_can_be_downloaded_by_everybody_who_is_logged_in() {
    let mut server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mxc = upload(
        &alice,
        "?filename=Aktenvermerk%20%C3%A4.txt",
        "text/plain",
        b"0123456789",
    )
    .await;
    let answer = get(&bob, &download(&mxc)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "content-type"), "text/plain");
    assert!(header(&answer, "content-disposition").starts_with("inline; filename*=utf-8''"));
    assert_eq!(
        header(&answer, "cross-origin-resource-policy"),
        "cross-origin"
    );
    assert!(header(&answer, "content-security-policy").starts_with("sandbox; default-src 'none'"));
    assert_eq!(header(&answer, "content-length"), "10");
    assert_eq!(answer.text().await.unwrap(), "0123456789");

    let named = format!("{}/other.html", download(&mxc));
    let answer = get(&bob, &named).await;
    assert_eq!(
        header(&answer, "content-disposition"),
        "inline; filename=other.html"
    );
    let page = upload(&alice, "?filename=x.html", "text/html", b"<script>").await;
    let answer = get(&bob, &download(&page)).await;
    assert_eq!(
        header(&answer, "content-disposition"),
        "attachment; filename=x.html"
    );
    let empty = upload(&alice, "", "application/x-nothing", b"").await;
    let answer = get(&bob, &download(&empty)).await;
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "content-length")),
        (200, "0")
    );

    let http = http::client();
    let answer = http.get(server.url(&download(&mxc))).ask().await.unwrap();
    refused(answer, 401, "M_MISSING_TOKEN").await;
    let (name, id) = parts(&mxc);
    let old = server.url(&format!("/_matrix/media/v3/download/{name}/{id}"));
    refused(http.get(old).ask().await.unwrap(), 404, "M_NOT_FOUND").await;
    let avatar = json!({ "avatar_url": mxc });
    let (status, _) = alice
        .put(&format!("/profile/{}/avatar_url", enc(&alice.id)), avatar)
        .await;
    assert_eq!(status, 200);
    let (_, profile) = bob.get(&format!("/profile/{}", enc(&alice.id))).await;
    assert_eq!(profile["avatar_url"], mxc.as_str());

    server.kill();
    server.restart().await;
    let answer = get(&bob, &download(&mxc)).await;
    assert_eq!(
        answer.text().await.unwrap(),
        "0123456789",
        "after a power cut"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_file_are_served() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let mxc = upload(&alice, "", "video/mp4", &bytes).await;
    let http = http::client();
    let url = server.url(&download(&mxc));
    let ask = async |range: &str| {
        let request = http
            .get(&url)
            .bearer_auth(&alice.token)
            .header(RANGE, range);
        request.ask().await.unwrap()
    };
    for (range, shown, from, to) in [
        ("bytes=0-99", "bytes 0-99/300000", 0, 100),
        (
            "bytes=299990-",
            "bytes 299990-299999/300000",
            299_990,
            300_000,
        ),
        ("bytes=-5", "bytes 299995-299999/300000", 299_995, 300_000),
        ("bytes=100-999999", "bytes 100-299999/300000", 100, 300_000),
    ] {
        let answer = ask(range).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(header(&answer, "content-range"), shown);
        assert_eq!(answer.bytes().await.unwrap(), &bytes[from..to], "{range}");
    }
    let beyond = ask("bytes=300000-").await;
    assert_eq!(header(&beyond, "content-range"), "bytes */300000");
    refused(beyond, 416, "M_INVALID_PARAM").await;
    let whole = ask("bytes=0-1,3-4").await;
    assert_eq!(
        (whole.status().as_u16(), header(&whole, "accept-ranges")),
        (200, "bytes")
    );
    assert_eq!(whole.bytes().await.unwrap().len(), bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_come_after_its_address() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let reserve = async || {
        let path = "/_matrix/media/v1/create";
        let answer = ask(
            &alice,
            Method::POST,
            path,
            ("application/json", b"{}".to_vec()),
        )
        .await;
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (status, body) = reserve().await;
    assert_eq!(status, 200, "{body}");
    assert!(body["unused_expires_at"].is_i64());
    let mxc = body["content_uri"].as_str().unwrap().to_owned();
    let (name, id) = parts(&mxc);
    let put = format!("/_matrix/media/v3/upload/{name}/{id}");

    let answer = get(&bob, &format!("{}?timeout_ms=0", download(&mxc))).await;
    refused(answer, 504, "M_NOT_YET_UPLOADED").await;
    let answer = ask(&bob, Method::PUT, &put, ("text/plain", b"x".to_vec())).await;
    refused(answer, 403, "M_FORBIDDEN").await;
    // Bob waits while alice uploads.
    let path = download(&mxc);
    let (waited, uploaded) = tokio::join!(
        get(&bob, &path),
        ask(&alice, Method::PUT, &put, ("text/plain", b"late".to_vec()))
    );
    assert_eq!(uploaded.status(), 200);
    assert_eq!(waited.text().await.unwrap(), "late");
    let answer = ask(&alice, Method::PUT, &put, ("text/plain", b"x".to_vec())).await;
    refused(answer, 409, "M_CANNOT_OVERWRITE_MEDIA").await;
    for path in [
        format!("/_matrix/media/v3/upload/{name}/unknown"),
        format!("/_matrix/media/v3/upload/other.example/{id}"),
    ] {
        let answer = ask(&alice, Method::PUT, &path, ("text/plain", b"x".to_vec())).await;
        refused(answer, 404, "M_NOT_FOUND").await;
    }

    let mut last = (200, Value::Null);
    for _ in 0..21 {
        last = reserve().await;
    }
    assert_eq!(
        (last.0, &last.1["errcode"]),
        (429, &json!("M_LIMIT_EXCEEDED"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_size_and_quota_hold() {
    let media =
        "[media]\nmax_upload_bytes = 1000\nuser_quota_bytes = 1500\nunauthenticated = \"on\"\n";
    let server = Server::with(&format!("{media}{REGISTRATION}"), None).await;
    let alice = server.user("alice").await;
    for path in [
        "/_matrix/media/v3/config",
        "/_matrix/client/v1/media/config",
    ] {
        let body: Value = get(&alice, path).await.json().await.unwrap();
        assert_eq!(body, json!({ "m.upload.size": 1000 }));
    }
    let path = "/_matrix/media/v3/upload";
    let send = async |length: usize| {
        ask(
            &alice,
            Method::POST,
            path,
            ("text/plain", vec![b'x'; length]),
        )
        .await
    };
    refused(send(1001).await, 413, "M_TOO_LARGE").await;
    // Without a length beforehand the bytes are counted.
    let pieces = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let http = http::client();
    let request = http
        .post(server.url(path))
        .bearer_auth(&alice.token)
        .body(body);
    refused(request.ask().await.unwrap(), 413, "M_TOO_LARGE").await;
    let mxc = upload(&alice, "", "text/plain", &[b'x'; 1000]).await;
    refused(send(501).await, 403, "M_FORBIDDEN").await;
    assert_eq!(send(500).await.status(), 200);

    let (name, id) = parts(&mxc);
    let old = server.url(&format!("/_matrix/media/v3/download/{name}/{id}"));
    let answer = http.get(old).ask().await.unwrap();
    assert_eq!(answer.status(), 200, "the old address is open here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    for id in ["unknown", "..%2F..%2Fetc%2Fpasswd", "%00", &"x".repeat(300)] {
        let path = format!("/_matrix/client/v1/media/download/{}/{id}", server.name);
        refused(get(&alice, &path).await, 404, "M_NOT_FOUND").await;
    }
    let path = "/_matrix/client/v1/media/download/not%20a%20server/abc";
    refused(get(&alice, path).await, 400, "M_INVALID_PARAM").await;
    let path = format!("/_matrix/client/v1/media/download/{}/abc", "10.1.2.3");
    refused(get(&alice, &path).await, 502, "M_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_are_made_of_every_format() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (format, kind) in [
        (ImageFormat::Png, "image/png"),
        (ImageFormat::Jpeg, "image/jpeg"),
        (ImageFormat::WebP, "image/webp"),
        (ImageFormat::Gif, "image/gif"),
    ] {
        let mxc = upload(&alice, "", kind, &picture(1600, 400, format)).await;
        for (query, width, height) in [
            ("width=30&height=30&method=crop", 32, 32),
            ("width=96&height=96&method=crop", 96, 96),
            ("width=320&height=240&method=scale", 320, 80),
            ("width=5000&height=5000", 800, 200),
        ] {
            let image = decoded(get(&bob, &thumbnail(&mxc, query)).await).await;
            assert_eq!(
                (image.width(), image.height()),
                (width, height),
                "{kind} {query}"
            );
            let again = get(&alice, &thumbnail(&mxc, query)).await;
            assert!(header(&again, "content-disposition").starts_with("inline"));
            if kind == "image/png" {
                assert_eq!(
                    header(&again, "content-type"),
                    kind,
                    "sharp lines stay sharp"
                );
            }
            assert_eq!(decoded(again).await, image);
        }
    }
    let small = upload(&alice, "", "image/png", &picture(20, 10, ImageFormat::Png)).await;
    let image = decoded(get(&bob, &thumbnail(&small, "width=800&height=600")).await).await;
    assert_eq!(
        (image.width(), image.height()),
        (20, 10),
        "nothing is made larger"
    );
}

/// Thumbnails that are kept: their frames.
async fn kept(server: &Server) -> Vec<(i32, i32, bool)> {
    let mut database = server.database().await;
    let rows = "SELECT width, height, crop FROM media_thumbnail ORDER BY media_nid, width";
    sqlx::query_as(rows).fetch_all(&mut database).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_thumbnails_are_there_before_somebody_asks() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let picture = |width, height| picture(width, height, ImageFormat::Png);
    // What is no image, or does not say that it is one, keeps none of the others waiting.
    upload(&alice, "", "image/png", b"no image").await;
    upload(&alice, "", "application/octet-stream", &picture(900, 900)).await;
    upload(&alice, "", "image/png", &picture(30, 20)).await;
    let (status, reserved) = alice.post("/../../media/v1/create", json!({})).await;
    assert_eq!(status, 200, "{reserved}");
    let (name, id) = parts(reserved["content_uri"].as_str().unwrap());
    let path = format!("/_matrix/media/v3/upload/{name}/{id}");
    let body = ("image/png", picture(500, 100));
    let answer = ask(&alice, Method::PUT, &path, body).await;
    assert_eq!(answer.status(), 200);
    let mxc = upload(&alice, "", "image/png", &picture(1600, 400)).await;
    let few = [(32, 32, true), (96, 96, true), (320, 240, false)];
    let all = [&few[..], &[(640, 480, false), (800, 600, false)]].concat();
    let all = [&few[..], &all].concat();
    eventually("thumbnails of two images", async || {
        (kept(&server).await == all).then_some(())
    })
    .await;
    let image = decoded(get(&alice, &thumbnail(&mxc, "width=640&height=480")).await).await;
    assert_eq!((image.width(), image.height()), (640, 160));
    let image = decoded(get(&alice, &thumbnail(&mxc, "width=96&height=96&method=crop")).await);
    assert_eq!(image.await.width(), 96);
    assert_eq!(kept(&server).await, all, "none was made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_wants_it_thumbnails_are_made_for_those_who_ask() {
    let config = format!("{REGISTRATION}[media]\npremade_thumbnails = false\n");
    let server = Server::with(&config, None).await;
    let alice = server.user("alice").await;
    let picture = picture(1600, 400, ImageFormat::Png);
    let mxc = upload(&alice, "", "image/png", &picture).await;
    decoded(get(&alice, &thumbnail(&mxc, "width=640&height=480")).await).await;
    assert_eq!(kept(&server).await, [(640, 480, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn thumbnails_are_turned_as_the_camera_was_held() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let jpeg = picture(400, 200, ImageFormat::Jpeg);
    // Exif with one entry: orientation 6, a quarter turn to the right.
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let turned = [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat();
    let mxc = upload(&alice, "", "image/jpeg", &turned).await;
    let image = decoded(get(&alice, &thumbnail(&mxc, "width=320&height=240")).await).await;
    assert_eq!((image.width(), image.height()), (120, 240));
    let top = image.to_rgb8().get_pixel(60, 10).0;
    assert!(
        top[0] > 200 && top[2] < 60,
        "the left side is at the top: {top:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_thumbnail_is_made_of_what_is_no_good_image() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let png = picture(64, 64, ImageFormat::Png);
    // A header that promises 60 000 x 60 000 pixels, with its right checksum.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    for bytes in [
        b"no image at all".to_vec(),
        png[..40].to_vec(),
        bomb,
        Vec::new(),
    ] {
        let mxc = upload(&alice, "", "image/png", &bytes).await;
        for _ in 0..2 {
            let answer = get(&alice, &thumbnail(&mxc, "width=96&height=96&method=crop")).await;
            refused(answer, 400, "M_UNKNOWN").await;
        }
    }
    let mxc = upload(&alice, "", "image/png", &png).await;
    let answer = get(&alice, &thumbnail(&mxc, "width=x&height=1")).await;
    refused(answer, 400, "M_INVALID_PARAM").await;
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
