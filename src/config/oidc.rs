//! Identity providers through which users log in (OpenID Connect).

use url::Url;

use super::Secret;

/// Login by single sign-on, whatever the provider.
#[derive(Clone, Debug, Default)]
pub struct Sso {
    /// Clients that a browser is sent to after a login without being asked.
    pub client_whitelist: Vec<Url>,
}

/// One identity provider.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of an administrator, each for itself"
)]
pub struct IdentityProvider {
    /// Its id here, by which accounts remember it.
    pub id: String,
    /// What people know it as.
    pub name: String,
    /// A picture (`mxc://`).
    pub icon: Option<String>,
    /// A well-known kind of provider, for which clients have pictures.
    pub brand: Option<String>,
    /// What it calls itself, and below which its discovery document is.
    pub issuer: String,
    /// What it knows us as.
    pub client_id: String,
    /// By what we prove to be that; `None`: a public client.
    pub client_secret: Option<Secret>,
    /// How we do.
    pub client_auth: ClientAuth,
    /// What we ask for; `openid` is among it.
    pub scopes: Vec<String>,
    /// Its addresses; `None`: they are discovered.
    pub endpoints: Option<Endpoints>,
    /// Whether it is asked for claims that the id token does not have.
    pub userinfo: bool,
    /// Which claims a new account is made of.
    pub user_mapping: UserMapping,
    /// What has to be true of who logs in.
    pub requirements: Vec<Requirement>,
    /// Whether an account that has the name already belongs to who logs in under it.
    pub allow_existing_users: bool,
    /// Whether accounts are made for people who have none.
    pub enable_registration: bool,
    /// Whether each login sets the display name anew.
    pub update_profile: bool,
    /// Whether it may end sessions.
    pub backchannel_logout: bool,
}

/// Which claims a new account is made of.
#[derive(Clone, Debug)]
pub struct UserMapping {
    /// Of the user name.
    pub localpart_claim: String,
    /// Of the display name; `None`: the user name.
    pub display_name_claim: Option<String>,
    /// Of the e-mail address; `None`: it has none.
    pub email_claim: Option<String>,
}

/// How we prove to a provider who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// In the head of the request.
    #[default]
    Basic,
    /// In its body.
    Post,
}

/// Addresses of a provider.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Where the browser goes.
    pub authorization: Url,
    /// Where tokens are had.
    pub token: Url,
    /// Where its keys are.
    pub jwks: Url,
    /// Where claims are.
    pub userinfo: Option<Url>,
}

/// What has to be true of who logs in.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// The claim.
    pub claim: String,
    /// Its value, or one of its values, has to be among these; empty: it has to be there.
    pub one_of: Vec<String>,
}

/// Whether a provider may be called at an address: with TLS, or on this machine where the provider
/// itself is called there without.
pub(crate) fn may_be_at(issuer: &Url, url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => issuer.scheme() == "http" && is_here(url),
        _ => false,
    }
}

/// Whether an address is on this machine: nobody else listens.
pub(super) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
