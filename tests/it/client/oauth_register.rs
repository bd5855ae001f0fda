//! Making an account on the pages of OAuth 2.0 with an e-mail address.

use serde_json::{Value, json};

use crate::rig::{
    browser::{Browser, Seen},
    mailbox::{self, Mailbox},
    oauth::Client,
    pages,
    server::{Folder, Server},
};

/// The cookie of an account that waits for a code.
const COOKIE: &str = "__Host-amtsbote-new";

/// A server that asks for an address, with more about registration, and more of everything.
async fn start(mailbox: &Mailbox, registration: &str, more: &str) -> Server {
    let asked = format!("open = true\nemail = \"required\"\n{registration}");
    let config = mailbox::config(mailbox).replace("open = true\n", &asked);
    Server::with(&format!("{config}[oauth]\nenabled = true\n{more}"), None).await
}

/// What somebody fills in, with other fields.
fn fields<'a>(user: &'a str, email: &'a str, others: &[(&'a str, &'a str)]) -> Form<'a> {
    let mut fields = vec![
        ("step", "register"),
        ("user", user),
        ("email", email),
        ("new_password", "langes passwort"),
        ("again", "langes passwort"),
    ];
    for (name, value) in others {
        fields.retain(|(key, _)| key != name);
        fields.push((name, value));
    }
    fields
}

type Form<'a> = Vec<(&'a str, &'a str)>;

/// The code in a mail.
fn code(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    let is_code = |word: &&str| {
        word.len() == 9
            && word.chars().enumerate().all(|(at, c)| match at {
                4 => c == '-',
                _ => c.is_ascii_uppercase(),
            })
    };
    let found = text.split_whitespace().find(is_code);
    found
        .unwrap_or_else(|| panic!("no code in {text}"))
        .to_owned()
}

/// Types a code into the page.
async fn type_code(browser: &mut Browser, server: &Server, page: &str, code: &str) -> Seen {
    let fields = [("step", "confirm"), ("code", code)];
    browser.submit(server, page, &fields).await
}

/// It says what is wrong.
fn is_told(seen: &Seen, english_or_german: [&str; 2]) {
    let page = seen.shown(400);
    let alert = page.html.split("role=\"alert\"").nth(1);
    let alert = alert.and_then(|rest| rest.split("</p>").next());
    let alert = alert.unwrap_or_else(|| panic!("no alert: {}", page.html));
    let said = english_or_german.iter().any(|text| alert.contains(text));
    assert!(said, "{alert}");
}

const WRONG: [&str; 2] = ["Dieser Code ist falsch", "This code is wrong"];
const SPENT: [&str; 2] = ["Zu viele falsche Codes", "Too many wrong codes"];
const OVER: [&str; 2] = ["Hier wartet kein Konto", "No account waits"];

/// A browser that was sent to the page on which a code is typed; and that page.
async fn waits(server: &Server, address: &str, fields: &[(&str, &str)]) -> (Browser, String) {
    let mut browser = Browser::new();
    let seen = browser.submit(server, address, fields).await;
    let page = seen.next().to_owned();
    assert!(page.contains("enter=code"), "{page}");
    (browser, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_made_once_the_code_in_a_mail_is_typed() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let client = Client::of(&server).await;
    let facts = server.document("/_matrix/client/v1/auth_metadata").await;
    assert_eq!(facts["prompt_values_supported"], json!(["create"]));
    let address = client.wants("PHONE", &[("prompt", "create")]);
    let mut browser = Browser::new();
    let page = browser.go(&server, &address).await.shown(200);
    assert!(page.html.contains("type=\"email\""), "{}", page.html);
    let key = page.hidden("key");
    let key = [("key", &*key)];
    // Who sends it twice gets one mail.
    let right = fields("Neu", " Neu@AMT.example ", &key);
    let seen = browser.submit(&server, &address, &right).await;
    let page = seen.next().to_owned();
    assert_eq!(browser.submit(&server, &address, &right).await.next(), page);
    assert!(browser.cookies.contains_key(COOKIE));
    let mail = mailbox.get("neu@amt.example", 1).await;
    assert!(
        mail["headers"]["subject"]
            .as_str()
            .unwrap()
            .starts_with("Bote: E-Mail")
    );
    assert!(mail["html"].as_str().unwrap().contains(&code(&mail)));
    // Nothing is lost on a reload, nor where it begins anew.
    for _ in 0..2 {
        let shown = browser.go(&server, &page).await.shown(200);
        assert!(shown.html.contains("neu@amt.example") && shown.html.contains("one-time-code"));
    }
    let again = browser.go(&server, &address).await.shown(200);
    assert!(again.html.contains("value=\"neu\""), "{}", again.html);
    assert!(again.html.contains("value=\"neu@amt.example\""));
    let (status, _) = available(&server, "neu").await;
    assert_eq!(status, 200, "the name is free still");

    // Elsewhere the code does nothing.
    let code = code(&mail);
    let mut other = Browser::new();
    is_told(&other.go(&server, &page).await, OVER);
    is_told(&type_code(&mut other, &server, &page, &code).await, OVER);
    other
        .cookies
        .insert(COOKIE.to_owned(), "amk_guessed".to_owned());
    is_told(&type_code(&mut other, &server, &page, &code).await, OVER);

    let typed = code.to_lowercase().replace('-', " ");
    let seen = type_code(&mut browser, &server, &page, &typed).await;
    assert_eq!(seen.next(), address, "the grant goes on");
    assert!(!browser.cookies.contains_key(COOKIE));
    assert_eq!(mailbox.mails("neu@amt.example").len(), 1);
    // The form once more.
    let seen = type_code(&mut browser, &server, &page, &code).await;
    assert_eq!(seen.next(), address);
    let (user, _) = client.session(&server, &mut browser, "PHONE").await;
    assert_eq!(user.id, format!("@neu:{}", server.name));
    let (_, body) = user.get("/account/3pid").await;
    let addresses = body["threepids"].as_array().unwrap();
    assert_eq!(addresses.len(), 1, "{body}");
    assert_eq!(addresses[0]["address"], "neu@amt.example");
    // By which, and by the password, they log in.
    let login = [
        ("step", "login"),
        ("user", "neu@amt.example"),
        ("password", "langes passwort"),
    ];
    let mut elsewhere = Browser::new();
    let seen = elsewhere.submit(&server, "/_matrix/account", &login).await;
    assert_eq!(seen.next(), "/_matrix/account");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_before_a_mail_goes_out() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let address = "/_matrix/account?enter=create";
    let mut browser = Browser::new();
    let key = browser.go(&server, address).await.shown(200).hidden("key");
    let key = [("key", &*key)];
    for (user, email) in [
        ("neu", ""),
        ("neu", "neu"),
        ("neu", "a@b, neu@amt.example"),
        ("ä", "neu@amt.example"),
    ] {
        let seen = browser
            .submit(&server, address, &fields(user, email, &key))
            .await;
        assert_eq!(seen.shown(400).hidden("key"), key[0].1, "{user} {email}");
    }
    let short = [key[0], ("new_password", "x"), ("again", "x")];
    let short = fields("neu", "neu@amt.example", &short);
    browser.submit(&server, address, &short).await.shown(400);
    assert!(browser.cookies.is_empty());
    // A key that others could guess is none.
    let weak = fields("neu", "neu@amt.example", &[("key", "weak")]);
    browser.submit(&server, address, &weak).await.next();
    assert_ne!(browser.cookies[COOKIE], "weak");
    mailbox.get("neu@amt.example", 1).await;
    assert_eq!(mailbox.mails("neu@amt.example").len(), 1);
}

/// Whether a name can be had.
async fn available(server: &Server, name: &str) -> (u16, Value) {
    use crate::rig::http::{self, Ask as _};
    let path = format!("/_matrix/client/v3/register/available?username={name}");
    let answer = http::client().get(server.url(&path)).ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_are_not_guessed_and_new_ones_are_sent() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let form = fields("neu", "neu@amt.example", &[]);
    let (mut browser, page) = waits(&server, "/_matrix/account", &form).await;
    let first = code(&mailbox.get("neu@amt.example", 1).await);
    for wrong in ["", "x", "\0", "BBBB-BBBB", "BBBBBBBB", "a", "b", "c", "d"] {
        is_told(&type_code(&mut browser, &server, &page, wrong).await, WRONG);
    }
    is_told(&type_code(&mut browser, &server, &page, "e").await, SPENT);
    is_told(
        &type_code(&mut browser, &server, &page, &first).await,
        SPENT,
    );
    let shown = browser.go(&server, &page).await.shown(200);
    assert!(shown.html.contains("role=\"alert\""), "{}", shown.html);

    // A new one, however often it is asked for; what asks for no number does nothing.
    let attempt = shown.hidden("attempt");
    for attempt in ["x", "7", "99999999999999999999", &*attempt, &*attempt] {
        let again = [("step", "again"), ("attempt", attempt)];
        let seen = browser.submit(&server, &page, &again).await;
        assert_eq!(seen.next(), page);
    }
    let second = code(&mailbox.get("neu@amt.example", 2).await);
    assert_ne!(first, second);
    is_told(
        &type_code(&mut browser, &server, &page, &first).await,
        WRONG,
    );
    // Mails to an address are bounded, whoever asks.
    for count in 3..=10 {
        let attempt = browser
            .go(&server, &page)
            .await
            .shown(200)
            .hidden("attempt");
        let again = [("step", "again"), ("attempt", &*attempt)];
        browser.submit(&server, &page, &again).await.next();
        mailbox.get("neu@amt.example", count).await;
    }
    let attempt = browser
        .go(&server, &page)
        .await
        .shown(200)
        .hidden("attempt");
    let again = [("step", "again"), ("attempt", &*attempt)];
    let many = ["viele E-Mails", "Many e-mails"];
    is_told(&browser.submit(&server, &page, &again).await, many);
    let mut other = Browser::new();
    is_told(
        &other.submit(&server, "/_matrix/account", &form).await,
        many,
    );

    let tenth = code(&mailbox.get("neu@amt.example", 10).await);
    let seen = type_code(&mut browser, &server, &page, &tenth).await;
    assert_eq!(seen.next(), "/_matrix/account");
    assert_eq!(mailbox.mails("neu@amt.example").len(), 10);
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    assert!(page.html.contains("@neu:"), "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_good_for_an_hour() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let form = fields("neu", "neu@amt.example", &[]);
    let (mut browser, page) = waits(&server, "/_matrix/account", &form).await;
    let late = code(&mailbox.get("neu@amt.example", 1).await);
    let mut database = server.database().await;
    sqlx::query("UPDATE validation SET expires_ts = 0")
        .execute(&mut database)
        .await
        .unwrap();
    is_told(&browser.go(&server, &page).await, OVER);
    let english = pages::open(&server, &page, "en").await;
    assert!(english.html.contains(OVER[1]), "{}", english.html);
    is_told(&type_code(&mut browser, &server, &page, &late).await, OVER);
    let again = [("step", "again"), ("attempt", "1")];
    is_told(&browser.submit(&server, &page, &again).await, OVER);
    assert_eq!(mailbox.mails("neu@amt.example").len(), 1);
    let (mut browser, page) = waits(&server, "/_matrix/account", &form).await;
    let code = code(&mailbox.get("neu@amt.example", 2).await);
    is_told(&type_code(&mut browser, &server, &page, &late).await, WRONG);
    type_code(&mut browser, &server, &page, &code).await.next();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_does_not_learn_who_has_an_account() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let form = fields("anna", "anna@amt.example", &[]);
    let (mut anna, page) = waits(&server, "/_matrix/account", &form).await;
    let code_of_anna = code(&mailbox.get("anna@amt.example", 1).await);
    // Somebody asks for the same meanwhile.
    let same = fields("eve", "anna@amt.example", &[]);
    let (mut early, early_page) = waits(&server, "/_matrix/account", &same).await;
    let early_code = code(&mailbox.get("anna@amt.example", 2).await);
    type_code(&mut anna, &server, &page, &code_of_anna)
        .await
        .next();

    let (mut eve, page) = waits(&server, "/_matrix/account", &same).await;
    let mail = mailbox.get("anna@amt.example", 3).await;
    let text = mail["text"].as_str().unwrap();
    assert!(
        text.contains("schon eines") && text.contains("one with it already"),
        "{text}"
    );
    assert!(mailbox::link(&mail).ends_with("/_matrix/account"));
    let told = eve.go(&server, &page).await.shown(200).html;
    let unknown = fields("eve", "eve1@amt.example", &[]);
    let (mut other, page_of_other) = waits(&server, "/_matrix/account", &unknown).await;
    let not_told = other.go(&server, &page_of_other).await.shown(200).html;
    assert_eq!(
        told,
        not_told.replace("eve1@amt.example", "anna@amt.example")
    );
    for wrong in [&*code_of_anna, &*early_code, "", "BBBB-BBBB"] {
        is_told(&type_code(&mut eve, &server, &page, wrong).await, WRONG);
    }
    // Only who reads the address learns that it was too late.
    let late = type_code(&mut early, &server, &early_page, &early_code).await;
    is_told(&late, ["inzwischen schon ein Konto", "already by now"]);
    assert_eq!(available(&server, "eve").await.0, 200, "nobody was made");
}

/// What an operator asks for besides.
fn strict(folder: &Folder) -> (String, &'static str) {
    let tokens = folder.0.join("tokens");
    std::fs::write(&tokens, "geheim\n").unwrap();
    let registration = format!(
        "require_token = true\ntokens_file = \"{}\"\n",
        tokens.display()
    );
    let terms = "[terms]\nrequired = true\n[[terms.policies]]\nid = \"terms\"\nversion = \"7\"\n\
         texts.de = { name = \"Bedingungen\", url = \"https://amt.example/agb\" }\n";
    (registration, terms)
}

#[tokio::test(flavor = "multi_thread")]
async fn token_and_terms_are_checked_before_a_mail_and_again_before_the_account() {
    let (mailbox, folder) = (Mailbox::start(), Folder::new());
    let (registration, terms) = strict(&folder);
    let mut server = start(&mailbox, &registration, terms).await;
    let client = Client::of(&server).await;
    let address = client.wants("PHONE", &[("prompt", "create")]);
    let mut database = server.database().await;
    sqlx::query("INSERT INTO registration_token (token, uses_allowed) VALUES ('einmal', 1)")
        .execute(&mut database)
        .await
        .unwrap();
    let good = [("token", "einmal"), ("agreed", "on"), ("version", "7")];
    for (name, value) in [
        ("token", "falsch"),
        ("token", "\0"),
        ("token", ""),
        ("version", "6"),
    ] {
        let others = good.map(|(key, old)| (key, if key == name { value } else { old }));
        let form = fields("neu", "neu@amt.example", &others);
        let seen = Browser::new().submit(&server, &address, &form).await;
        assert!(seen.shown(400).html.contains("role=\"alert\""), "{name}");
    }
    let unread = fields("neu", "neu@amt.example", &[good[0], good[2]]);
    Browser::new()
        .submit(&server, &address, &unread)
        .await
        .shown(400);

    let form = fields("neu", "neu@amt.example", &good);
    let (mut browser, page) = waits(&server, &address, &form).await;
    let code = code(&mailbox.get("neu@amt.example", 1).await);
    // Nothing was used up so far; meanwhile all of it goes.
    sqlx::query("UPDATE registration_token SET uses_allowed = 0 WHERE completed = 0")
        .execute(&mut database)
        .await
        .unwrap();
    let gone = type_code(&mut browser, &server, &page, &code).await;
    is_told(
        &gone,
        ["Dieses Token gilt nicht", "This token is not valid"],
    );
    assert!(gone.page.contains("value=\"neu@amt.example\""));
    drop(database);
    server.reconfigure("version = \"7\"", "version = \"8\"");
    server.stop();
    server.restart().await;
    let changed = type_code(&mut browser, &server, &page, &code).await;
    is_told(&changed, ["haben sich geändert", "have changed"]);
    assert_eq!(available(&server, "neu").await.0, 200);

    // With what holds now the same code is good.
    let shown = changed.shown(400);
    let (key, version) = (shown.hidden("key"), shown.hidden("version"));
    let now = [
        ("key", &*key),
        ("token", "geheim"),
        ("agreed", "on"),
        ("version", &*version),
    ];
    let form = fields("neu", "neu@amt.example", &now);
    assert_eq!(browser.submit(&server, &address, &form).await.next(), page);
    let seen = type_code(&mut browser, &server, &page, &code).await;
    assert_eq!(seen.next(), address);
    let (user, _) = client.session(&server, &mut browser, "PHONE").await;
    // The terms are accepted: nothing is refused.
    user.create_room(json!({})).await;
    assert_eq!(mailbox.mails("neu@amt.example").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_taken_meanwhile_is_chosen_anew() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let account = "/_matrix/account";
    let (mut slow, page) = waits(&server, account, &fields("neu", "slow@amt.example", &[])).await;
    let (mut fast, _) = waits(&server, account, &fields("neu", "fast@amt.example", &[])).await;
    let code_of_slow = code(&mailbox.get("slow@amt.example", 1).await);
    let code_of_fast = code(&mailbox.get("fast@amt.example", 1).await);
    // Each browser has its own.
    is_told(
        &type_code(&mut slow, &server, &page, &code_of_fast).await,
        WRONG,
    );
    type_code(&mut fast, &server, &page, &code_of_fast)
        .await
        .next();
    let taken = type_code(&mut slow, &server, &page, &code_of_slow).await;
    is_told(&taken, ["Dieser Name ist vergeben", "This name is taken"]);
    let key = taken.shown(400).hidden("key");
    let form = fields("neu2", "slow@amt.example", &[("key", &key)]);
    assert_eq!(slow.submit(&server, account, &form).await.next(), page);
    type_code(&mut slow, &server, &page, &code_of_slow)
        .await
        .next();
    let shown = slow.go(&server, account).await.shown(200);
    assert!(shown.html.contains("@neu2:"), "{}", shown.html);
    assert_eq!(mailbox.mails("slow@amt.example").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_form_twice_at_once_is_one_mail_and_one_account() {
    let mailbox = Mailbox::start();
    let server = start(&mailbox, "", "").await;
    let account = "/_matrix/account";
    let (mut first, mut second) = (Browser::new(), Browser::new());
    let page = first.go(&server, account).await.shown(200);
    let create = page.links().pop().unwrap();
    let key = first.go(&server, &create).await.shown(200).hidden("key");
    let form = fields("neu", "neu@amt.example", &[("key", &key)]);
    let (one, other) = tokio::join!(
        first.submit(&server, account, &form),
        second.submit(&server, account, &form)
    );
    let page = one.next().to_owned();
    assert_eq!(page, other.next());
    assert_eq!(first.cookies, second.cookies);
    let code = code(&mailbox.get("neu@amt.example", 1).await);
    let (one, other) = tokio::join!(
        type_code(&mut first, &server, &page, &code),
        type_code(&mut second, &server, &page, &code)
    );
    // Who comes second is told to log in.
    let (made, late) = if one.status == 303 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(made.next(), account);
    is_told(&late, OVER);
    assert_eq!(mailbox.mails("neu@amt.example").len(), 1);
}
