//! Making accounts.

use ruma::{OwnedUserId, ServerName, UserId};
use sqlx::PgConnection;

use super::{
    Error, passwords,
    tokens::{self, Session},
};
use crate::{
    clock::now_ms,
    config::Appservice,
    context::Context,
    storage::{self, Tx, UserNid, registration_tokens::RegistrationToken},
};

/// A user id out of what somebody wants to be called; capitals become small.
pub fn user_id(server_name: &ServerName, name: &str) -> Result<OwnedUserId, Error> {
    let name = name.strip_prefix('@').map_or(name, |full| {
        full.split_once(':')
            .map_or(full, |(localpart, _)| localpart)
    });
    let name = name.to_ascii_lowercase();
    if name.is_empty() {
        return Err(Error::NameInvalid(
            "a user name may not be empty".to_owned(),
        ));
    }
    let allowed = |c: char| {
        c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || matches!(c, '.' | '_' | '=' | '-' | '/' | '+')
    };
    if !name.chars().all(allowed) {
        return Err(Error::NameInvalid(
            "a user name may hold a-z, 0-9 and . _ = - / + only".to_owned(),
        ));
    }
    let id = format!("@{name}:{server_name}");
    if id.len() > 255 {
        return Err(Error::NameInvalid("the user name is too long".to_owned()));
    }
    UserId::parse(id).map_err(|error| Error::NameInvalid(error.to_string()))
}

/// Whether a name can be had.
pub async fn check_available(ctx: &Context, user: &UserId) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    if storage::users::is_taken(&mut conn, user.localpart()).await? {
        return Err(Error::NameTaken);
    }
    Ok(())
}

/// Whether a name is left to whoever asks: not one that a service has for itself alone, and of a
/// service (`asking`) one of its own.
pub fn check_reserved(
    ctx: &Context,
    user: &UserId,
    asking: Option<&Appservice>,
) -> Result<(), Error> {
    if asking.is_some_and(|service| !service.has_user(user)) {
        return Err(Error::Exclusive(
            "the user name is not reserved for this application service",
        ));
    }
    if ctx.appservices.claims_user(user, asking) {
        return Err(Error::Exclusive(
            "the user name is reserved for an application service",
        ));
    }
    Ok(())
}

/// Makes the users of the application services themselves, where they are not there yet.
pub async fn create_senders(ctx: &Context) -> Result<(), Error> {
    for service in ctx.appservices.all() {
        match create_account(ctx, &service.sender, None, (false, Some("bot")), None).await {
            Ok(()) | Err(Error::NameTaken) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a user of ours is there, or is made by the application service that has the name when
/// it is asked.
pub async fn exists(ctx: &Context, user: &UserId) -> Result<bool, storage::Error> {
    if is_open(ctx, user).await? {
        return Ok(true);
    }
    Ok(ctx.appservices.has_made_user(user).await && is_open(ctx, user).await?)
}

async fn is_open(ctx: &Context, user: &UserId) -> Result<bool, storage::Error> {
    let Some(nid) = ctx.db.ids.find_user(user).await? else {
        return Ok(false);
    };
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, nid).await?;
    Ok(account.is_some_and(|account| !account.deactivated))
}

/// A name for who brought none.
pub fn fresh_name() -> String {
    format!("u{:012x}", rand::random::<u64>() >> 16)
}

/// Makes an account of a guest, which has no password.
pub async fn create_guest(ctx: &Context) -> Result<OwnedUserId, Error> {
    let user = user_id(ctx.server_name(), &format!("guest-{}", fresh_name()))?;
    let nid = ctx.db.ids.user(&user).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::insert(
        &mut tx,
        nid,
        user.localpart(),
        None,
        (false, None),
        now_ms(),
    )
    .await?;
    storage::guests::update(&mut tx, nid, true).await?;
    tx.commit().await?;
    Ok(user)
}

/// Makes the account of a guest one of a usual user, with a password, and an e-mail address that was
/// proved (and when), if there is one. It keeps its name, and what it has.
pub async fn upgrade_guest(
    ctx: &Context,
    guest: &Session,
    password: &str,
    address: Option<(&str, i64)>,
) -> Result<(), Error> {
    passwords::check_strength(password, ctx.config.registration.password_length_min)?;
    let hash = passwords::hash(password).await?;
    let mut tx = ctx.db.begin().await?;
    storage::users::update_password(&mut tx, guest.user_nid, &hash).await?;
    storage::guests::update(&mut tx, guest.user_nid, false).await?;
    add_address(&mut tx, guest.user_nid, address).await?;
    tx.log(tokens::invalid_entry(guest.user_nid)).await?;
    tx.commit().await?;
    Ok(())
}

/// Makes an account, with an e-mail address that was proved (and when), if there is one.
pub async fn create_account(
    ctx: &Context,
    user: &UserId,
    password: Option<&str>,
    kind: (bool, Option<&str>),
    address: Option<(&str, i64)>,
) -> Result<(), Error> {
    let hash = match password {
        Some(password) => {
            passwords::check_strength(password, ctx.config.registration.password_length_min)?;
            Some(passwords::hash(password).await?)
        }
        None => None,
    };
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    insert(&mut tx, (nid, user), hash.as_deref(), kind).await?;
    add_address(&mut tx, nid, address).await?;
    tx.commit().await?;
    Ok(())
}

/// Makes an account without a password of somebody whom an identity provider knows (its id, and theirs
/// there), with an e-mail address and when that was proved, if there is one.
pub async fn create_external(
    ctx: &Context,
    user: &UserId,
    address: Option<(&str, i64)>,
    external: (&str, &str),
) -> Result<UserNid, Error> {
    let nid = ctx.db.ids.user(user).await?;
    let mut tx = ctx.db.begin().await?;
    insert(&mut tx, (nid, user), None, (false, None)).await?;
    add_address(&mut tx, nid, address).await?;
    match storage::sso::insert_id(&mut tx, nid, external, now_ms()).await {
        Err(error) if error.violates("external_id_pkey") => return Err(Error::NameTaken),
        added => added?,
    }
    tx.commit().await?;
    Ok(nid)
}

/// Makes the account as part of a transaction, with a password that is hashed.
pub(super) async fn insert(
    tx: &mut Tx,
    (nid, user): (UserNid, &UserId),
    hash: Option<&str>,
    kind: (bool, Option<&str>),
) -> Result<(), Error> {
    match storage::users::insert(tx, nid, user.localpart(), hash, kind, now_ms()).await {
        Err(error) if error.violates("account_localpart_key") || error.violates("account_pkey") => {
            Err(Error::NameTaken)
        }
        made => Ok(made?),
    }
}

/// Gives a new account the address that was proved, and when.
pub(super) async fn add_address(
    tx: &mut Tx,
    user: UserNid,
    address: Option<(&str, i64)>,
) -> Result<(), Error> {
    let Some((address, validated_ts)) = address else {
        return Ok(());
    };
    let times = (validated_ts, now_ms());
    match storage::threepids::insert(tx, user, address, times).await {
        Err(error) if error.violates("threepid_pkey") => Err(Error::AddressInUse),
        added => Ok(added?),
    }
}

/// Most characters of a registration token (specification).
const TOKEN_LENGTH_MAX: usize = 64;

/// Makes a registration token: the one given, or a random one of `length` characters.
pub async fn create_token(
    ctx: &Context,
    token: Option<String>,
    length: usize,
    (uses_allowed, expires_ts): (Option<i32>, Option<i64>),
) -> Result<RegistrationToken, Error> {
    check_limits(uses_allowed, expires_ts)?;
    if !(1..=TOKEN_LENGTH_MAX).contains(&length) {
        return Err(Error::Invalid("length must be from 1 to 64"));
    }
    let token = token.unwrap_or_else(|| random_token(length));
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
    if token.is_empty() || token.len() > TOKEN_LENGTH_MAX || !token.chars().all(is_legal) {
        return Err(Error::Invalid(
            "a token has 1 to 64 characters of A-Z a-z 0-9 . _ ~ -",
        ));
    }
    let mut conn = ctx.db.conn().await?;
    let made =
        storage::registration_tokens::insert(&mut conn, &token, uses_allowed, expires_ts).await?;
    if !made {
        return Err(Error::Invalid("there is a token of that name"));
    }
    Ok(RegistrationToken {
        token,
        uses_allowed,
        completed: 0,
        expires_ts,
    })
}

/// Checks what an operator wants of a token.
pub fn check_limits(uses_allowed: Option<i32>, expires_ts: Option<i64>) -> Result<(), Error> {
    if uses_allowed.is_some_and(|uses| uses < 0) {
        return Err(Error::Invalid("uses_allowed must not be negative"));
    }
    if expires_ts.is_some_and(|end| end < now_ms()) {
        return Err(Error::Invalid("expiry_time must be in the future"));
    }
    Ok(())
}

/// A token of letters and digits that nobody guesses.
pub fn random_token(length: usize) -> String {
    use rand::distr::{Alphanumeric, SampleString};
    Alphanumeric.sample_string(&mut rand::rng(), length)
}

/// Uses a registration token up by one: those of the configuration have no limit.
pub async fn use_token(ctx: &Context, token: &str) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    use_token_in(ctx, &mut conn, token).await
}

/// [`use_token`] as part of a transaction.
pub(super) async fn use_token_in(
    ctx: &Context,
    conn: &mut PgConnection,
    token: &str,
) -> Result<(), Error> {
    if is_configured(ctx, token) {
        return Ok(());
    }
    // What no database can hold is none.
    let is_text = !token.contains('\0');
    if is_text && storage::registration_tokens::use_one(conn, token, now_ms()).await? {
        Ok(())
    } else {
        Err(Error::WrongToken)
    }
}

/// Whether a registration token could be used.
pub async fn is_token_valid(ctx: &Context, token: &str) -> Result<bool, Error> {
    if is_configured(ctx, token) {
        return Ok(true);
    }
    if token.contains('\0') {
        return Ok(false);
    }
    let mut conn = ctx.db.conn().await?;
    Ok(storage::registration_tokens::is_valid(&mut conn, token, now_ms()).await?)
}

fn is_configured(ctx: &Context, token: &str) -> bool {
    use subtle::ConstantTimeEq;
    let same = |known: &str| bool::from(known.as_bytes().ct_eq(token.as_bytes()));
    ctx.config
        .registration
        .tokens
        .iter()
        .any(|known| same(&known.0))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::user_id;

    #[test]
    fn names_become_ids_or_errors() {
        let server = server_name!("a.example");
        for good in ["alice", "a.b_c=d-e/f+g", "@alice:a.example", "123"] {
            assert!(user_id(server, good).is_ok(), "{good}");
        }
        let long = "a".repeat(250);
        assert_eq!(user_id(server, "Alice").unwrap(), "@alice:a.example");
        for bad in ["", "a b", "ä", "a:b", "a@b", "\0", long.as_str()] {
            assert!(user_id(server, bad).is_err(), "{bad}");
        }
    }
}
