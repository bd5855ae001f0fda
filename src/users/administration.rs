//! Accounts as administrators see and make them (Synapse's user object, `/_synapse/admin/v2/users`).

use std::collections::BTreeSet;

use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Error, login,
    moderation::{self, Measure},
    passwords, profile, registration, threepids,
    tokens::Session,
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, sso::ExternalId, users::Account},
};

/// Identities and addresses of a user.
const LIST_MAX: i64 = 20;
/// Bytes of each part of an identity.
const ID_BYTES_MAX: usize = 255;

/// What an account is said to be, as in Synapse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Option<String>")]
pub enum UserType {
    /// Nothing is said of that.
    #[default]
    Unsaid,
    /// `null`: one of a person.
    Person,
    /// `bot`
    Bot,
    /// `support`
    Support,
}

impl TryFrom<Option<String>> for UserType {
    type Error = &'static str;

    fn try_from(name: Option<String>) -> Result<Self, &'static str> {
        match name.as_deref() {
            None => Ok(Self::Person),
            Some("bot") => Ok(Self::Bot),
            Some("support") => Ok(Self::Support),
            Some(_) => Err("user_type is null, bot or support"),
        }
    }
}

impl UserType {
    /// As it is stored, and signed where a shared secret makes an account.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Unsaid | Self::Person => None,
            Self::Bot => Some("bot"),
            Self::Support => Some("support"),
        }
    }
}

/// What is wanted of an account; what is not there stays. There is a password in it: it is not shown.
#[derive(Default, PartialEq, Deserialize)]
pub struct Wanted {
    /// Its password.
    pub password: Option<String>,
    /// Whether a new password ends all sessions; they end where that is left out.
    pub logout_devices: Option<bool>,
    /// What it is called.
    pub displayname: Option<String>,
    /// How it looks.
    pub avatar_url: Option<String>,
    /// All its addresses.
    pub threepids: Option<Vec<Address>>,
    /// All its identities at providers.
    pub external_ids: Option<Vec<Identity>>,
    /// Whether it is one of an administrator.
    pub admin: Option<bool>,
    /// Whether it is closed.
    pub deactivated: Option<bool>,
    /// Whether its sessions are refused.
    pub locked: Option<bool>,
    /// What it is.
    #[serde(default)]
    pub user_type: UserType,
    /// Whatever else is said: tools send back what they were shown, and it has to be so already.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An address of an account.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Address {
    /// `email`.
    pub medium: String,
    /// The address.
    pub address: String,
}

/// An identity at a provider.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Identity {
    /// Id of the provider.
    pub auth_provider: String,
    /// Id of the person there.
    pub external_id: String,
}

fn own(ctx: &Context, user: &UserId) -> Result<(), Error> {
    if user.server_name() == ctx.server_name() {
        Ok(())
    } else {
        Err(Error::Invalid("the user is not of this server"))
    }
}

/// An account, as Synapse shows it; times in seconds where Synapse has them so.
pub async fn show(ctx: &Context, user: &UserId) -> Result<Value, Error> {
    own(ctx, user)?;
    let unknown = || Error::NotFound("user");
    let nid = ctx.db.ids.find_user(user).await?.ok_or_else(unknown)?;
    let mut conn = ctx.db.conn().await?;
    let shown = storage::users::find_shown(&mut conn, nid).await?;
    let shown = shown.ok_or_else(unknown)?;
    let addresses = storage::threepids::list(&mut conn, nid, LIST_MAX).await?;
    let ids = storage::sso::list_ids(&mut conn, nid, LIST_MAX).await?;
    drop(conn);
    let profile = match profile::get(ctx, user).await {
        Ok(profile) => profile,
        // Closed accounts have none.
        Err(Error::NotFound(_)) => Map::new(),
        Err(error) => return Err(error),
    };
    let addresses = addresses.iter().map(|it| {
        json!({
            "medium": "email", "address": it.address,
            "validated_at": it.validated_ts, "added_at": it.added_ts,
        })
    });
    let ids = ids
        .iter()
        .map(|id| json!({ "auth_provider": id.provider, "external_id": id.subject }));
    Ok(json!({
        "name": user,
        "displayname": profile.get("displayname"),
        "avatar_url": profile.get("avatar_url"),
        "threepids": addresses.collect::<Vec<Value>>(),
        "external_ids": ids.collect::<Vec<Value>>(),
        "is_guest": shown.guest,
        "admin": shown.admin,
        "deactivated": shown.deactivated,
        "erased": shown.erased,
        "locked": shown.locked,
        "suspended": shown.suspended,
        "shadow_banned": false,
        "creation_ts": shown.created_ts / 1_000,
        "last_seen_ts": shown.last_seen_ts,
        "user_type": shown.user_type,
        "appservice_id": Value::Null,
    }))
}

/// Makes an account what is wanted, and makes it where there is none; whose it is, and whether it was
/// made. All is checked before anything is changed. An account that is to be closed is closed
/// afterwards, by who knows of rooms.
pub async fn put(
    ctx: &Context,
    by: &Session,
    user: &UserId,
    wanted: &Wanted,
) -> Result<(UserNid, bool), Error> {
    own(ctx, user)?;
    let ids = wanted.external_ids.as_deref().map(identities).transpose()?;
    let addresses = wanted.threepids.as_deref().map(addresses).transpose()?;
    check(ctx, by, user, wanted)?;
    let before = find(ctx, user).await?;
    match &before {
        Some(account) => check_change(ctx, user, wanted, account).await?,
        None => check_new(ctx, user, wanted)?,
    }
    let nid = ctx.db.ids.user(user).await?;
    check_free(ctx, nid, ids.as_deref(), addresses.as_deref()).await?;
    let password = wanted.password.as_deref();
    match (&before, password) {
        (None, _) => {
            let kind = (wanted.admin.unwrap_or_default(), wanted.user_type.name());
            registration::create_account(ctx, user, password, kind, None).await?;
        }
        (Some(account), Some(password)) if account.deactivated => {
            login::reopen(ctx, user, password).await?;
        }
        (Some(_), Some(password)) => login::set_password(ctx, user, password).await?,
        (Some(_), None) => {}
    }
    for (field, value) in [
        ("displayname", &wanted.displayname),
        ("avatar_url", &wanted.avatar_url),
    ] {
        if let Some(value) = value {
            profile::set(ctx, user, field, Some(json!(value))).await?;
        }
    }
    write(ctx, nid, wanted, (ids, addresses)).await?;
    if let Some(locked) = new_lock(wanted, before.as_ref()) {
        moderation::set(ctx, by, user, (Measure::Lock, locked)).await?;
    }
    tracing::info!(user = %user, by = %by.user_id, "an account was administered");
    Ok((nid, before.is_none()))
}

/// The account that an administrator wants to close; it may be closed already, and what was
/// interrupted goes on.
pub async fn to_close(ctx: &Context, by: &Session, user: &UserId) -> Result<UserNid, Error> {
    own(ctx, user)?;
    check_closing(by, user)?;
    find(ctx, user).await?.ok_or(Error::NotFound("user"))?;
    tracing::info!(user = %user, by = %by.user_id, "an account is closed");
    Ok(ctx.db.ids.user(user).await?)
}

fn check_closing(by: &Session, user: &UserId) -> Result<(), Error> {
    if by.user_id == user {
        return Err(Error::Forbidden("nobody does that to themselves"));
    }
    Ok(())
}

async fn find(ctx: &Context, user: &UserId) -> Result<Option<Account>, Error> {
    let Some(nid) = ctx.db.ids.find_user(user).await? else {
        return Ok(None);
    };
    let mut conn = ctx.db.conn().await?;
    Ok(storage::users::find(&mut conn, nid).await?)
}

/// Whether it is to be locked or unlocked, where it is not so already.
fn new_lock(wanted: &Wanted, before: Option<&Account>) -> Option<bool> {
    let is_locked = before.is_some_and(|account| account.locked);
    wanted.locked.filter(|locked| *locked != is_locked)
}

/// What is wanted fits together, whatever the account is.
fn check(ctx: &Context, by: &Session, user: &UserId, wanted: &Wanted) -> Result<(), Error> {
    let length_min = ctx.config.registration.password_length_min;
    if let Some(password) = &wanted.password {
        passwords::check_strength(password, length_min)?;
    } else if wanted.logout_devices.is_some() {
        return Err(Error::Invalid("logout_devices goes with a password"));
    }
    if let Some(admin) = wanted.admin {
        moderation::check_demotion(by, user, admin)?;
    }
    if wanted.deactivated != Some(true) {
        return Ok(());
    }
    check_closing(by, user)?;
    if wanted.locked == Some(true) || wanted.password.is_some() {
        return Err(Error::Invalid(
            "a closed account is not locked, and has no password",
        ));
    }
    Ok(())
}

/// Names of new accounts are held to what new names may be.
fn check_new(ctx: &Context, user: &UserId, wanted: &Wanted) -> Result<(), Error> {
    let legal = registration::user_id(ctx.server_name(), user.localpart())?;
    if legal != *user {
        return Err(Error::NameInvalid("a user name has no capitals".to_owned()));
    }
    if wanted.deactivated == Some(true) {
        return Err(Error::Invalid("there is no account that could be closed"));
    }
    if new_lock(wanted, None).is_some() && wanted.admin == Some(true) {
        return Err(Error::Forbidden("administrators are not locked"));
    }
    Ok(())
}

/// What is wanted can be made of an account that is there. A closed one is opened, or stays what it is.
async fn check_change(
    ctx: &Context,
    user: &UserId,
    wanted: &Wanted,
    account: &Account,
) -> Result<(), Error> {
    if account.deactivated && wanted.deactivated == Some(false) {
        if wanted.password.is_none() {
            return Err(Error::Invalid("a closed account is opened with a password"));
        }
    } else if account.deactivated {
        let closed = Wanted {
            deactivated: Some(true),
            ..Wanted::default()
        };
        if *wanted != closed {
            return Err(Error::Deactivated);
        }
    }
    if new_lock(wanted, Some(account)).is_some() && wanted.admin.unwrap_or(account.admin) {
        return Err(Error::Forbidden("the user is an administrator as well"));
    }
    if wanted.rest.is_empty() {
        return Ok(());
    }
    let shown = show(ctx, user).await?;
    for (field, value) in &wanted.rest {
        // Times change by themselves, and tools write them in other units; what is not shown is the tool's own.
        let is_so = field.ends_with("_ts") || shown.get(field).is_none_or(|known| known == value);
        if !is_so {
            return Err(Error::NoSuchField(field.clone()));
        }
    }
    Ok(())
}

fn identities(wanted: &[Identity]) -> Result<Vec<ExternalId>, Error> {
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= ID_BYTES_MAX && !name.chars().any(char::is_control)
    };
    let all = wanted.iter().map(|id| (&id.auth_provider, &id.external_id));
    let unique: BTreeSet<(&String, &String)> = all.collect();
    let is_id = |(provider, id): &(&String, &String)| is_name(provider) && is_name(id);
    let is_few = i64::try_from(unique.len()).is_ok_and(|len| len <= LIST_MAX);
    if !is_few || !unique.iter().all(is_id) {
        return Err(Error::Invalid(
            "external_ids: up to 20, of auth_provider and external_id",
        ));
    }
    let ids = unique.into_iter().map(|(provider, id)| ExternalId {
        provider: provider.clone(),
        subject: id.clone(),
    });
    Ok(ids.collect())
}

fn addresses(wanted: &[Address]) -> Result<Vec<String>, Error> {
    let mut unique = BTreeSet::new();
    for address in wanted {
        if address.medium != "email" {
            return Err(Error::AddressNotSupported);
        }
        unique.insert(threepids::canonical(&address.address)?);
    }
    if i64::try_from(unique.len()).is_ok_and(|len| len <= LIST_MAX) {
        return Ok(unique.into_iter().collect());
    }
    Err(Error::Invalid("too many addresses"))
}

/// Nobody else has what is wanted.
async fn check_free(
    ctx: &Context,
    nid: UserNid,
    ids: Option<&[ExternalId]>,
    addresses: Option<&[String]>,
) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    for id in ids.unwrap_or_default() {
        let owner = storage::sso::find_user(&mut conn, &id.provider, &id.subject).await?;
        if owner.is_some_and(|owner| owner != nid) {
            return Err(Error::ExternalIdInUse);
        }
    }
    for address in addresses.unwrap_or_default() {
        let owner = storage::threepids::find_owner(&mut conn, address).await?;
        if owner.is_some_and(|owner| owner != nid) {
            return Err(Error::AddressInUse);
        }
    }
    Ok(())
}

async fn write(
    ctx: &Context,
    nid: UserNid,
    wanted: &Wanted,
    (ids, addresses): (Option<Vec<ExternalId>>, Option<Vec<String>>),
) -> Result<(), Error> {
    let mut tx = ctx.db.begin().await?;
    if let Some(admin) = wanted.admin {
        storage::users::update_admin(&mut tx, nid, admin).await?;
    }
    let says_type = wanted.user_type != UserType::Unsaid;
    if says_type {
        storage::users::update_user_type(&mut tx, nid, wanted.user_type.name()).await?;
    }
    if let Some(ids) = ids {
        storage::sso::delete_ids(&mut tx, nid).await?;
        for id in ids {
            let external = (&*id.provider, &*id.subject);
            match storage::sso::insert_id(&mut tx, nid, external, now_ms()).await {
                Err(error) if error.violates("external_id_pkey") => {
                    return Err(Error::ExternalIdInUse);
                }
                added => added?,
            }
        }
    }
    if let Some(addresses) = addresses {
        let before = storage::threepids::list(&mut tx, nid, LIST_MAX).await?;
        let has = |address: &String| before.iter().any(|it| it.address == *address);
        // What stays keeps its times, and mails there go on.
        for old in before.iter().filter(|it| !addresses.contains(&it.address)) {
            storage::threepids::delete(&mut tx, nid, &old.address).await?;
        }
        for new in addresses.iter().filter(|address| !has(address)) {
            let times = (now_ms(), now_ms());
            match storage::threepids::insert(&mut tx, nid, new, times).await {
                Err(error) if error.violates("threepid_pkey") => return Err(Error::AddressInUse),
                added => added?,
            }
        }
    }
    // What sessions know of the account: who is an administrator, and of whom no terms are asked.
    if wanted.admin.is_some() || says_type {
        tx.log(super::tokens::invalid_entry(nid)).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The user who is somebody at an identity provider.
pub async fn find_external(ctx: &Context, provider: &str, id: &str) -> Result<Value, Error> {
    // What no database can hold is nobody's.
    let is_text = !provider.contains('\0') && !id.contains('\0');
    let mut conn = ctx.db.conn().await?;
    let user = if is_text {
        storage::sso::find_user(&mut conn, provider, id).await?
    } else {
        None
    };
    drop(conn);
    let user = user.ok_or(Error::NotFound("user"))?;
    Ok(json!({ "user_id": ctx.db.ids.user_id(user).await? }))
}
