//! Pages of a server, as a browser without script shows them.

use std::collections::BTreeSet;

use reqwest::Method;

use super::{
    http::{self, Ask as _},
    server::Server,
};

/// A page.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) html: String,
}

/// Opens a page, in a language if that matters.
pub(crate) async fn open(server: &Server, path: &str, language: &str) -> Page {
    load(server, Method::GET, path, (language, None)).await
}

/// Sends a form.
pub(crate) async fn send(server: &Server, path: &str, fields: &[(&str, &str)]) -> Page {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    load(server, Method::POST, path, ("en", Some(form.finish()))).await
}

async fn load(
    server: &Server,
    method: Method,
    path: &str,
    (language, form): (&str, Option<String>),
) -> Page {
    let mut request = http::client().request(method, server.url(path));
    request = request.header("accept-language", language);
    if let Some(form) = form {
        let kind = "application/x-www-form-urlencoded";
        request = request.header("content-type", kind).body(form);
    }
    let answer = request.ask().await.unwrap();
    let status = answer.status().as_u16();
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let kind = header("content-type");
    assert!(kind.starts_with("text/html"), "{path}: {kind}");
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    let html = answer.text().await.unwrap();
    is_for_everybody(&html);
    Page { status, html }
}

/// Whether a page is one that everybody can use: it says its language and title, each field has a
/// label, and nothing needs script.
pub(super) fn is_for_everybody(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html><html lang=\""), "{html}");
    assert!(html.contains("<title>") && html.contains("<h1>"), "{html}");
    assert!(html.contains("<main>"), "{html}");
    for bad in [
        "<style",
        " style=",
        " onclick=",
        " onload=",
        " onsubmit=",
        "javascript:",
    ] {
        assert!(!html.contains(bad), "{bad}: {html}");
    }
    for script in html.split("<script").skip(1) {
        assert!(script.starts_with(" src=\"/"), "{script}");
        assert!(script.contains("></script>"), "{script}");
    }
    let labels: BTreeSet<String> = attributes(html, "label", "for").into_iter().collect();
    for input in html.split("<input").skip(1) {
        let input = input.split('>').next().unwrap();
        if !input.contains("type=\"hidden\"") {
            let id = input
                .split("id=\"")
                .nth(1)
                .and_then(|it| it.split('"').next());
            assert!(
                id.is_some_and(|id| labels.contains(id)),
                "no label: {input}"
            );
        }
    }
}

/// What an attribute of every element of a kind says.
fn attributes(html: &str, element: &str, name: &str) -> Vec<String> {
    let begin = format!("<{element} ");
    let elements = html.split(&begin).skip(1);
    let elements = elements.map(|element| element.split('>').next().unwrap());
    let start = format!("{name}=\"");
    elements
        .filter_map(|element| {
            element
                .split(&start)
                .nth(1)?
                .split('"')
                .next()
                .map(unescape)
        })
        .collect()
}

impl Page {
    /// The value of a hidden field.
    pub(crate) fn hidden(&self, name: &str) -> String {
        let mut inputs = self.html.split("<input ").skip(1);
        let field = format!("name=\"{name}\"");
        let input = inputs.find(|input| input.split('>').next().unwrap().contains(&field));
        let input = input.unwrap_or_else(|| panic!("no field {name} in {}", self.html));
        let value = input.split("value=\"").nth(1).unwrap();
        unescape(value.split('"').next().unwrap())
    }

    /// Where its links lead.
    pub(crate) fn links(&self) -> Vec<String> {
        attributes(&self.html, "a", "href")
    }

    /// What an attribute says, of the element that has it.
    pub(crate) fn attribute(&self, name: &str) -> String {
        let value = self.html.split(&format!("{name}=\"")).nth(1);
        let value = value.unwrap_or_else(|| panic!("no {name} in {}", self.html));
        unescape(value.split('"').next().unwrap())
    }
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}
