//! `[[oidc]]` and `[sso]`.

use std::{collections::HashSet, str::FromStr, sync::Arc};

use url::Url;

use super::super::{
    WellKnown,
    oidc::{ClientAuth, Endpoints, IdentityProvider, Requirement, Sso, UserMapping, may_be_at},
    source::Source,
};

/// Providers of one server.
const PROVIDERS_MAX: usize = 20;
/// Characters of an id (specification, "Opaque Identifiers").
const ID_CHARS_MAX: usize = 255;

/// `[sso]`.
pub(super) fn sso(source: &mut Source) -> Sso {
    let key = "sso.client_whitelist";
    let remedy = "is not the address of a client; write it as \"https://chat.amt.example/\"";
    let client_whitelist: Vec<Url> = source.parse_list(key, remedy);
    for url in client_whitelist.iter().filter(|url| !url.has_host()) {
        source.problem(key, Some(format!("\"{url}\"")), remedy);
    }
    Sso { client_whitelist }
}

/// Every provider. They send browsers back to `well_known.client`.
pub(super) fn read(source: &mut Source, well_known: &WellKnown) -> Vec<Arc<IdentityProvider>> {
    let mut providers: Vec<Arc<IdentityProvider>> = Vec::new();
    let mut ids = HashSet::new();
    source.tables("oidc", |layer| {
        let Some(provider) = provider(layer) else {
            return;
        };
        if !ids.insert(provider.id.clone()) {
            let value = Some(format!("{:?}", provider.id));
            layer.problem(
                "id",
                value,
                "another provider has this id; give each its own",
            );
        }
        if providers.len() >= PROVIDERS_MAX {
            let remedy = format!("is one too many; there may be {PROVIDERS_MAX}");
            layer.problem("id", None, remedy);
            return;
        }
        providers.push(Arc::new(provider));
    });
    if !providers.is_empty() && well_known.client.is_none() {
        let remedy = "is missing; identity providers send browsers back there, so that [[oidc]] \
                      needs it";
        source.problem("well_known.client", None, remedy);
    }
    providers
}

/// One provider; every key is read, so that each is known and everything wrong is told.
fn provider(layer: &mut Source) -> Option<IdentityProvider> {
    let id = id(layer);
    let name = layer.text("name");
    let issuer = issuer(layer);
    let client_id = required(layer, "client_id", "what the provider knows this server as");
    let client_secret = layer.secret("client_secret", "client_secret_file");
    let remedy = "is not a choice; give \"client_secret_basic\" or \"client_secret_post\"";
    let client_auth = layer.parse::<ClientAuth>("client_auth_method", remedy);
    let is_discovered = layer.flag("discover", true);
    let endpoints = endpoints(layer, issuer.as_ref().map(|(_, url)| url), is_discovered);
    let icon = icon(layer);
    let brand = layer.text("brand");
    let scopes = scopes(layer);
    let requirements = requirements(layer);
    let user_mapping = user_mapping(layer);
    let userinfo = layer.flag("userinfo", false);
    let allow_existing_users = layer.flag("allow_existing_users", false);
    let enable_registration = layer.flag("enable_registration", true);
    let update_profile = layer.flag("update_profile", false);
    let backchannel_logout = layer.flag("backchannel_logout", false);
    let id = id?;
    Some(IdentityProvider {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        icon,
        brand,
        issuer: issuer?.0,
        client_id: client_id?,
        client_secret,
        client_auth: client_auth.unwrap_or_default(),
        scopes,
        endpoints: endpoints.ok()?,
        userinfo,
        user_mapping,
        requirements,
        allow_existing_users,
        enable_registration,
        update_profile,
        backchannel_logout,
    })
}

impl FromStr for ClientAuth {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "client_secret_basic" => Ok(Self::Basic),
            "client_secret_post" => Ok(Self::Post),
            _ => Err(()),
        }
    }
}

fn required(layer: &mut Source, key: &'static str, what: &str) -> Option<String> {
    let text = layer.text(key).filter(|text| !text.is_empty());
    if text.is_none() {
        layer.problem(key, None, format!("is missing; give {what}"));
    }
    text
}

fn id(layer: &mut Source) -> Option<String> {
    let id = required(
        layer,
        "id",
        "a short name that never changes, such as \"keycloak\"",
    )?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    if id.len() > ID_CHARS_MAX || !id.chars().all(is_plain) {
        let remedy = "is no id; it has letters, digits and . _ ~ -";
        layer.problem("id", Some(format!("{id:?}")), remedy);
        return None;
    }
    Some(id)
}

/// As it is written, for that is what tokens say, and as an address.
fn issuer(layer: &mut Source) -> Option<(String, Url)> {
    let text = required(
        layer,
        "issuer",
        "the address that the provider names itself by",
    )?;
    let url = Url::parse(&text).ok();
    let url =
        url.filter(|url| may_be_at(url, url) && url.query().is_none() && url.fragment().is_none());
    let Some(url) = url else {
        let remedy = "is not the address of a provider; write it as \
                      \"https://login.amt.example/realms/amt\" (http:// on this machine only)";
        layer.problem("issuer", Some(format!("{text:?}")), remedy);
        return None;
    };
    Some((text, url))
}

/// `None`: they are discovered. What is wrong is noted.
fn endpoints(
    layer: &mut Source,
    issuer: Option<&Url>,
    is_discovered: bool,
) -> Result<Option<Endpoints>, ()> {
    let mut read = |key: &'static str| {
        let text = layer.text(key)?;
        let url = Url::parse(&text).ok();
        let url = url.filter(|url| may_be_at(issuer.unwrap_or(url), url));
        if url.is_none() {
            let remedy = "is not an address with TLS; write it as https://…";
            layer.problem(key, Some(format!("{text:?}")), remedy);
        }
        url
    };
    let authorization = read("authorization_endpoint");
    let token = read("token_endpoint");
    let jwks = read("jwks_uri");
    let userinfo = read("userinfo_endpoint");
    let given = [&authorization, &token, &jwks, &userinfo];
    if is_discovered {
        if given.into_iter().any(Option::is_some) {
            let remedy = "is true, so that no addresses of endpoints are needed; leave them out, or \
                          give false";
            layer.problem("discover", None, remedy);
        }
        return Ok(None);
    }
    let (Some(authorization), Some(token), Some(jwks)) = (authorization, token, jwks) else {
        let remedy = "is false, so that authorization_endpoint, token_endpoint and jwks_uri are \
                      needed";
        layer.problem("discover", None, remedy);
        return Err(());
    };
    Ok(Some(Endpoints {
        authorization,
        token,
        jwks,
        userinfo,
    }))
}

fn icon(layer: &mut Source) -> Option<String> {
    let icon = layer.text("icon")?;
    if !<&ruma::MxcUri>::from(icon.as_str()).is_valid() {
        let remedy = "is not the address of a picture; write it as mxc://amt.example/abcdef";
        layer.problem("icon", Some(format!("{icon:?}")), remedy);
    }
    Some(icon)
}

fn scopes(layer: &mut Source) -> Vec<String> {
    if !layer.has("scopes") {
        return ["openid", "profile", "email"].map(ToOwned::to_owned).into();
    }
    let scopes = layer.list("scopes");
    // RFC 6749, section 3.3.
    let is_scope = |scope: &String| {
        let is_legal = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        !scope.is_empty() && scope.bytes().all(is_legal)
    };
    if !scopes.iter().any(|scope| scope == "openid") || !scopes.iter().all(is_scope) {
        let remedy = "needs \"openid\", and no spaces in any";
        layer.problem("scopes", Some(format!("{scopes:?}")), remedy);
    }
    scopes
}

fn user_mapping(layer: &mut Source) -> UserMapping {
    let claim = |layer: &mut Source, key, default: &str| {
        let claim = layer.text(key).unwrap_or_else(|| default.to_owned());
        Some(claim).filter(|claim| !claim.is_empty())
    };
    let key = "user_mapping.localpart_claim";
    let localpart_claim = claim(layer, key, "preferred_username");
    if localpart_claim.is_none() {
        layer.problem(
            key,
            None,
            "is empty; name a claim, such as \"preferred_username\"",
        );
    }
    UserMapping {
        localpart_claim: localpart_claim.unwrap_or_default(),
        display_name_claim: claim(layer, "user_mapping.display_name_claim", "name"),
        email_claim: claim(layer, "user_mapping.email_claim", "email"),
    }
}

fn requirements(layer: &mut Source) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    layer.tables("attribute_requirements", |entry| {
        let claim = required(entry, "claim", "the name of a claim");
        let value = entry.text("value");
        let mut one_of = entry.list("one_of");
        if value.is_some() && !one_of.is_empty() {
            entry.problem("value", None, "is given with one_of; give one of the two");
        }
        if entry.has("one_of") && one_of.is_empty() {
            entry.problem("one_of", None, "is empty, so that nobody would do");
        }
        one_of.extend(value);
        requirements.extend(claim.map(|claim| Requirement { claim, one_of }));
    });
    requirements
}
