//! User-interactive authentication: stages that a client goes through before a weighty request.

use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{
    Error, login, registration, terms,
    validation::{self, Purpose},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid},
};

/// How long a client may take.
const LIFE_MS: i64 = 3_600_000;

/// The password of the account.
pub const PASSWORD_STAGE: &str = "m.login.password";
/// Nothing but the request itself.
pub const DUMMY_STAGE: &str = "m.login.dummy";
/// A registration token.
pub const TOKEN_STAGE: &str = "m.login.registration_token";
/// Whoever registers, or asks for a new password, reads an e-mail address.
pub const EMAIL_STAGE: &str = "m.login.email.identity";
/// The operation in which an e-mail address is that of a new account.
pub const REGISTER: &str = "POST /register";
/// The operation that may be one of somebody without a session, who reads an e-mail address.
pub const CHANGE_PASSWORD: &str = "POST /account/password";

/// What a client is told when stages are missing.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The way through: these stages, in any order.
    pub stages: Vec<&'static str>,
    /// What clients need to know for stages, by stage.
    pub params: Value,
    /// Stages done.
    pub completed: Vec<String>,
    /// Session id.
    pub session: String,
    /// Why the last stage failed: error code and text.
    pub error: Option<(&'static str, &'static str)>,
}

impl Challenge {
    /// As the answer's body.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "flows": [{ "stages": self.stages }],
            "completed": self.completed,
            "params": self.params,
            "session": self.session,
        });
        if let Some((errcode, error)) = self.error {
            body["errcode"] = json!(errcode);
            body["error"] = json!(error);
        }
        body
    }
}

/// A request that needs authentication.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Method and path: a session is good for one operation only.
    pub path: &'a str,
    /// Who asks; `None` without a session.
    pub user: Option<(&'a UserId, UserNid)>,
}

/// The stages of an operation of a user, or (`has_user`: false) of somebody without a session.
fn stages(ctx: &Context, path: &str, has_user: bool) -> Vec<&'static str> {
    match path {
        REGISTER => {
            let config = &ctx.config.registration;
            let asked = [
                (ctx.config.terms.is_some(), terms::STAGE),
                (config.require_token, TOKEN_STAGE),
                (config.require_email, EMAIL_STAGE),
            ];
            let asked = asked.into_iter().filter(|(is_asked, _)| *is_asked);
            let stages: Vec<&str> = asked.map(|(_, stage)| stage).collect();
            if stages.is_empty() {
                vec![DUMMY_STAGE]
            } else {
                stages
            }
        }
        CHANGE_PASSWORD if !has_user => vec![EMAIL_STAGE],
        _ => vec![PASSWORD_STAGE],
    }
}

/// What clients need to know for stages.
fn params(ctx: &Context, stages: &[&str]) -> Value {
    match &ctx.config.terms {
        Some(terms) if stages.contains(&terms::STAGE) => {
            json!({ terms::STAGE: terms::params(terms) })
        }
        Some(_) | None => json!({}),
    }
}

/// Passes when all stages are done; else fails with the challenge. `auth` is the `auth`
/// object of the request. Returns the facts that stages proved.
pub async fn authenticate(
    ctx: &Context,
    operation: Operation<'_>,
    auth: Option<&Value>,
) -> Result<Value, Error> {
    let user = operation.user.map_or(0, |(_, nid)| nid.0);
    let given = auth
        .and_then(|auth| auth.get("session"))
        .and_then(Value::as_str);
    let mut conn = ctx.db.conn().await?;
    let session = match given {
        Some(id) => {
            let session = storage::users::find_uia(&mut conn, id, now_ms() - LIFE_MS).await?;
            session
                .filter(|session| session.path == operation.path && session.user_nid == user)
                .map(|session| (id.to_owned(), session.completed, session.params))
        }
        None => None,
    };
    drop(conn);
    let (id, mut completed, mut facts) = match session {
        Some(session) => session,
        None if given.is_some() => return Err(Error::Invalid("unknown session")),
        None => (
            open(ctx, operation.path, user).await?,
            Vec::new(),
            json!({}),
        ),
    };
    let stages = stages(ctx, operation.path, operation.user.is_some());
    let mut error = None;
    if let Some(auth) = auth
        && let Some(stage) = auth.get("type").and_then(Value::as_str)
        // A proof is good once, and clients ask again.
        && !(stage == EMAIL_STAGE && completed.iter().any(|done| done == stage))
    {
        match run(ctx, operation, &stages, (stage, auth)).await? {
            Ok(fact) => {
                let mut conn = ctx.db.conn().await?;
                storage::users::update_uia(&mut conn, &id, stage, &fact).await?;
                completed.push(stage.to_owned());
                if let (Value::Object(facts), Value::Object(fact)) = (&mut facts, fact) {
                    facts.extend(fact);
                }
            }
            Err(why) => error = Some(why),
        }
    }
    let is_done = |stage: &&str| completed.iter().any(|done| done == stage);
    if error.is_none() && stages.iter().all(is_done) {
        let mut conn = ctx.db.conn().await?;
        if storage::users::delete_uia(&mut conn, &id).await? {
            return Ok(facts);
        }
        return Err(Error::Invalid("unknown session"));
    }
    Err(Error::Interactive(Box::new(Challenge {
        params: params(ctx, &stages),
        stages,
        completed,
        session: id,
        error,
    })))
}

async fn open(ctx: &Context, path: &str, user: i64) -> Result<String, Error> {
    let id = format!("{:032x}", rand::random::<u128>());
    let mut conn = ctx.db.conn().await?;
    storage::users::insert_uia(&mut conn, &id, path, user, now_ms()).await?;
    Ok(id)
}

/// A session as the page for a stage finds it.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The operation.
    pub path: String,
    /// Who asks; `None` without a session.
    pub user: Option<(OwnedUserId, UserNid)>,
    /// The stages of the operation.
    pub stages: Vec<&'static str>,
    /// Those that are done.
    pub completed: Vec<String>,
}

impl Pending {
    /// Whether a stage is done.
    pub fn is_done(&self, stage: &str) -> bool {
        self.completed.iter().any(|done| done == stage)
    }
}

/// A session under way; `None`: there is none of that id.
pub async fn pending(ctx: &Context, session: &str) -> Result<Option<Pending>, Error> {
    let mut conn = ctx.db.conn().await?;
    let found = storage::users::find_uia(&mut conn, session, now_ms() - LIFE_MS).await?;
    drop(conn);
    let Some(found) = found else {
        return Ok(None);
    };
    let user = match UserNid(found.user_nid) {
        UserNid(0) => None,
        nid => Some((ctx.db.ids.user_id(nid).await?, nid)),
    };
    Ok(Some(Pending {
        stages: stages(ctx, &found.path, user.is_some()),
        path: found.path,
        user,
        completed: found.completed,
    }))
}

/// Does a stage of a session on a page of ours (specification, "Fallback"); the client asks again for
/// the operation afterwards. Returns why it failed, as error code and text, if it did.
pub async fn complete(
    ctx: &Context,
    (session, pending): (&str, &Pending),
    stage: &str,
    auth: &Value,
) -> Result<Option<(&'static str, &'static str)>, Error> {
    if pending.is_done(stage) {
        return Ok(None);
    }
    let user = pending.user.as_ref();
    let operation = Operation {
        path: &pending.path,
        user: user.map(|(id, nid)| (&**id, *nid)),
    };
    match run(ctx, operation, &pending.stages, (stage, auth)).await? {
        Ok(fact) => {
            let mut conn = ctx.db.conn().await?;
            storage::users::update_uia(&mut conn, session, stage, &fact).await?;
            Ok(None)
        }
        Err(why) => Ok(Some(why)),
    }
}

/// Whether somebody gave a wrong password.
pub fn is_wrong(error: &Error) -> bool {
    match error {
        Error::WrongCredentials => true,
        Error::Interactive(challenge) => challenge.error.is_some(),
        _ => false,
    }
}

type Stage = Result<Value, (&'static str, &'static str)>;

async fn run(
    ctx: &Context,
    operation: Operation<'_>,
    stages: &[&str],
    (stage, auth): (&str, &Value),
) -> Result<Stage, Error> {
    if !stages.contains(&stage) {
        return Ok(Err(("M_UNRECOGNIZED", "this stage is not asked for")));
    }
    let text = |key: &str| auth.get(key).and_then(Value::as_str);
    match stage {
        DUMMY_STAGE => Ok(Ok(json!({}))),
        terms::STAGE => Ok(Ok(json!({ "terms": terms::version(terms::of(ctx)?) }))),
        TOKEN_STAGE => {
            let token = text("token").unwrap_or_default();
            if registration::is_token_valid(ctx, token).await? {
                Ok(Ok(json!({ "registration_token": token })))
            } else {
                Ok(Err((
                    "M_UNAUTHORIZED",
                    "the registration token is not valid",
                )))
            }
        }
        EMAIL_STAGE => prove_address(ctx, operation, auth).await,
        PASSWORD_STAGE => {
            let Some((user, _)) = operation.user else {
                return Ok(Err(("M_UNKNOWN", "nobody to check a password of")));
            };
            let named = auth
                .get("identifier")
                .and_then(|identifier| identifier.get("user"))
                .and_then(Value::as_str)
                .or_else(|| text("user"));
            let named = named.and_then(|name| login::parse_user(ctx, name));
            let password = text("password").unwrap_or_default();
            // The user named must be the one who asks. Nobody learns whether it was the other's password.
            if named.as_deref().is_some_and(|named| named != user) {
                return Err(Error::WrongCredentials);
            }
            match login::check_password(ctx, named.as_deref(), password).await {
                Ok(_) => Ok(Ok(json!({}))),
                Err(Error::WrongCredentials | Error::Deactivated) => {
                    Ok(Err(("M_FORBIDDEN", "wrong password")))
                }
                Err(error) => Err(error),
            }
        }
        _ => Ok(Err(("M_UNRECOGNIZED", "unknown stage"))),
    }
}

/// Somebody shows that they read an address; the fact is the address.
async fn prove_address(
    ctx: &Context,
    operation: Operation<'_>,
    auth: &Value,
) -> Result<Stage, Error> {
    let purpose = if operation.path == REGISTER {
        Purpose::Register
    } else {
        Purpose::Password
    };
    let shown = auth.get("threepid_creds");
    let shown = shown.or_else(|| auth.get("threepidCreds"));
    let text = |key: &str| {
        let text = shown.and_then(|shown| shown.get(key));
        text.and_then(Value::as_str).unwrap_or_default()
    };
    let proof = (text("sid"), text("client_secret"));
    match validation::take(ctx, purpose, proof).await {
        Ok((address, ts)) => Ok(Ok(json!({ "email": address, "email_ts": ts }))),
        Err(Error::AddressUnproved | Error::Parameter(_)) => Ok(Err((
            "M_UNAUTHORIZED",
            "the e-mail address is not confirmed yet, or that was used already",
        ))),
        Err(error) => Err(error),
    }
}
