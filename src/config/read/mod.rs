//! From keys to a checked configuration.

mod appservice;
mod email;
mod federation;
mod media;
mod oauth;
mod oidc;
mod outbound;
mod push;
mod rates;
mod rooms;
mod server_notices;
mod terms;
mod turn;
mod validity;

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use ruma::OwnedServerName;

use super::{
    ClientCertificate, Config, EmailTls, Error, Listener, Loaded, Log, Presence, PrivateDatabase,
    Registration, Secret, Serve, Tls, Unstable, UserDirectory, WellKnown, source::Source,
};

/// Reads every key. `from_file`: a file is given, so that the server name must be said.
pub(super) fn read(mut source: Source, from_file: bool) -> Result<Loaded, Error> {
    let defaults = Config::default();
    let source_ref = &mut source;
    let data_dir = source_ref
        .text("data_dir")
        .map_or(defaults.data_dir, PathBuf::from);
    let server_name = server_name(source_ref, from_file).unwrap_or(defaults.server_name);
    let well_known = well_known(source_ref);
    let email = email::read(source_ref, &well_known);
    let server_notices = server_notices::read(source_ref);
    let config = Config {
        signing_key_file: source_ref
            .text("signing_key_file")
            .map_or_else(|| data_dir.join("signing.key"), PathBuf::from),
        data_dir,
        listeners: listeners(source_ref).unwrap_or(defaults.listeners),
        database_url: database_url(source_ref),
        private_database: private_database(source_ref),
        registration: registration(source_ref, email.is_some()),
        rate_limits: rates::read(source_ref),
        rooms: rooms::read(source_ref, defaults.rooms),
        delayed_events: rooms::delayed_events(source_ref, defaults.delayed_events),
        rendezvous: rooms::rendezvous(source_ref, defaults.rendezvous),
        presence: Presence {
            enabled: source_ref.flag("presence.enabled", defaults.presence.enabled),
            federation: source_ref.flag("presence.federation", defaults.presence.federation),
        },
        media: media::read(source_ref, &defaults.media),
        push: push::read(source_ref, defaults.push),
        turn: turn::read(source_ref, &defaults.turn),
        terms: terms::read(source_ref, &well_known, server_notices.is_some()),
        account_validity: validity::read(source_ref, email.is_some()),
        server_notices,
        rtc: turn::rtc(source_ref),
        email,
        sso: oidc::sso(source_ref),
        oidc: oidc::read(source_ref, &well_known),
        oauth: oauth::read(source_ref, &well_known),
        user_directory: UserDirectory {
            search_all_users: source_ref.flag(
                "user_directory.search_all_users",
                defaults.user_directory.search_all_users,
            ),
        },
        unstable: Unstable {
            thread_subscriptions: source_ref.flag(
                "unstable.thread_subscriptions",
                defaults.unstable.thread_subscriptions,
            ),
            account_data_deletion: source_ref.flag(
                "unstable.account_data_deletion",
                defaults.unstable.account_data_deletion,
            ),
        },
        log: log(source_ref, defaults.log),
        federation: federation::read(source_ref),
        outbound: outbound::read(source_ref),
        well_known,
        appservices: appservice::read(source_ref, &server_name),
        server_name,
    };
    let problems = source.finish();
    if !problems.is_empty() {
        return Err(Error::Invalid(problems));
    }
    let warnings = warnings(&config);
    Ok(Loaded { config, warnings })
}

fn server_name(source: &mut Source, from_file: bool) -> Option<OwnedServerName> {
    let key = "server_name";
    if !source.has(key) && from_file {
        let remedy = "is missing; it is the part of user ids after the colon, such as \
                      server_name = \"amt.example\", and cannot be changed later";
        source.problem(key, None, remedy);
        return None;
    }
    source.parse(
        key,
        "is not a server name; give a host name, such as \"amt.example\"",
    )
}

fn listeners(source: &mut Source) -> Option<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut taken = HashSet::new();
    let given = source.tables("listener", |layer| {
        let tls = tls(layer);
        let serve = serve(layer);
        let bind = layer.parse::<SocketAddr>(
            "bind",
            "is not an address with a port; write it as \"127.0.0.1:8008\" or \"[::1]:8008\"",
        );
        let Some(bind) = bind else {
            if !layer.has("bind") {
                layer.problem(
                    "bind",
                    None,
                    "is missing; say where to listen, such as \"127.0.0.1:8008\"",
                );
            }
            return;
        };
        if bind.port() != 0 && !taken.insert(bind) {
            let value = Some(format!("\"{bind}\""));
            layer.problem(
                "bind",
                value,
                "another listener has this address; give each its own",
            );
        }
        listeners.push(Listener { bind, serve, tls });
    });
    given.then_some(listeners)
}

fn serve(layer: &mut Source) -> Vec<Serve> {
    let remedy = "serve: give a list of \"client\", \"federation\", \"admin\", \"metrics\"";
    if !layer.has("serve") {
        layer.problem("serve", None, format!("is missing; {remedy}"));
        return Vec::new();
    }
    let before = layer.problems.len();
    let serve = layer.parse_list("serve", &format!("is nothing we can {remedy}"));
    if serve.is_empty() && layer.problems.len() == before {
        layer.problem(
            "serve",
            Some("[]".to_owned()),
            format!("is empty; {remedy}"),
        );
    }
    serve
}

impl FromStr for Serve {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, serve)| serve).ok_or(())
    }
}

impl FromStr for ClientCertificate {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "require" => Ok(Self::Require),
            "request" => Ok(Self::Request),
            _ => Err(()),
        }
    }
}

fn tls(layer: &mut Source) -> Option<Tls> {
    let certificate = layer.readable("tls.certificate");
    let key = layer.readable("tls.key");
    let client_ca = layer.readable("tls.client_ca");
    let remedy = "is not a choice; give \"require\" or \"request\"";
    let choice = layer.parse::<ClientCertificate>("tls.client_certificate", remedy);
    if choice.is_some() && client_ca.is_none() {
        let remedy = "has no effect without tls.client_ca, the authorities of clients";
        layer.problem("tls.client_certificate", None, remedy);
    }
    let client_certificate = choice.unwrap_or_default();
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls {
            certificate,
            key,
            client_ca,
            client_certificate,
        }),
        (None, None) => None,
        (Some(_), None) => {
            layer.problem(
                "tls.key",
                None,
                "is missing; name the PEM file with the private key",
            );
            None
        }
        (None, Some(_)) => {
            let remedy = "is missing; name the PEM file with the certificate chain";
            layer.problem("tls.certificate", None, remedy);
            None
        }
    }
}

fn database_url(source: &mut Source) -> Option<Secret> {
    let url = source.secret("database.url", "database.url_file")?;
    let known_scheme = ["postgres://", "postgresql://"];
    let parses = sqlx::postgres::PgConnectOptions::from_str(&url.0).is_ok();
    if !parses || !known_scheme.iter().any(|scheme| url.0.starts_with(scheme)) {
        let remedy = "is not a PostgreSQL address; write it as \
                      postgres://USER:PASSWORD@HOST/DATABASE, with special characters of the \
                      password percent-encoded";
        source.problem("database.url", None, remedy);
    }
    Some(url)
}

fn private_database(source: &mut Source) -> PrivateDatabase {
    let programs = source.text("database.programs").map(PathBuf::from);
    if let Some(folder) = &programs
        && !folder.join("postgres").is_file()
    {
        let value = Some(format!("{:?}", folder.display()));
        let remedy = "holds no program postgres; name the folder with PostgreSQL's programs, such \
                      as \"/usr/lib/postgresql/15/bin\"";
        source.problem("database.programs", value, remedy);
    }
    PrivateDatabase {
        programs,
        account: source.text("database.account"),
    }
}

/// Characters that a new password has at least, where nothing is said.
const PASSWORD_LENGTH_MIN: usize = 8;

fn registration(source: &mut Source, has_mail: bool) -> Registration {
    let email = source.text("registration.email");
    let email = email.unwrap_or_else(|| "off".to_owned());
    let shown = Some(format!("{email:?}"));
    match email.as_str() {
        "off" => {}
        "required" if has_mail => {}
        "required" => {
            let remedy = "needs the section [email]: addresses are confirmed by mail";
            source.problem("registration.email", shown, remedy);
        }
        _ => {
            let remedy = "is not a choice; give \"off\" or \"required\"";
            source.problem("registration.email", shown, remedy);
        }
    }
    let tokens = source
        .text("registration.tokens_file")
        .and_then(|path| source.secret_file("registration.tokens_file", Path::new(&path)));
    let tokens = tokens.unwrap_or_default();
    let lines = tokens.lines().map(str::trim);
    let length_min = source.number("registration.password_length_min");
    let length_min = length_min.and_then(|length| usize::try_from(length).ok());
    Registration {
        open: source.flag("registration.open", false),
        require_token: source.flag("registration.require_token", false),
        require_email: email == "required",
        guests: source.flag("registration.guests", false),
        tokens: lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Secret(line.to_owned()))
            .collect(),
        shared_secret: source.secret(
            "registration.shared_secret",
            "registration.shared_secret_file",
        ),
        password_length_min: length_min.unwrap_or(PASSWORD_LENGTH_MIN),
    }
}

fn log(source: &mut Source, defaults: Log) -> Log {
    let level = source.text("log.level").unwrap_or(defaults.level);
    if tracing_subscriber::EnvFilter::builder()
        .parse(&level)
        .is_err()
    {
        let remedy = "is not a level; give error, warn, info, debug or trace, or a list such as \
                      \"info,amtsbote::federation=debug\"";
        source.problem("log.level", Some(format!("{level:?}")), remedy);
    }
    let format = source
        .text("log.format")
        .unwrap_or_else(|| "human".to_owned());
    if !["human", "json"].contains(&format.as_str()) {
        let remedy = "is not a log format; give \"human\" or \"json\"";
        source.problem("log.format", Some(format!("{format:?}")), remedy);
    }
    Log {
        level,
        json: format == "json",
    }
}

fn well_known(source: &mut Source) -> WellKnown {
    let client = source.text("well_known.client");
    if let Some(text) = &client {
        let url = url::Url::parse(text).ok();
        if !url.is_some_and(|url| ["http", "https"].contains(&url.scheme())) {
            let remedy = "is not a web address; give the address clients use, such as \
                          \"https://matrix.amt.example\"";
            source.problem("well_known.client", Some(format!("{text:?}")), remedy);
        }
    }
    let remedy = "is not a server name; give host and port, such as \"matrix.amt.example:443\"";
    let server = source.parse::<OwnedServerName>("well_known.server", remedy);
    let support = source.json("well_known.support");
    if let Some(value) = &support {
        check_support(source, value);
    }
    WellKnown {
        client,
        server: server.map(|name| name.to_string()),
        support,
    }
}

/// The specification wants contacts or a page, and of each contact a role and a way to reach it.
fn check_support(source: &mut Source, support: &serde_json::Value) {
    let contacts = support
        .get("contacts")
        .and_then(|contacts| contacts.as_array());
    if contacts.is_none_or(Vec::is_empty) && !support["support_page"].is_string() {
        let remedy = "needs support_page or at least one of contacts";
        source.problem("well_known.support", None, remedy);
    }
    for (index, contact) in contacts.into_iter().flatten().enumerate() {
        let reachable = contact["matrix_id"].is_string() || contact["email_address"].is_string();
        if !contact["role"].is_string() || !reachable {
            let key = format!("well_known.support.contacts[{index}]");
            let remedy = "needs role (such as \"m.role.admin\") and email_address or matrix_id";
            source.problem(&key, None, remedy);
        }
    }
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for listener in &config.listeners {
        if listener.tls.is_none() && !listener.bind.ip().is_loopback() {
            warnings.push(format!(
                "the listener on {} speaks plain HTTP beyond this machine: give it tls, or let a \
                 reverse proxy with TLS stand before it",
                listener.bind
            ));
        }
    }
    let registration = &config.registration;
    if registration.open && !registration.require_token && !registration.require_email {
        warnings.push(
            "registration.open: anybody who reaches this server can make an account; \
             registration.require_token = true asks for a token"
                .to_owned(),
        );
    }
    if registration.require_token && !registration.open {
        warnings.push(
            "registration.require_token has no effect while registration.open is false".to_owned(),
        );
    }
    if let Some(email) = &config.email
        && email.tls == EmailTls::None
        && !email::is_here(&email.smtp_host)
    {
        warnings.push(
            "email.tls is \"none\": mails, and the links in them, can be read on the way to the \
             relay"
                .to_owned(),
        );
    }
    if config.server_name.host() == "localhost" {
        warnings.push(
            "server_name is localhost, good for a trial only: other servers cannot reach it, and \
             it cannot be changed later"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests;
