//! Accounts as administrators see and make them (Synapse's user object, `/_synapse/admin/v2/users`).

use std::collections::BTreeSet;

use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Error, login, passwords, profile, registration, threepids};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, sso::ExternalId},
};

/// Identities and addresses of a user.
const LIST_MAX: i64 = 20;
/// Bytes of each part of an identity.
const ID_BYTES_MAX: usize = 255;

/// What is wanted of an account; what is not there stays.
#[derive(Debug, Default, Deserialize)]
pub struct Wanted {
    /// Its password.
    pub password: Option<String>,
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
}

/// An address of an account.
#[derive(Debug, Deserialize)]
pub struct Address {
    /// `email`.
    pub medium: String,
    /// The address.
    pub address: String,
}

/// An identity at a provider.
#[derive(Debug, Deserialize)]
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

/// Makes an account what is wanted, and makes it where there is none; whether it did. All is checked
/// before anything is changed.
pub async fn put(ctx: &Context, user: &UserId, wanted: &Wanted) -> Result<bool, Error> {
    own(ctx, user)?;
    let length_min = ctx.config.registration.password_length_min;
    if let Some(password) = &wanted.password {
        passwords::check_strength(password, length_min)?;
    }
    let ids = wanted.external_ids.as_deref().map(identities).transpose()?;
    let addresses = wanted.threepids.as_deref().map(addresses).transpose()?;
    let is_new = !is_there(ctx, user).await?;
    if is_new {
        // Names of new accounts are held to what new names may be.
        let legal = registration::user_id(ctx.server_name(), user.localpart())?;
        if legal != *user {
            return Err(Error::NameInvalid("a user name has no capitals".to_owned()));
        }
    }
    let nid = ctx.db.ids.user(user).await?;
    check_free(ctx, nid, ids.as_deref(), addresses.as_deref()).await?;
    let is_admin = wanted.admin.unwrap_or_default();
    if is_new {
        let password = wanted.password.as_deref();
        registration::create_account(ctx, user, password, (is_admin, None), None).await?;
    } else if let Some(password) = &wanted.password {
        login::set_password(ctx, user, password).await?;
    }
    for (field, value) in [
        ("displayname", &wanted.displayname),
        ("avatar_url", &wanted.avatar_url),
    ] {
        if let Some(value) = value {
            profile::set(ctx, user, field, Some(json!(value))).await?;
        }
    }
    write(ctx, nid, wanted.admin.filter(|_| !is_new), (ids, addresses)).await?;
    Ok(is_new)
}

/// Whether there is an account; a closed one stays what it is.
async fn is_there(ctx: &Context, user: &UserId) -> Result<bool, Error> {
    let Some(nid) = ctx.db.ids.find_user(user).await? else {
        return Ok(false);
    };
    let mut conn = ctx.db.conn().await?;
    match storage::users::find(&mut conn, nid).await? {
        Some(account) if account.deactivated => Err(Error::Deactivated),
        account => Ok(account.is_some()),
    }
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
    admin: Option<bool>,
    (ids, addresses): (Option<Vec<ExternalId>>, Option<Vec<String>>),
) -> Result<(), Error> {
    let mut tx = ctx.db.begin().await?;
    if let Some(admin) = admin {
        storage::users::update_admin(&mut tx, nid, admin).await?;
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
    if admin.is_some() {
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
