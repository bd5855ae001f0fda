//! What a web page says of itself: Open Graph, title, description, image. Pure.
//!
//! The page is read as a row of tags and never as a tree: nothing grows with how deep it nests.

use std::collections::BTreeMap;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use html5gum::{DefaultEmitter, EndTag, HtmlString, StartTag, Token, Tokenizer};
use url::Url;

/// Bytes in which a page says its charset (HTML Standard, "determining the character encoding").
const PRESCAN: usize = 1024;
/// Properties that are kept.
const PROPERTIES_MAX: usize = 50;
/// Bytes of a property's name.
const NAME_MAX: usize = 100;
/// Characters of a value: nobody shows more of it.
const VALUE_MAX: usize = 1_000;
/// Characters of a description that is taken from the text of the page.
const TEXT_MAX: usize = 500;
/// Elements whose text is not what the page is about.
const BESIDE: [&[u8]; 9] = [
    b"script",
    b"style",
    b"noscript",
    b"nav",
    b"header",
    b"footer",
    b"aside",
    b"svg",
    b"template",
];

/// What a page says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// `og:…` and its like.
    pub(super) properties: BTreeMap<String, String>,
    /// Where the page says the same in oEmbed's words.
    pub(super) oembed: Option<Url>,
}

/// Reads a page, or as much of it as there is.
pub(super) fn read(bytes: &[u8], content_type: &str, base: &Url) -> Page {
    let (text, _, _) = encoding(bytes, content_type).decode(bytes);
    let mut emitter = DefaultEmitter::default();
    // Scripts and styles are text, whatever it looks like.
    emitter.naively_switch_states(true);
    let mut reader = Reader::new(base);
    for Ok(token) in Tokenizer::new_with_emitter(text.as_ref(), emitter) {
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&tag),
            Token::String(text) => reader.text(&text),
            _ => {}
        }
    }
    reader.page()
}

/// Charset: of a byte order mark (which `decode` sees itself), the header, the page; else UTF-8
/// where it is that, and what the web was written in before.
fn encoding(bytes: &[u8], content_type: &str) -> &'static Encoding {
    let head = &bytes[..bytes.len().min(PRESCAN)];
    let named = charset(content_type).or_else(|| {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        head.split("<meta").skip(1).find_map(|rest| {
            let tag = rest.split('>').next().unwrap_or_default();
            charset(tag)
        })
    });
    named.unwrap_or_else(|| {
        // The last character may be cut in two.
        match std::str::from_utf8(bytes) {
            Err(error) if error.error_len().is_some() => WINDOWS_1252,
            _ => UTF_8,
        }
    })
}

/// The charset that a text names behind `charset=`.
fn charset(text: &str) -> Option<&'static Encoding> {
    let lower = text.to_ascii_lowercase();
    let (_, rest) = lower.split_once("charset")?;
    let rest = rest.trim_start().strip_prefix('=')?;
    let label = rest.trim_start_matches([' ', '"', '\'']);
    let end = label.find([' ', '"', '\'', ';', '>', '/']);
    Encoding::for_label(&label.as_bytes()[..end.unwrap_or(label.len())])
}

/// Where the reader is.
struct Reader<'a> {
    base: &'a Url,
    page: Page,
    title: Option<String>,
    in_title: bool,
    /// Open elements beside the point.
    beside: u32,
    in_paragraph: bool,
    text: String,
    description: Option<String>,
    /// An image of the page that is no ornament.
    image: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(base: &'a Url) -> Self {
        Self {
            base,
            page: Page::default(),
            title: None,
            in_title: false,
            beside: 0,
            in_paragraph: false,
            text: String::new(),
            description: None,
            image: None,
        }
    }

    fn start(&mut self, tag: &StartTag<()>) {
        let attribute = |name: &[u8]| attribute(tag, name);
        match tag.name.as_slice() {
            b"meta" => self.meta(tag),
            b"link" => {
                let rel = attribute(b"rel").unwrap_or_default().to_ascii_lowercase();
                let kind = attribute(b"type").unwrap_or_default();
                let href = attribute(b"href").unwrap_or_default();
                if kind == "application/json+oembed" && rel.contains("alternate") {
                    self.page.oembed = self.base.join(&href).ok();
                } else if rel == "image_src" {
                    self.image = Some(href);
                }
            }
            b"title" => self.in_title = self.title.is_none() && self.beside == 0,
            b"p" => self.in_paragraph = true,
            name if BESIDE.contains(&name) && !tag.self_closing => self.beside += 1,
            _ => {}
        }
    }

    fn meta(&mut self, tag: &StartTag<()>) {
        let name = attribute(tag, b"property").or_else(|| attribute(tag, b"name"));
        let content = attribute(tag, b"content");
        let (Some(name), Some(content)) = (name, content) else {
            return;
        };
        let name = name.trim().to_ascii_lowercase();
        if name == "description" {
            self.description = Some(content);
            return;
        }
        let is_kept = ["og:", "article:", "profile:", "twitter:"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let properties = &mut self.page.properties;
        if is_kept && name.len() <= NAME_MAX && properties.len() < PROPERTIES_MAX {
            let value = clean(&content, VALUE_MAX);
            if !value.is_empty() {
                // Of several images the first is the main one.
                properties.entry(name).or_insert(value);
            }
        }
    }

    fn end(&mut self, tag: &EndTag<()>) {
        match tag.name.as_slice() {
            b"title" => self.in_title = false,
            b"p" => {
                self.in_paragraph = false;
                self.text.push('\n');
            }
            name if BESIDE.contains(&name) => self.beside = self.beside.saturating_sub(1),
            _ => {}
        }
    }

    fn text(&mut self, text: &HtmlString) {
        let text = || String::from_utf8_lossy(text);
        if self.in_title {
            let title = self.title.get_or_insert_default();
            if title.len() < VALUE_MAX {
                title.push_str(&text());
            }
        } else if self.in_paragraph && self.beside == 0 && self.text.len() < 4 * TEXT_MAX {
            self.text.push_str(&text());
        }
    }

    /// What is not said in `og:` is taken from where else it stands.
    fn page(self) -> Page {
        let Page {
            mut properties,
            oembed,
        } = self.page;
        for (from, to) in [
            ("twitter:title", "og:title"),
            ("twitter:description", "og:description"),
            ("twitter:image", "og:image"),
            ("og:image:secure_url", "og:image"),
            ("og:image:url", "og:image"),
        ] {
            if let Some(value) = properties.get(from).cloned() {
                properties.entry(to.to_owned()).or_insert(value);
            }
        }
        properties.retain(|name, _| !name.starts_with("twitter:"));
        let text = clean(&self.text, TEXT_MAX);
        for (name, value) in [
            ("og:title", self.title.map(|title| clean(&title, VALUE_MAX))),
            (
                "og:description",
                self.description.map(|text| clean(&text, VALUE_MAX)),
            ),
            ("og:description", Some(text)),
            ("og:image", self.image),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                properties.entry(name.to_owned()).or_insert(value);
            }
        }
        Page { properties, oembed }
    }
}

fn attribute(tag: &StartTag<()>, name: &[u8]) -> Option<String> {
    let value = tag.attributes.get(name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// One line without control characters, of so many characters.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let mut clean = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !clean.is_empty() {
            clean.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars >= chars_max {
                clean.push('…');
                return clean;
            }
            clean.push(c);
            chars += 1;
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use url::Url;

    use super::{Page, clean, read};

    fn page(html: &[u8], content_type: &str) -> Page {
        let base = Url::parse("https://amt.example/a/b").unwrap();
        read(html, content_type, &base)
    }

    fn says(page: &Page, name: &str) -> String {
        page.properties.get(name).cloned().unwrap_or_default()
    }

    #[test]
    fn open_graph_wins_and_the_rest_of_the_page_fills_in() {
        let html = br#"<!doctype html><html><head><title>Titel &amp; mehr</title>
            <META Property="og:title" content="Gr&uuml;&szlig;e">
            <meta property="og:image" content="/one.png"><meta property="og:image" content="/2.png">
            <meta name="description" content=" eine
              Beschreibung ">
            <link rel="alternate" type="application/json+oembed" href="../oembed?x=1">
            <script>var a = '<meta property="og:type" content="no">';</script></head>"#;
        let page = page(html, "text/html");
        assert_eq!(says(&page, "og:title"), "Grüße");
        assert_eq!(says(&page, "og:image"), "/one.png");
        assert_eq!(says(&page, "og:description"), "eine Beschreibung");
        assert_eq!(says(&page, "og:type"), "");
        let oembed = page.oembed.unwrap();
        assert_eq!(oembed.as_str(), "https://amt.example/oembed?x=1");
    }

    #[test]
    fn a_page_without_any_of_it_is_described_by_its_text() {
        let html = b"<title>A</title><nav><p>Menu</p></nav><p>One <b>two</b></p><p>three</p>\
                     <svg><title>B</title></svg>";
        let page = page(html, "text/html");
        assert_eq!(says(&page, "og:title"), "A");
        assert_eq!(says(&page, "og:description"), "One two three");
    }

    #[test]
    fn charsets_are_found_where_they_are_named() {
        let old = b"<title>Gr\xfc\xdfe</title>";
        let title = |html: &[u8], kind| says(&page(html, kind), "og:title");
        assert_eq!(title(old, "text/html"), "Grüße");
        assert_eq!(title(old, "text/html; charset=\"ISO-8859-1\""), "Grüße");
        let named = [b"<meta charset='windows-1252'>", old.as_slice()].concat();
        assert_eq!(title(&named, "text/html"), "Grüße");
        assert_eq!(title("<title>Grüße".as_bytes(), "text/html"), "Grüße");
        // A character cut in two does not make it something else.
        assert_eq!(title(b"<title>Gr\xc3\xbc\xc3", "text/html"), "Grü\u{fffd}");
    }

    #[test]
    fn what_is_endless_is_cut() {
        let many = "<meta property=\"og:a\" content=\"b\">".repeat(1_000);
        let mut html = many + &"<p><div>".repeat(100_000);
        for n in 0..1_000 {
            write!(html, "<meta property=\"og:x{n}\" content=\"y\">").unwrap();
        }
        assert_eq!(page(html.as_bytes(), "text/html").properties.len(), 50);
        assert_eq!(clean(&"a ".repeat(10), 4), "a a …");
        assert_eq!(clean("\u{0}a\nb", 4), "a b");
    }
}
