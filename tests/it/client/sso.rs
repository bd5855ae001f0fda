//! Login through identity providers.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    browser::{Browser, redeem},
    enc, eventually,
    http::{self, Ask as _},
    idp::{BASE, CLIENT, HEAD, Key, Provider, anna, now_s, with, without},
    mailbox::password,
    operator::Operator,
    server::Server,
    user::User,
};

/// Somebody who logs in through the provider.
async fn arrive(server: &Server) -> User {
    let seen = Browser::new().logs_in(server).await;
    let (status, body) = redeem(server, &seen).await;
    assert_eq!(status, 200, "{body}");
    User::with_token(
        &server.url(""),
        body["user_id"].as_str().unwrap(),
        body["access_token"].as_str().unwrap(),
    )
}

/// Whether a session is one.
async fn is_in(user: &User) -> bool {
    user.get("/account/whoami").await.0 == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logs_in_at_the_provider_gets_an_account_and_the_same_one_again() {
    let provider = Provider::start().await;
    let more = "icon = \"mxc://amt.example/icon\"\nbrand = \"keycloak\"\n";
    let server = provider.serves(more).await;
    let flows = server.document("/_matrix/client/v3/login").await;
    let flow = flows["flows"].as_array().unwrap().iter();
    let flow = flow.clone().find(|flow| flow["type"] == "m.login.sso");
    assert_eq!(
        flow.unwrap()["identity_providers"],
        json!([{ "id": "idp", "name": "Amt idp", "icon": "mxc://amt.example/icon", "brand": "keycloak" }])
    );
    assert_eq!(
        provider.asked("openid-configuration"),
        0,
        "asked before it is needed"
    );

    let mut browser = Browser::new();
    let seen = browser.logs_in(&server).await;
    assert!(browser.cookies.is_empty(), "the cookie goes with the login");
    assert_eq!(seen.headers["cache-control"], "no-store");
    assert_eq!(provider.seen("scope").unwrap(), "openid profile email");
    assert_eq!(provider.seen("prompt"), None);
    let (status, body) = redeem(&server, &seen).await;
    assert_eq!(status, 200, "{body}");
    let id = format!("@anna.amt:{}", server.name);
    assert_eq!(body["user_id"], id);
    assert_eq!(
        redeem(&server, &seen).await.0,
        403,
        "a login token is good once"
    );

    provider.becomes(with(
        anna(),
        json!({ "name": "Anna Neu", "preferred_username": "other" }),
    ));
    let anna = arrive(&server).await;
    assert_eq!(anna.id, id, "the same person, whatever the name");
    let (_, profile) = anna.get(&format!("/profile/{}", enc(&id))).await;
    assert_eq!(profile["displayname"], "Anna Amt", "set once");
    let (_, body) = anna.get("/account/3pid").await;
    assert_eq!(body["threepids"][0]["address"], "anna@amt.example");
    assert_eq!(provider.asked("openid-configuration"), 1);
    assert_eq!(provider.asked("keys"), 1);
    assert_eq!(provider.asked("userinfo"), 0);
    let log = server.log();
    assert!(
        !log.contains("s3:cr") && !log.contains("loginToken"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_says_is_asked_and_set() {
    let provider = Provider::start().await;
    let base = provider.issuer.clone();
    let more = format!(
        "discover = false\nauthorization_endpoint = \"{base}/authorize?kind=login\"\n\
         token_endpoint = \"{base}/token\"\njwks_uri = \"{base}/keys\"\n\
         userinfo_endpoint = \"{base}/userinfo\"\nuserinfo = true\nupdate_profile = true\n\
         scopes = [\"openid\", \"amt\"]\n\
         user_mapping = {{ localpart_claim = \"account.name\", email_claim = \"\" }}\n"
    );
    let server = provider.serves(&more).await;
    provider.tells(json!({ "account": { "name": "Jörg@amt" }, "sub": "0815-anna" }));
    let joerg = arrive(&server).await;
    assert_eq!(joerg.id, format!("@j=c3=b6rg=40amt:{}", server.name));
    assert_eq!(provider.seen("scope").unwrap(), "openid amt");
    let (_, body) = joerg.get("/account/3pid").await;
    assert_eq!(body["threepids"], json!([]));

    // A new name goes to the rooms.
    let mut joerg = joerg;
    let room = joerg.create_room(json!({})).await;
    provider.becomes(with(anna(), json!({ "name": "Jörg\u{0} Neu" })));
    arrive(&server).await;
    joerg
        .wait_for("the new name", |event| {
            event["type"] == "m.room.member" && event["content"]["displayname"] == "Jörg Neu"
        })
        .await;
    assert!(!room.is_empty());
    assert_eq!(provider.asked("openid-configuration"), 0);

    // Somebody else's claims are nobody's.
    provider.tells(json!({ "sub": "0816-bernd" }));
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(502, "nicht zu trauen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_listed_is_shown_before_it_gets_a_session() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    let config = format!("{HEAD}{}{}", one.section("idp", ""), two.section("two", ""));
    let server = Server::with(&config, None).await;
    let mut browser = Browser::new();
    for bad in [
        "",
        "?redirectUrl=",
        "?redirectUrl=javascript%3A%2F%2Fx%2F%250Aalert(1)",
        "?redirectUrl=chat.amt.example",
        "?redirectUrl=https%3A%2F%2Fa%40b%2F",
        "?redirectUrl=https%3A%2F%2Fa%2F%0D%0ASet-Cookie%3A%20a%3Db",
        "?redirectUrl=%FF",
    ] {
        for place in ["", "/idp"] {
            let path = format!("/_matrix/client/v3/login/sso/redirect{place}{bad}");
            let seen = browser.go(&server, &path).await;
            seen.is_refusal(400, "keine Adresse");
        }
    }
    let app = enc("https://evil.example/<i>?a=b&c#d");
    let path = format!("/_matrix/client/v3/login/sso/redirect/three?redirectUrl={app}");
    let seen = browser.go(&server, &path).await;
    seen.is_refusal(404, "gibt es hier nicht");

    // Several providers: people choose.
    let path = format!("/_matrix/client/v3/login/sso/redirect?redirectUrl={app}");
    let sent = browser.go(&server, &path).await;
    let choice = browser.go(&server, sent.next()).await;
    assert_eq!(choice.status, 200);
    let links: Vec<&str> = choice.page.split("<a href=\"").skip(1).collect();
    assert_eq!(links.len(), 2, "{}", choice.page);
    let (link, rest) = links[1].split_once('"').unwrap();
    assert!(rest.starts_with(">Amt two</a>"), "{rest}");
    let sent = browser.go(&server, &link.replace("&amp;", "&")).await;
    assert!(sent.next().starts_with(&two.issuer));
    let back = browser.go(&server, sent.next()).await;
    let page = browser.go(&server, back.next()).await;
    assert_eq!(page.status, 200, "{page:?}");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("form-action 'none'"));
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
    let text = &page.page;
    assert!(
        text.contains("<strong>evil.example</strong>") && text.contains("@anna.amt:"),
        "{text}"
    );
    assert!(!text.contains("<script") && !text.contains("<i>"), "{text}");
    let link = text
        .split("<a href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let link = link.replace("&amp;", "&");
    assert!(
        link.starts_with("https://evil.example/%3Ci%3E?a=b&c&loginToken=")
            || link.contains("loginToken=")
    );
    assert!(link.ends_with("#d"), "{link}");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn no_token_is_believed_that_is_not_signed_by_the_provider_for_this_login() {
    let provider = Provider::start().await;
    let server = provider.serves("").await;
    let issuer = provider.issuer.clone();
    // A provider that is not there, or is another than it was set up as.
    provider.is_down(true);
    let path = format!(
        "/_matrix/client/v3/login/sso/redirect/idp?redirectUrl={}",
        enc(CLIENT)
    );
    let seen = Browser::new().go(&server, &path).await;
    seen.is_refusal(502, "nicht zu erreichen");
    provider.is_down(false);
    provider.is_called("http://127.0.0.1:1/realms/amt");
    let seen = Browser::new().go(&server, &path).await;
    seen.is_refusal(502, "nicht zu trauen");
    provider.is_called(&issuer);

    let untrue = async |what: &str| {
        let seen = Browser::new().logs_in(&server).await;
        assert_eq!((seen.status, what), (502, what), "{seen:?}");
        seen.is_refusal(502, "nicht zu trauen");
    };
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "aud": ["amtsbote", "another"] }),
        json!({ "aud": ["amtsbote", "another"], "azp": "another" }),
        json!({ "azp": "another" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": [issuer] }),
        json!({ "iss": null }),
        json!({ "exp": now_s() - 300 }),
        json!({ "exp": null }),
        json!({ "exp": "soon" }),
        json!({ "nbf": now_s() + 300 }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": "x".repeat(256) }),
        json!({ "sub": "a\u{0}b" }),
        json!({ "sid": ["x"] }),
    ] {
        let what = claims.to_string();
        provider.says_instead(claims);
        untrue(&what).await;
    }
    provider.says_instead(json!({}));
    provider.leaves_unsigned(true);
    untrue("no signature").await;
    provider.leaves_unsigned(false);
    // A key of somebody else under the name of the provider's.
    let right = provider.signer();
    provider.signs_with(&Key::rsa("first"), false);
    untrue("another key").await;
    provider.signs_with(&Key::ec("unknown"), false);
    untrue("an unknown key").await;
    let (status, _) = server
        .user("bob")
        .await
        .get(&format!("/profile/@anna.amt:{}", server.name))
        .await;
    assert_eq!(status, 404, "none of that has made an account");

    // A new key is found, and the old one good no more.
    provider.says_instead(json!({ "aud": ["amtsbote", "another"], "azp": "amtsbote" }));
    provider.signs_with(&Key::ec("second"), true);
    arrive(&server).await;
    provider.signs_with(&right, false);
    untrue("a key that was withdrawn").await;
    // Names of keys that are made up do not have the keys read again and again.
    let before = provider.asked("keys");
    for name in 0..20 {
        provider.signs_with(&Key::ec(&format!("made up {name}")), false);
        untrue("a name that was made up").await;
    }
    assert!(
        provider.asked("keys") - before <= 5,
        "{}",
        provider.asked("keys") - before
    );
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn a_login_belongs_to_one_browser_and_is_good_once() {
    let provider = Provider::start().await;
    let server = provider.serves("").await;
    let (mut browser, mut other) = (Browser::new(), Browser::new());
    let back = browser.leaves(&server, "idp").await;
    // Somebody else's browser, with no cookie or with one of its own, gets nothing by the address.
    other
        .go(&server, &back)
        .await
        .is_refusal(400, "in einem anderen Browser");
    other.leaves(&server, "idp").await;
    let stolen = browser.cookies.keys().next().unwrap().clone();
    let own = other.cookies.values().next().unwrap().clone();
    other.cookies.insert(stolen, own);
    other
        .go(&server, &back)
        .await
        .is_refusal(400, "in einem anderen Browser");
    // Two logins of one browser do not get in each other's way.
    let second = browser.leaves(&server, "idp").await;
    let cookies = browser.cookies.clone();
    let seen = browser.go(&server, &back).await;
    assert!(seen.parameter("loginToken").is_some());
    assert!(
        browser
            .go(&server, &second)
            .await
            .parameter("loginToken")
            .is_some()
    );
    browser.cookies = cookies;
    browser
        .go(&server, &back)
        .await
        .is_refusal(400, "schon benutzt");

    for address in [
        "",
        "?",
        "?state=x",
        "?state=%FF",
        "?code=x&code=y&state=a&state=b",
    ] {
        let path = format!("/_synapse/client/oidc/callback{address}");
        browser
            .go(&server, &path)
            .await
            .is_refusal(400, "abgelaufen");
    }
    // Another code, or none, or another provider's answer.
    let back = browser.leaves(&server, "idp").await;
    let code = back
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    let seen = browser.go(&server, &back.replace(&code, "another")).await;
    seen.is_refusal(502, "nicht zu erreichen oder lehnt ab");
    let back = browser.leaves(&server, "idp").await;
    let seen = browser.go(&server, &back.replace("code=", "x=")).await;
    seen.is_refusal(502, "nicht zu trauen");
    let back = browser.leaves(&server, "idp").await;
    let (start, _) = back.split_once("&iss=").unwrap();
    let seen = browser
        .go(&server, &format!("{start}&iss=https%3A%2F%2Fevil.example"))
        .await;
    seen.is_refusal(502, "nicht zu trauen");
    provider.denies(Some("access_denied"));
    let back = browser.leaves(&server, "idp").await;
    browser
        .go(&server, &back)
        .await
        .is_refusal(403, "abgebrochen");
    browser
        .go(&server, &back)
        .await
        .is_refusal(400, "abgelaufen");
    // What is over is over.
    provider.denies(None);
    let back = browser.leaves(&server, "idp").await;
    let mut conn = server.database().await;
    sqlx::query("UPDATE sso_login SET expires_ts = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    browser
        .go(&server, &back)
        .await
        .is_refusal(400, "abgelaufen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_begins_at_one_node_ends_at_another() {
    let provider = Provider::start().await;
    let server = provider.serves("").await;
    let node = server.node().await;
    let mut browser = Browser::new();
    let back = browser.leaves(&server, "idp").await;
    let seen = browser.go(&node, &back).await;
    let (status, body) = redeem(&server, &seen).await;
    assert_eq!(status, 200, "{body}");
    browser
        .go(&server, &back)
        .await
        .is_refusal(400, "abgelaufen");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_meet_what_is_required_gets_no_account() {
    let provider = Provider::start().await;
    let more = "enable_registration = false\nallow_existing_users = true\n\
                attribute_requirements = [{ claim = \"realm_access.roles\", one_of = [\"chat\", \
                \"matrix\"] }, { claim = \"email_verified\", value = \"true\" }]\n";
    let server = provider.serves(more).await;
    for person in [
        with(anna(), json!({ "realm_access": { "roles": ["staff"] } })),
        without(anna(), &["realm_access"]),
        with(anna(), json!({ "email_verified": false })),
    ] {
        provider.becomes(person);
        let seen = Browser::new().logs_in(&server).await;
        seen.is_refusal(403, "dürfen diesen Dienst nicht benutzen");
    }
    // Accounts are made by administrators alone here.
    provider.becomes(anna());
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(403, "haben hier kein Konto");
    provider.becomes(without(anna(), &["preferred_username"]));
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(502, "keinen Benutzernamen");

    // An account of that name becomes hers, and not that of who has the name after her.
    let local = server.user("anna.amt").await;
    provider.becomes(anna());
    let here = arrive(&server).await;
    assert_eq!(here.id, local.id);
    provider.becomes(with(anna(), json!({ "sub": "0816-other" })));
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(409, "gehört hier schon zu einem anderen Konto");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_not_given_away() {
    let provider = Provider::start().await;
    let server = provider.serves("").await;
    let operator = Operator::of(&server).await;
    server.user("anna.amt").await;
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(409, "gehört hier schon zu einem anderen Konto");

    // An address that somebody else has is not hers; an account she has all the same. What the
    // provider doubts is no proof.
    provider.becomes(with(anna(), json!({ "preferred_username": "anna2" })));
    let first = arrive(&server).await;
    let bernd = json!({ "sub": "0816", "preferred_username": "bernd" });
    provider.becomes(with(anna(), bernd));
    let second = arrive(&server).await;
    let doubted =
        json!({ "sub": "17", "preferred_username": "c", "email": "c@x", "email_verified": false });
    provider.becomes(with(anna(), doubted));
    let third = arrive(&server).await;
    for (user, count) in [(&first, 1), (&second, 0), (&third, 0)] {
        let (_, body) = user.get("/account/3pid").await;
        assert_eq!(body["threepids"].as_array().unwrap().len(), count);
    }

    // Who is locked, or has closed the account, hears so.
    let lock = format!(
        "{}/_matrix/client/v1/admin/lock/{}",
        server.url(""),
        enc(&third.id)
    );
    let http = http::client();
    for (locked, german) in [(true, "gesperrt"), (false, "")] {
        let request = http.put(&lock).bearer_auth(&operator.token);
        let answer = request
            .body(json!({ "locked": locked }).to_string())
            .ask()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let seen = Browser::new().logs_in(&server).await;
        if locked {
            seen.is_refusal(403, german);
        } else {
            assert_eq!(redeem(&server, &seen).await.0, 200);
        }
    }
    let mut conn = server.database().await;
    sqlx::query("UPDATE account SET deactivated = true WHERE localpart_folded = 'c'")
        .execute(&mut conn)
        .await
        .unwrap();
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(403, "geschlossen");
}

/// A stage of user-interactive authentication at the provider.
async fn prove(server: &Server, session: &str) -> crate::rig::browser::Seen {
    let mut browser = Browser::new();
    let path = format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}");
    let page = browser.go(server, &path).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.page.contains("ein Gerät abmelden") && page.page.contains("log a device out"));
    let link = page
        .page
        .split("<a href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let (place, _) = path.split_once('?').unwrap();
    let link = format!("{place}{}", link.replace("&amp;", "&"));
    let sent = browser.go(server, &link).await;
    let back = browser.go(server, sent.next()).await;
    browser.go(server, back.next()).await
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn who_has_no_password_proves_at_the_provider_who_they_are() {
    let provider = Provider::start().await;
    let server = provider.serves("").await;
    let (here, there) = (arrive(&server).await, arrive(&server).await);
    let (_, me) = there.get("/account/whoami").await;
    let path = format!("/devices/{}", me["device_id"].as_str().unwrap());
    let (status, challenge) = here.call(Method::DELETE, &path, Some(json!({}))).await;
    assert_eq!(status, 401);
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.sso"] }]));
    let session = challenge["session"].as_str().unwrap();
    let auth = json!({ "auth": { "session": session, "type": "m.login.sso" } });
    let (status, body) = here.call(Method::DELETE, &path, Some(auth.clone())).await;
    assert_eq!(
        (status, &body["errcode"]),
        (401, &json!("M_UNAUTHORIZED")),
        "not done yet"
    );

    // Somebody else proves nothing, whoever that is.
    provider.becomes(with(
        anna(),
        json!({ "sub": "0816", "preferred_username": "bernd" }),
    ));
    prove(&server, session)
        .await
        .is_refusal(403, "als jemand anderes");
    let bernd = arrive(&server).await;
    prove(&server, session)
        .await
        .is_refusal(403, "als jemand anderes");
    let (status, _) = here.call(Method::DELETE, &path, Some(auth.clone())).await;
    assert_eq!(status, 401);

    provider.becomes(anna());
    let seen = prove(&server, session).await;
    assert_eq!(provider.seen("prompt").unwrap(), "login");
    assert_eq!(seen.status, 200);
    let policy = seen.headers["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap();
    let nonce = nonce.split('\'').next().unwrap();
    assert!(
        seen.page.contains(&format!("<script nonce=\"{nonce}\">")),
        "{}",
        seen.page
    );
    assert!(seen.page.contains("window.onAuthDone()"));
    // The session is good for whoever asked, and for nobody else.
    let (status, body) = bernd.call(Method::DELETE, &path, Some(auth.clone())).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
    let done = json!({ "auth": { "session": session } });
    let (status, body) = here.call(Method::DELETE, &path, Some(done)).await;
    assert_eq!((status, &body), (200, &json!({})));
    assert!(!is_in(&there).await && is_in(&here).await);

    let mut browser = Browser::new();
    for bad in [
        "",
        "?session=x",
        "?session=%FF",
        "?session=%00",
        &format!("?session={session}"),
    ] {
        let path = format!("/_matrix/client/v3/auth/m.login.sso/fallback/web{bad}");
        browser
            .go(&server, &path)
            .await
            .is_refusal(400, "abgelaufen");
    }
    // Who has a password and no identity goes by that; its session is for nobody at a provider.
    let carla = server.user("carla").await;
    let (_, challenge) = carla
        .call(Method::DELETE, "/devices/X", Some(json!({})))
        .await;
    assert_eq!(
        challenge["flows"],
        json!([{ "stages": ["m.login.password"] }])
    );
    let session = challenge["session"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}");
    browser
        .go(&server, &path)
        .await
        .is_refusal(400, "abgelaufen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_both_is_proved_by_either() {
    let provider = Provider::start().await;
    let server = provider.serves("allow_existing_users = true\n").await;
    let local = server.user("anna.amt").await;
    let here = arrive(&server).await;
    let (_, challenge) = here
        .call(Method::DELETE, "/devices/X", Some(json!({})))
        .await;
    let either = json!([{ "stages": ["m.login.password"] }, { "stages": ["m.login.sso"] }]);
    assert_eq!(challenge["flows"], either);
    let auth = json!({ "auth": password(&local) });
    let (status, body) = here.call(Method::DELETE, "/devices/X", Some(auth)).await;
    assert_eq!((status, body), (200, json!({})));
}

/// What a provider sends, and what it is answered.
async fn log_out(server: &Server, token: &str) -> (u16, Value) {
    let http = http::client();
    let request = http.post(server.url("/_synapse/client/oidc/backchannel_logout"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request
        .body(format!("logout_token={}", enc(token)))
        .ask()
        .await
        .unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn a_provider_ends_the_sessions_that_came_of_it() {
    let provider = Provider::start().await;
    let server = provider
        .serves("backchannel_logout = true\nallow_existing_users = true\n")
        .await;
    let node = server.node().await;
    let by_password = server.user("anna.amt").await;
    let one = arrive(&server).await;
    assert_eq!(one.id, by_password.id);
    provider.becomes(with(anna(), json!({ "sid": "session two" })));
    let (two, waiting) = (arrive(&server).await, Browser::new().logs_in(&server).await);
    provider.becomes(with(
        anna(),
        json!({ "sub": "0816", "preferred_username": "bernd" }),
    ));
    let bernd = arrive(&server).await;
    // A session that another has opened comes of the same login.
    let opened = {
        let base = two.url("/../v1/login/get_token");
        let http = http::client();
        let ask = async |auth: Value| -> Value {
            let request = http.post(&base).bearer_auth(&two.token);
            request
                .body(auth.to_string())
                .ask()
                .await
                .unwrap()
                .json()
                .await
                .unwrap()
        };
        let first = ask(json!({})).await;
        let mut auth = password(&by_password);
        auth["session"] = first["session"].clone();
        let token = ask(json!({ "auth": auth })).await;
        let login = json!({ "type": "m.login.token", "token": token["login_token"] });
        let request = http.post(server.url("/_matrix/client/v3/login"));
        let body: Value = request
            .body(login.to_string())
            .ask()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        User::with_token(
            &server.url(""),
            &two.id,
            body["access_token"].as_str().unwrap(),
        )
    };
    assert!(is_in(&opened).await);

    let two_out = json!({ "sid": "session two" });
    for bad in [
        json!({ "sid": null, "sub": null }),
        json!({ "sid": "session two", "nonce": "x" }),
        json!({ "sid": "session two", "events": null }),
        json!({ "sid": "session two", "events": { "other": {} } }),
        json!({ "sid": "session two", "iat": now_s() - 3_600 }),
        json!({ "sid": "session two", "iat": null }),
        json!({ "sid": "session two", "exp": now_s() - 300 }),
        json!({ "sid": "session two", "jti": null }),
        json!({ "sid": "session two", "aud": "another" }),
        json!({ "sid": "session two", "iss": "https://evil.example" }),
    ] {
        let (status, body) = log_out(&server, &provider.logout_token(bad.clone())).await;
        assert_eq!(
            (status, &body["error"]),
            (400, &json!("invalid_request")),
            "{bad}"
        );
    }
    let forged = Key::ec("first").sign(&json!({ "iss": provider.issuer }), "logout+jwt");
    for nonsense in ["", "a.b.c", "x", &forged] {
        assert_eq!(log_out(&server, nonsense).await.0, 400, "{nonsense}");
    }
    assert!(is_in(&two).await && is_in(&opened).await);

    // A session there ends what came of it, and a token is good once, at any node.
    let token = provider.logout_token(two_out);
    assert_eq!(log_out(&server, &token).await, (200, json!({})));
    assert!(!is_in(&two).await && !is_in(&opened).await);
    eventually("the other node to know", async || {
        (!is_in(&two.at(&node)).await).then_some(())
    })
    .await;
    assert!(is_in(&one).await && is_in(&bernd).await && is_in(&by_password).await);
    assert_eq!(
        redeem(&server, &waiting).await.0,
        403,
        "a login that was under way"
    );
    assert_eq!(log_out(&node, &token).await.0, 400);
    // A person is logged out everywhere, but for what has nothing to do with the provider.
    let token = provider.logout_token(json!({ "sub": "0815-anna" }));
    assert_eq!(log_out(&node, &token).await, (200, json!({})));
    eventually("all nodes to know", async || {
        (!is_in(&one).await).then_some(())
    })
    .await;
    assert!(is_in(&by_password).await && is_in(&bernd).await);
    // Nobody is there any more: that is no error.
    let token = provider.logout_token(json!({ "sub": "0815-anna" }));
    assert_eq!(log_out(&server, &token).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_may_not_ends_no_sessions() {
    let (one, two) = (Provider::start().await, Provider::start().await);
    let second = two.section("two", "backchannel_logout = true\n");
    let config = format!("{HEAD}{}{second}", one.section("idp", ""));
    let server = Server::with(&config, None).await;
    let anna = arrive(&server).await;
    for provider in [&one, &two] {
        // Nor does one end those of another, whose people may have the same names.
        log_out(
            &server,
            &provider.logout_token(json!({ "sub": "0815-anna" })),
        )
        .await;
    }
    assert!(is_in(&anna).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_there_is_nothing_of_it() {
    let server = Server::start().await;
    let http = http::client();
    for path in [
        "/_matrix/client/v3/login/sso/redirect?redirectUrl=https%3A%2F%2Fx%2F",
        "/_matrix/client/v3/login/sso/redirect/idp?redirectUrl=https%3A%2F%2Fx%2F",
        "/_synapse/client/pick_idp?redirectUrl=https%3A%2F%2Fx%2F",
        "/_synapse/client/oidc/callback?state=x",
        "/_matrix/client/v3/auth/m.login.sso/fallback/web?session=x",
        "/_matrix/client/v1/auth_metadata",
    ] {
        let answer = http.get(server.url(path)).ask().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["errcode"], "M_UNRECOGNIZED", "{path}");
    }
    let logout = server.url("/_synapse/client/oidc/backchannel_logout");
    let answer = http.post(logout).ask().await.unwrap();
    assert_eq!(answer.status(), 404);
    let flows = server
        .document("/_matrix/client/v3/login")
        .await
        .to_string();
    assert!(!flows.contains("m.login.sso") && !BASE.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_and_say_who_is_who_at_a_provider() {
    let provider = Provider::start().await;
    let server = provider.serves("enable_registration = false\n").await;
    let operator = Operator::of(&server).await;
    let id = format!("@anna.amt:{}", server.name);
    let path = format!("/v2/users/{}", enc(&id));
    assert_eq!(operator.ask(Method::GET, &path, None).await.0, 404);
    let wanted = json!({
        "displayname": "Anna", "threepids": [{ "medium": "email", "address": "A@amt.example" }],
        "external_ids": [{ "auth_provider": "idp", "external_id": "0815-anna" }],
    });
    let (status, body) = operator.ask(Method::PUT, &path, Some(wanted.clone())).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["external_ids"], wanted["external_ids"]);
    assert_eq!(body["threepids"][0]["address"], "a@amt.example");
    assert_eq!(
        (&body["admin"], &body["displayname"]),
        (&json!(false), &json!("Anna"))
    );
    let found = operator.get("/v1/auth_providers/idp/users/0815-anna").await;
    assert_eq!(found, json!({ "user_id": id }));
    for nobody in ["idp/users/0816", "other/users/0815-anna", "a%00/users/b%00"] {
        let path = format!("/v1/auth_providers/{nobody}");
        let (status, body) = operator.ask(Method::GET, &path, None).await;
        assert_eq!(
            (status, &body["errcode"]),
            (404, &json!("M_NOT_FOUND")),
            "{nobody}"
        );
    }
    // She is that person from now on, and nobody else is.
    assert_eq!(arrive(&server).await.id, id);
    let other = format!("/v2/users/{}", enc(&format!("@bernd:{}", server.name)));
    let (status, body) = operator
        .ask(Method::PUT, &other, Some(wanted.clone()))
        .await;
    assert_eq!((status, &body["errcode"]), (409, &json!("M_UNKNOWN")));
    assert_eq!(
        operator.ask(Method::GET, &other, None).await.0,
        404,
        "nothing is half done"
    );

    let (status, body) = operator
        .ask(Method::PUT, &path, Some(json!({ "admin": true })))
        .await;
    assert_eq!((status, &body["admin"]), (200, &json!(true)));
    assert_eq!(
        body["external_ids"], wanted["external_ids"],
        "what is not said stays"
    );
    let none = json!({ "external_ids": [], "threepids": [], "password": "a password of hers" });
    let (status, body) = operator.ask(Method::PUT, &path, Some(none)).await;
    assert_eq!((status, &body["external_ids"]), (200, &json!([])));
    assert_eq!(body["threepids"], json!([]));
    let seen = Browser::new().logs_in(&server).await;
    seen.is_refusal(409, "gehört hier schon zu einem anderen Konto");
    for bad in [
        json!({ "external_ids": [{ "auth_provider": "", "external_id": "x" }] }),
        json!({ "external_ids": [{ "auth_provider": "idp", "external_id": "a\u{0}" }] }),
        json!({ "external_ids": [{ "auth_provider": "idp" }] }),
        json!({ "threepids": [{ "medium": "msisdn", "address": "1" }] }),
        json!({ "password": "x" }),
    ] {
        let (status, body) = operator.ask(Method::PUT, &path, Some(bad.clone())).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
    let anna = server.user("carla").await;
    let (status, _) = anna.get(&format!("/../../../_synapse/admin{path}")).await;
    assert_eq!(status, 403);
}
