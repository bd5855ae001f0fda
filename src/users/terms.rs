//! Policies that users accept (specification, "Terms of service at registration"), as far as the
//! operator has any. Links to where one accepts them carry proof of whom they were made for: who has
//! one accepts for that user, and for nobody else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use sqlx::PgConnection;

use super::{Error, tokens};
use crate::{
    clock::now_ms,
    config::{
        Terms,
        terms::{Place, Policy},
    },
    context::Context,
    storage::{self, UserNid, terms::Accepted},
};

/// Where users accept, below the base address.
pub const PATH: &str = "/_matrix/consent";
/// The stage of user-interactive authentication.
pub const STAGE: &str = "m.login.terms";

/// What users accept here; an error where there is nothing.
pub fn of(ctx: &Context) -> Result<&Terms, Error> {
    let terms = ctx.config.terms.as_ref();
    terms.ok_or(Error::NotFound("terms"))
}

/// Ids and versions of the policies, in two lists of one length.
fn current(terms: &Terms) -> (Vec<String>, Vec<String>) {
    let pairs = terms.policies.iter();
    pairs
        .map(|policy| (policy.id.clone(), policy.version.clone()))
        .unzip()
}

/// The versions as one text: that of the only policy, or `id=version` of each.
pub fn version(terms: &Terms) -> String {
    if let [only] = &*terms.policies {
        return only.version.clone();
    }
    let of_each = terms.policies.iter();
    let of_each: Vec<String> = of_each
        .map(|policy| format!("{}={}", policy.id, policy.version))
        .collect();
    of_each.join(" ")
}

/// Where a text stands.
pub fn url(terms: &Terms, policy: &Policy, language: &str) -> String {
    match policy.texts.get(language).map(|text| &text.place) {
        Some(Place::Url(url)) => url.clone(),
        Some(Place::Here(_)) | None => {
            let base = terms.base_url.trim_end_matches('/');
            format!("{base}{PATH}/{}/{language}", policy.id)
        }
    }
}

/// Parameters of the stage: every policy with its version, and name and address in each language.
pub fn params(terms: &Terms) -> Value {
    let policies: Map<String, Value> = terms
        .policies
        .iter()
        .map(|policy| {
            let mut body = json!({ "version": policy.version });
            for (language, text) in &policy.texts {
                let url = url(terms, policy, language);
                body[language] = json!({ "name": text.name, "url": url });
            }
            (policy.id.clone(), body)
        })
        .collect();
    json!({ "policies": policies })
}

/// Whether a user has to accept anything yet, or is told of it.
pub(super) async fn is_owed(
    ctx: &Context,
    conn: &mut sqlx::PgConnection,
    user: UserNid,
) -> Result<bool, Error> {
    let Some(terms) = ctx.config.terms.as_ref() else {
        return Ok(false);
    };
    if !terms.required && !terms.notice {
        return Ok(false);
    }
    let (policies, versions) = current(terms);
    Ok(storage::terms::is_owed(conn, user, &policies, &versions).await?)
}

/// A user accepts all of it.
pub async fn accept(ctx: &Context, user: UserNid) -> Result<(), Error> {
    let mut tx = ctx.db.begin().await?;
    accept_in(ctx, &mut tx, user).await?;
    tx.log(tokens::invalid_entry(user)).await?;
    tx.commit().await?;
    Ok(())
}

/// [`accept`] as part of a transaction that makes the account.
pub(super) async fn accept_in(
    ctx: &Context,
    conn: &mut PgConnection,
    user: UserNid,
) -> Result<(), Error> {
    let (policies, versions) = current(of(ctx)?);
    storage::terms::insert(conn, user, &policies, &versions, now_ms()).await?;
    Ok(())
}

/// What a user accepted so far, the newest first.
pub async fn accepted(ctx: &Context, user: UserNid) -> Result<Vec<Accepted>, Error> {
    let mut conn = ctx.db.conn().await?;
    Ok(storage::terms::list(&mut conn, user).await?)
}

/// Whether a user has accepted the current versions.
pub async fn has_accepted(ctx: &Context, user: UserNid) -> Result<bool, Error> {
    let terms = of(ctx)?;
    let accepted = accepted(ctx, user).await?;
    Ok(terms.policies.iter().all(|policy| {
        let mut accepted = accepted.iter();
        accepted.any(|it| it.policy == policy.id && it.version == policy.version)
    }))
}

/// The proof in the link of a user.
async fn mac(ctx: &Context, user: &UserId) -> Result<Hmac<Sha256>, Error> {
    let fresh: [u8; 32] = rand::random();
    let mut conn = ctx.db.conn().await?;
    let secret = storage::terms::secret(&mut conn, "terms", &fresh).await?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any length of key is good");
    mac.update(user.as_str().as_bytes());
    Ok(mac)
}

/// The link by which a user accepts.
pub async fn link(ctx: &Context, user: &UserId) -> Result<String, Error> {
    let terms = of(ctx)?;
    let proof = mac(ctx, user).await?.finalize().into_bytes();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("u", user.localpart());
    query.append_pair("h", &URL_SAFE_NO_PAD.encode(proof));
    let base = terms.base_url.trim_end_matches('/');
    Ok(format!("{base}{PATH}?{}", query.finish()))
}

/// The user that a link was made for, by what it carries.
pub async fn reader(
    ctx: &Context,
    localpart: &str,
    proof: &str,
) -> Result<(OwnedUserId, UserNid), Error> {
    of(ctx)?;
    let wrong = || Error::Forbidden("the link is not valid");
    let user = UserId::parse_with_server_name(localpart, ctx.server_name());
    let user = user.ok().filter(|user| user.localpart() == localpart);
    let user = user.ok_or_else(wrong)?;
    let proof = URL_SAFE_NO_PAD.decode(proof).map_err(|_| wrong())?;
    let mac = mac(ctx, &user).await?;
    mac.verify_slice(&proof).map_err(|_| wrong())?;
    let nid = ctx.db.ids.find_user(&user).await?.ok_or_else(wrong)?;
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, nid).await?;
    match account {
        Some(account) if !account.deactivated => Ok((user, nid)),
        Some(_) | None => Err(wrong()),
    }
}

/// What refuses a user who has not accepted yet.
pub async fn refusal(ctx: &Context, user: &UserId) -> Result<Error, Error> {
    Ok(Error::TermsOwed(link(ctx, user).await?))
}
