//! How requests leave a server: through a proxy, with certificates of its own, trusting whom.

use std::collections::HashMap;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::media::{download, get, upload},
    rig::{
        enc, eventually, free_port,
        proxy::Proxy,
        server::{Folder, Like, Server},
        tls::Tls,
        user::User,
    },
};

/// Whether a user can see the profile of another.
async fn profile(user: &User, of: &User) -> u16 {
    user.get(&format!("/profile/{}", enc(&of.id))).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_the_proxy_and_nothing_past_it() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    // Nobody listens where the name of the other says: only the proxy knows the way.
    let outside = free_port();
    let other = Like {
        host: "127.0.0.1",
        outside: Some(outside),
        ..Like::default()
    };
    let other = Server::like(other, &tls).await;
    let known = HashMap::from([(format!("127.0.0.1:{outside}"), other.inside)]);
    let proxy = Proxy::start("amt:geheimes wort", known).await;
    let outbound = format!(
        "proxy = \"http://amt:geheimes%20wort@localhost:{}\"\nproxy_no_proxy = []\n",
        proxy.port
    );
    let one = Like {
        outbound: &outbound,
        ..Like::default()
    };
    let one = Server::like(one, &tls).await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;

    let room = bob
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "hall" }))
        .await;
    alice.join(&format!("#hall:{}", other.name)).await;
    alice.say(&room, "through the proxy").await;
    bob.hears("through the proxy").await;
    bob.say(&room, "and back").await;
    alice.hears("and back").await;
    let mxc = upload(&bob, "", "text/plain", b"bytes").await;
    assert_eq!(get(&alice, &download(&mxc)).await.status(), 200);
    assert_eq!(profile(&alice, &bob).await, 200);

    // Names are the proxy's to resolve, for well-known documents as well.
    let (status, _) = alice.get("/profile/%40x%3Anowhere.example").await;
    assert_eq!(status, 502);
    let asked = proxy.asked();
    for target in ["nowhere.example:443", "nowhere.example:8448"] {
        assert!(asked.iter().any(|it| it == target), "{target} in {asked:?}");
    }
    assert!(
        asked.iter().all(|it| !it.contains("credentials")),
        "{asked:?}"
    );

    // What is inside is not asked of the proxy.
    let (status, _) = alice.get("/profile/%40x%3Adb.internal").await;
    assert_eq!(status, 502);
    let (status, _) = alice.get("/profile/%40x%3A10.1.2.3%3A8448").await;
    assert_eq!(status, 502);
    let asked = proxy.asked();
    let inner = |it: &String| it.contains("internal:8448") || it.starts_with("10.");
    assert!(!asked.iter().any(inner), "{asked:?}");

    one.reconfigure("proxy_no_proxy = []", "proxy_no_proxy = [\"127.0.0.0/8\"]");
    eventually("the other to be looked for past the proxy", async || {
        (profile(&alice, &bob).await == 502).then_some(())
    })
    .await;
    assert!(!one.log().contains("geheimes"), "{}", one.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_show_certificates_to_each_other() {
    let (folder, others) = (Folder::new(), Folder::new());
    let tls = Tls::new(&folder.0);
    let agencies = Tls::new(&others.0);
    let listener = format!(", client_ca = \"{}\"", agencies.ca.display());
    let one = Like {
        tls: &listener,
        ..Like::default()
    };
    let one = Server::like(one, &tls).await;
    let other = Like {
        outbound: "# identity\n",
        ..Like::default()
    };
    let other = Server::like(other, &tls).await;
    let alice = one.user("alice").await;
    let bob = other.user("bob").await;

    assert_eq!(profile(&bob, &alice).await, 502, "without a certificate");
    let with = |of: &Tls| {
        let (certificate, key) = (of.certificate.display(), of.key.display());
        format!("client_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n")
    };
    other.reconfigure("# identity\n", &with(&tls));
    assert_eq!(
        profile(&bob, &alice).await,
        502,
        "of an authority that is not asked for"
    );
    other.reconfigure(&with(&tls), &with(&agencies));
    eventually("the peer with a certificate to be heard", async || {
        (profile(&bob, &alice).await == 200).then_some(())
    })
    .await;

    // Whom a listener lets in changes without a restart as well.
    std::fs::copy(&tls.ca, &agencies.ca).unwrap();
    one.reconfigure("client_ca", "client_ca");
    other.reconfigure("[rate_limits]", "[rate_limits]");
    eventually("the authority to be taken back", async || {
        (profile(&bob, &alice).await == 502).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_our_own_take_the_place_of_all_others() {
    let (folder, others) = (Folder::new(), Folder::new());
    let tls = Tls::new(&folder.0);
    let strangers = Tls::new(&others.0);
    let one = Server::with_tls(&tls).await;
    let other = Server::with_tls(&tls).await;
    let alice = one.user("alice").await;
    let bob = other.user("bob").await;
    assert_eq!(profile(&alice, &bob).await, 200);
    let extra = format!("extra_ca = [\"{}\"]", tls.ca.display());
    let strange = format!("replace_ca = [\"{}\"]", strangers.ca.display());
    one.reconfigure(&extra, &strange);
    eventually("the peer's authority not to be trusted", async || {
        (profile(&alice, &bob).await == 502).then_some(())
    })
    .await;
    one.reconfigure(
        &strange,
        &format!("replace_ca = [\"{}\"]", tls.ca.display()),
    );
    eventually("the peer's authority to be trusted", async || {
        (profile(&alice, &bob).await == 200).then_some(())
    })
    .await;

    // A client that knows TLS 1.1 and nothing newer.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(hello.len()).unwrap()];
    message.extend(hello);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", one.inside))
        .await
        .unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        answer.first(),
        Some(&21),
        "an alert, no handshake: {answer:?}"
    );
    assert_eq!(answer.get(5), Some(&2), "a fatal one: {answer:?}");
}
