//! Previews of web pages: what they tell, and whom the server does not call for them.

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use image::ImageFormat;
use serde_json::{Value, json};

use super::media::{download, get, parts, picture, refused};
use crate::rig::{enc, server::Server, user::User};

/// A web server of a stranger, on every address of this machine. It ends when it is dropped.
struct Site {
    port: u16,
    /// Host, path and language of each request.
    asked: Arc<Mutex<Vec<(String, String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Site {
    async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let router = axum::Router::new().fallback(async move |request: Request| {
            let header = |name| {
                let value = request.headers().get(name);
                value.map_or("", |value| value.to_str().unwrap()).to_owned()
            };
            let path = request.uri().path().to_owned();
            let request = (header("host"), path.clone(), header("accept-language"));
            noted.lock().unwrap().push(request);
            answer(&path, port)
        });
        let task = tokio::spawn(async move {
            axum::serve(socket, router).await.unwrap();
        });
        Self { port, asked, task }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How often a path was asked for, and in which languages.
    fn languages(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let fitting = asked.iter().filter(|(_, of, _)| of == path);
        fitting.map(|(_, _, language)| language.clone()).collect()
    }

    /// Whether anything came for that host.
    fn was_asked_as(&self, host: &str) -> bool {
        let asked = self.asked.lock().unwrap();
        asked.iter().any(|(of, _, _)| of.starts_with(host))
    }
}

fn html(text: impl Into<Body>) -> Response {
    ([("content-type", "text/html")], text.into()).into_response()
}

fn to(place: &str) -> Response {
    (http::StatusCode::FOUND, [("location", place)]).into_response()
}

fn answer(path: &str, port: u16) -> Response {
    match path {
        "/page" => html(
            "<title>no</title><meta property='og:title' content='Amt &amp; Bote'>\
             <meta property='og:image' content='/image.png'>\
             <meta name='description' content='Was es Neues gibt'>",
        ),
        "/old" => html(b"<title>Gr\xfc\xdfe</title><p>Text der Seite</p>".to_vec()),
        "/image.png" => {
            let image = picture(40, 30, ImageFormat::Png);
            ([("content-type", "image/png")], image).into_response()
        }
        "/large.png" => ([("content-type", "image/png")], vec![0; 200_000]).into_response(),
        "/with_large" => html("<title>A</title><meta property='og:image' content='large.png'>"),
        "/video" => html(
            "<title>V</title><link rel='alternate' type='application/json+oembed' href='/oembed'>",
        ),
        "/oembed" => {
            let said = json!({ "provider_name": "Tube", "thumbnail_url": "/image.png" });
            ([("content-type", "application/json")], said.to_string()).into_response()
        }
        "/endless" => {
            let head = "<title>Endless</title>".to_owned();
            let more = futures_util::stream::repeat_with(|| "<div><p>x".repeat(1_000));
            let all = futures_util::StreamExt::chain(futures_util::stream::iter([head]), more);
            html(Body::from_stream(futures_util::StreamExt::map(
                all,
                Ok::<_, std::io::Error>,
            )))
        }
        "/file" => ([("content-type", "application/pdf")], "%PDF").into_response(),
        "/redirect" => to("/page"),
        "/loop" => to("/loop"),
        "/inside" => to(&format!("http://127.0.0.2:{port}/page")),
        "/to_secret" => to("/secret/page"),
        _ => http::StatusCode::NOT_FOUND.into_response(),
    }
}

const BOTH: [&str; 2] = [
    "/_matrix/client/v1/media/preview_url",
    "/_matrix/media/v3/preview_url",
];

fn place(url: &str) -> String {
    format!("{}?url={}", BOTH[0], enc(url))
}

async fn preview(user: &User, url: &str) -> Value {
    let answer = get(user, &place(url)).await;
    assert_eq!(answer.status(), 200, "{url}");
    answer.json().await.unwrap()
}

const REGISTRATION: &str = "[registration]\nopen = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_previews_unless_the_administrator_wants_them() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let site = Site::start().await;
    for path in BOTH {
        let path = format!("{path}?url={}", enc(&site.url("/page")));
        refused(get(&alice, &path).await, 404, "M_UNRECOGNIZED").await;
    }
    assert!(site.asked.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_told_by_what_it_says_of_itself() {
    let previews = "[media.url_previews]\nenabled = true\nmax_bytes = 100000\n\
                    allow_ip_ranges = [\"127.0.0.1/32\"]\n";
    let server = Server::with(&format!("{REGISTRATION}{previews}"), None).await;
    let alice = server.user("alice").await;
    let site = Site::start().await;

    let said = preview(&alice, &site.url("/page#part")).await;
    assert_eq!(said["og:title"], "Amt & Bote");
    assert_eq!(said["og:description"], "Was es Neues gibt");
    assert_eq!(said["og:image:width"], 40);
    assert_eq!(said["og:image:height"], 30);
    assert_eq!(said["og:image:type"], "image/png");
    let image = said["og:image"].as_str().unwrap();
    assert_eq!(parts(image).0, server.name);
    let bytes = get(&alice, &download(image)).await.bytes().await.unwrap();
    assert_eq!(bytes, picture(40, 30, ImageFormat::Png));
    assert_eq!(said["matrix:image:size"], bytes.len());

    // Once more, without another look; in another language with one.
    assert_eq!(preview(&alice, &site.url("/page")).await, said);
    assert_eq!(site.languages("/page"), ["de, en;q=0.5"]);
    let http = crate::rig::http::client();
    let url = server.url(&place(&site.url("/page")));
    let french = http.get(url).bearer_auth(&alice.token);
    let french = french.header("accept-language", "fr");
    let answer = crate::rig::http::Ask::ask(french).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(site.languages("/page"), ["de, en;q=0.5", "fr"]);

    assert_eq!(
        preview(&alice, &site.url("/old")).await,
        json!({ "og:title": "Grüße", "og:description": "Text der Seite" })
    );
    let said = preview(&alice, &site.url("/redirect")).await;
    assert_eq!(said["og:title"], "Amt & Bote");
    let said = preview(&alice, &site.url("/image.png")).await;
    assert_eq!(said["og:title"], "image.png");
    assert_eq!(said["og:image:width"], 40);
    let said = preview(&alice, &site.url("/video")).await;
    assert_eq!(said["og:site_name"], "Tube");
    assert_eq!(said["og:image:width"], 40);
    assert_eq!(
        preview(&alice, &site.url("/with_large")).await,
        json!({ "og:title": "A" })
    );
    let said = preview(&alice, &site.url("/endless")).await;
    assert_eq!(said["og:title"], "Endless");
    assert_eq!(preview(&alice, &site.url("/file")).await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_called_whom_users_have_no_business_with() {
    let previews = "[media.url_previews]\nenabled = true\n\
                    allow_ip_ranges = [\"127.0.0.1/32\"]\ndeny = [\"127.0.0.1/secret/*\"]\n";
    // That peers may be called there means nothing for pages.
    let server = Server::with(&format!("{REGISTRATION}{previews}"), None).await;
    let alice = server.user("alice").await;
    let site = Site::start().await;
    let port = site.port;
    for unreachable in [
        format!("http://127.0.0.2:{port}/page"),
        format!("http://2130706434:{port}/page"),
        format!("http://0x7f.2:{port}/page"),
        format!("http://[::ffff:127.0.0.2]:{port}/page"),
        format!("http://[::1]:{port}/page"),
        format!("http://0.0.0.0:{port}/page"),
        format!("http://127.0.0.1:{}/page", crate::rig::free_port()),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://nowhere.invalid/".to_owned(),
        site.url("/inside"),
        site.url("/loop"),
        site.url("/nothing"),
    ] {
        refused(get(&alice, &place(&unreachable)).await, 404, "M_NOT_FOUND").await;
    }
    for host in ["127.0.0.2", "[", "0.0.0.0"] {
        assert!(!site.was_asked_as(host), "{host}");
    }
    for denied in ["/secret/page", "/to_secret"] {
        let answer = get(&alice, &place(&site.url(denied))).await;
        refused(answer, 403, "M_FORBIDDEN").await;
    }
    assert!(site.languages("/secret/page").is_empty());
    for wrong in ["file:///etc/passwd", "http://a@127.0.0.1/", "page", ""] {
        let answer = get(&alice, &place(wrong)).await;
        refused(answer, 400, "M_INVALID_PARAM").await;
    }
}
