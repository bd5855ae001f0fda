//! Tests of reading the configuration.

use std::{fs, path::Path};

use super::super::{Error, Loaded, load_with};

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Loaded, Error> {
    let file = std::env::temp_dir().join(format!("amtsbote-config-{}.toml", uuid::Uuid::new_v4()));
    fs::write(&file, toml).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = load_with(Some(&file), env);
    fs::remove_file(file).unwrap();
    loaded
}

#[test]
fn the_example_is_valid_and_says_the_defaults() {
    let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml"));
    let loaded = load_with(Some(example), []).unwrap();
    let mut config = loaded.config;
    assert_eq!(config.server_name, "amt.example");
    let defaults = super::Config::default();
    config.server_name = defaults.server_name.clone();
    config.data_dir = defaults.data_dir.clone();
    config.signing_key_file = defaults.signing_key_file.clone();
    assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
}

#[test]
fn the_example_with_every_comment_taken_away_has_known_keys_only() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml");
    let text = fs::read_to_string(example).unwrap();
    // A line `#key = value` or `#[section]` is a setting that is not set; prose has a space.
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with([' ', '#']) => setting,
        _ => line,
    });
    let toml: String = lines.flat_map(|line| [line, "\n"]).collect();
    let Err(Error::Invalid(problems)) = load(&toml, &[]) else {
        panic!("files that the example names should be missing")
    };
    for problem in problems {
        assert!(!problem.remedy.contains("no such key"), "{problem}");
    }
}

#[test]
fn nothing_at_all_suits_a_trial() {
    let config = load_with(None, []).unwrap().config;
    assert_eq!(config.server_name, "localhost");
    assert_eq!(config.listeners[0].bind.to_string(), "127.0.0.1:8008");
}

#[test]
fn every_error_is_told_at_once() {
    let toml = r#"
        data_dirr = "x"
        [[listener]]
        bind = "8008"
        serve = ["clients"]
        prot = 1
        [database]
        url = "mysql://user:hunter2@host/db"
        [registration]
        open = "yes"
        shared_secret = "geheim"
        shared_secret_file = "/nowhere"
        [rooms]
        default_version = "99"
        [media]
        max_upload_bytes = "many"
        unauthenticated = "perhaps"
        [outbound]
        allow_ip_ranges = ["10.0.0.0/64"]
        [log]
        level = "loud=noise=x"
        format = "xml"
    "#;
    let message = load(toml, &[]).unwrap_err().to_string();
    assert!(!message.contains("geheim") && !message.contains("hunter2"));
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[0], "14 things to put right in the configuration:");
    assert_eq!(lines.len(), 15, "{message}");
    for wrong in [
        "server_name: is missing",
        "listener[0].serve = \"clients\": is nothing we can serve",
        "listener[0].bind = \"8008\": is not an address with a port",
        "listener[0].prot: there is no such key",
        "database.url: is not a PostgreSQL address",
        "registration.open = \"yes\": expected true or false",
        "registration.shared_secret: registration.shared_secret_file is given as well",
        "rooms.default_version = \"99\": is not a room version",
        "media.max_upload_bytes = \"many\": expected a whole number",
        "media.unauthenticated = \"perhaps\": expected",
        "log.level = \"loud=noise=x\": is not a level",
        "log.format = \"xml\": is not a log format",
        "outbound.allow_ip_ranges = \"10.0.0.0/64\": is not a range of addresses",
        "data_dirr: there is no such key; did you mean data_dir?",
    ] {
        assert!(
            lines
                .iter()
                .any(|line| line.trim_start().starts_with(wrong)),
            "{wrong}\n{message}"
        );
    }
}

#[test]
fn the_environment_wins_and_is_not_guessed_at() {
    let env = [
        ("AMTSBOTE__SERVER_NAME", "b.example"),
        ("AMTSBOTE__REGISTRATION__OPEN", "true"),
        ("AMTSBOTE__REGISTRATION__SHARED_SECRET", "007"),
        (
            "AMTSBOTE__OUTBOUND__ALLOW_IP_RANGES",
            "127.0.0.0/8, ::1/128",
        ),
        (
            "AMTSBOTE__LISTENER",
            r#"[{ bind = "127.0.0.1:1", serve = ["metrics"] }]"#,
        ),
        ("UNRELATED", "x"),
    ];
    let config = load("server_name = \"a.example\"", &env).unwrap().config;
    assert_eq!(config.server_name, "b.example");
    assert!(config.registration.open);
    assert_eq!(config.registration.shared_secret.unwrap().0, "007");
    assert_eq!(config.outbound.allow_ip_ranges.len(), 2);
    assert_eq!(config.listeners[0].bind.port(), 1);
}

#[test]
fn a_mistyped_variable_is_an_error() {
    let error = load(
        "server_name = \"a.example\"",
        &[("AMTSBOTE__REGISTRATION__OPPEN", "true")],
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "one thing to put right in the configuration:\n  \
         registration.oppen: there is no such key (environment); did you mean registration.open?"
    );
}

#[test]
fn a_file_without_server_name_is_an_error() {
    let error = load("data_dir = \"x\"", &[]).unwrap_err();
    assert!(
        error.to_string().contains("server_name: is missing"),
        "{error}"
    );
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let file = std::env::temp_dir().join(format!("amtsbote-secret-{}", uuid::Uuid::new_v4()));
    fs::write(&file, "geheim\n").unwrap();
    let path = file.display();
    let toml = format!(
        "server_name = \"a.example\"\n[registration]\nshared_secret_file = \"{path}\"\n\
         tokens_file = \"{path}\""
    );
    let config = load(&toml, &[]).unwrap().config;
    fs::remove_file(&file).unwrap();
    assert_eq!(
        config.registration.shared_secret.as_ref().unwrap().0,
        "geheim"
    );
    assert_eq!(config.registration.tokens.len(), 1);
    assert!(!format!("{config:?}").contains("geheim"));
}

#[test]
fn broken_toml_names_the_line() {
    let error = load("server_name = \"a\"\nbroken", &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn lists_of_servers_are_read_with_reason_and_end() {
    let toml = r#"
        server_name = "a.example"
        [federation]
        allow = ["*.Amt.example", { server = "b.example", reason = "contract", until = 1970-01-01T00:00:01Z }]
        unlisted_in_room = "refuse"
        [outbound]
        proxy = "http://name:geheim@proxy.example:3128"
        proxy_no_proxy = ["*.amt.example", "10.0.0.0/8"]
    "#;
    let config = load(toml, &[]).unwrap().config;
    let allow = &config.federation.allow;
    assert_eq!(allow[0].server, "*.amt.example");
    assert_eq!(allow[1].reason.as_deref(), Some("contract"));
    assert_eq!(allow[1].until_ts, Some(1_000));
    assert!(!format!("{config:?}").contains("geheim"));
    let env = [("AMTSBOTE__FEDERATION__DENY", "x.example, y.example")];
    let config = load("server_name = \"a.example\"", &env).unwrap().config;
    assert_eq!(config.federation.deny[1].server, "y.example");
}

#[test]
fn wrong_lists_and_proxies_are_told_without_secrets() {
    let toml = r#"
        server_name = "a.example"
        [federation]
        allow = ["b.example:8448", 7, { server = "c.example", untill = "x" }]
        deny = [{ server = "d.example", until = "soon" }]
        unlisted_in_room = "perhaps"
        keep_messages_days = 0
        [outbound]
        proxy = "name:geheim@proxy"
        proxy_no_proxy = ["a b"]
    "#;
    let Err(Error::Invalid(problems)) = load(toml, &[]) else {
        panic!("all of that is wrong")
    };
    let text = Error::Invalid(problems).to_string();
    assert!(text.starts_with("8 things"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
}

#[test]
fn email_that_cannot_work_is_told_and_its_password_is_not() {
    let head = "server_name = \"a.example\"\n";
    let bad = "[registration]\nemail = \"maybe\"\n[email]\ntls = \"none\"\n\
               smtp_host = \"mail.example\"\nusername = \"a\"\npassword = \"geheim\"\n\
               from = \"a\\r\\nBcc: b@c\"\nnext_link_hosts = [\"https://x\"]\n\
               notice_content = \"all\"\nnotice_delay_s = 0\n";
    let text = load(&format!("{head}{bad}"), &[]).unwrap_err().to_string();
    assert!(!text.contains("geheim"), "{text}");
    for wrong in [
        "registration.email = \"maybe\"",
        "email.tls = \"none\": would send the password in the clear",
        "email.from = ",
        "email.next_link_hosts = \"https://x\"",
        "email.notice_content = \"all\"",
        "email.notice_delay_s = 0",
        "well_known.client: is missing",
    ] {
        assert!(text.contains(wrong), "{wrong}\n{text}");
    }
    let text = load(&format!("{head}[email]\n"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("email.smtp_host: is missing") && text.contains("email.from: is missing")
    );
    let off = format!("{head}[registration]\nemail = \"required\"\n");
    assert!(
        load(&off, &[])
            .unwrap_err()
            .to_string()
            .contains("needs the section")
    );
    let good = "[well_known]\nclient = \"https://m.example\"\n[email]\nsmtp_host = \"mail.example\"\n\
                username = \"a\"\npassword = \"geheim\"\nfrom = \"A <a@b.example>\"\n";
    let config = load(&format!("{head}{good}"), &[]).unwrap().config;
    let shown = format!("{config:?}");
    assert!(!shown.contains("geheim"));
    assert_eq!(config.email.unwrap().smtp_port, 587);
}

#[test]
fn identity_providers_that_cannot_work_are_told_and_their_secrets_are_not() {
    let head = "server_name = \"a.example\"\n";
    let bad = r#"
        [sso]
        client_whitelist = ["chat.example", "data:x"]
        [[oidc]]
        id = "a b"
        issuer = "http://login.example"
        client_secret = "geheim"
        client_auth_method = "none"
        scopes = ["profile"]
        discover = false
        token_endpoint = "ftp://x"
        user_mapping.localpart_claim = ""
        attribute_requirements = [{ value = "x", one_of = ["y"] }, { claim = "z", one_of = [] }]
        localpart_claim = "x"
        [[oidc]]
        id = "idp"
        issuer = "https://login.example"
        client_id = "x"
        jwks_uri = "https://login.example/keys"
        [[oidc]]
        id = "idp"
        issuer = "https://login.example"
        client_id = "x"
    "#;
    let text = load(&format!("{head}{bad}"), &[]).unwrap_err().to_string();
    assert!(!text.contains("geheim"), "{text}");
    for wrong in [
        "sso.client_whitelist = \"chat.example\"",
        "sso.client_whitelist = \"data:x\"",
        "oidc[0].id = \"a b\"",
        "oidc[0].issuer = \"http://login.example\"",
        "oidc[0].client_id: is missing",
        "oidc[0].client_auth_method = \"none\"",
        "oidc[0].scopes = ",
        "oidc[0].discover: is false",
        "oidc[0].token_endpoint = \"ftp://x\"",
        "oidc[0].user_mapping.localpart_claim: is empty",
        "oidc[0].attribute_requirements[0].claim: is missing",
        "oidc[0].attribute_requirements[0].value: is given with one_of",
        "oidc[0].attribute_requirements[1].one_of: is empty",
        "oidc[0].localpart_claim: there is no such key",
        "oidc[1].discover: is true",
        "oidc[2].id = \"idp\": another provider has this id",
        "well_known.client: is missing",
    ] {
        assert!(text.contains(wrong), "{wrong}\n{text}");
    }
    let good = "[well_known]\nclient = \"https://m.example\"\n[[oidc]]\nid = \"idp\"\n\
                issuer = \"http://localhost:8080/realms/x\"\nclient_id = \"x\"\n\
                client_secret = \"geheim\"\n";
    let config = load(&format!("{head}{good}"), &[]).unwrap().config;
    assert!(!format!("{config:?}").contains("geheim"));
    let provider = &config.oidc[0];
    assert_eq!((&*provider.name, provider.scopes.len()), ("idp", 3));
}

#[test]
fn terms_and_ends_and_rates_that_cannot_be_are_told() {
    let head = "server_name = \"a.example\"\n";
    let bad = r#"
        [terms]
        required = true
        notice = true
        policies = [
          { id = "a b", version = "1", texts = { de = { name = "A", url = "https://a.example" } } },
          { id = "b", version = "", texts = {} },
          { id = "c", version = "1", texts = { version = { name = "C", url = "https://a.example" } } },
          { id = "d", version = "1", texts = { de = { name = "", file = "/nowhere" } } },
          { id = "e", version = "1", texts = { de = { name = "E", url = "a", file = "b" } } },
          { id = "f", version = "1", texts = { de = { name = "F", url = "ftp://a.example" } } },
          { id = "g" },
        ]
        [account_validity]
        period_days = 7
        renew_at_days = 7
        [rate_limits.rates]
        messages = { per_second = 1, burst = 1 }
        message = { per_second = 0, burst = 1 }
        media = { per_second = 1 }
        report = 7
    "#;
    let text = load(&format!("{head}{bad}"), &[]).unwrap_err().to_string();
    for wrong in [
        "terms.notice = true: needs server_notices",
        "well_known.client: is missing",
        "terms.policies[0].id = \"a b\"",
        "terms.policies[1].version = \"\"",
        "terms.policies[1].texts: is empty",
        "terms.policies[2].texts.version: is no language",
        "terms.policies[3].texts.de.name: is no name",
        "terms.policies[3].texts.de.file = \"/nowhere\"",
        "terms.policies[4].texts.de: give either",
        "terms.policies[5].texts.de.url = ",
        "terms.policies[6]: is no policy",
        "account_validity.renew_at_days: needs the section [email]",
        "account_validity.renew_at_days = 7: has to be less",
        "rate_limits.rates.messages: is nothing that is limited; did you mean message?",
        "rate_limits.rates.message = ",
        "rate_limits.rates.media = ",
        "rate_limits.rates.report = 7",
    ] {
        assert!(text.contains(wrong), "{wrong}\n{text}");
    }
    let text = load(&format!("{head}[terms]\nrequired = true\n"), &[]);
    assert!(
        text.unwrap_err()
            .to_string()
            .contains("there is nothing to accept")
    );
    let good = "[rate_limits.rates]\nmessage = { per_second = 2, burst = 3.5 }\n\
                [account_validity]\nperiod_days = 2\n";
    let config = load(&format!("{head}{good}"), &[]).unwrap().config;
    let rate = config.rate_limits.of(crate::config::rates::Kind::Message);
    assert_eq!((rate.per_second, rate.burst), (2.0, 3.5));
    let rate = config.rate_limits.of(crate::config::rates::Kind::Mail);
    assert_eq!((rate.per_second, rate.burst), (0.02, 10.0));
    assert_eq!(config.account_validity.unwrap().period_ms, 172_800_000);
}
