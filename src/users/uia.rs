//! User-interactive authentication: stages that a client goes through before a weighty request.

use serde_json::{Value, json};

use super::{
    Error, login, registration,
    validation::{self, Purpose},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid},
};

/// How long a client may take.
const LIFE_MS: i64 = 3_600_000;

/// Ways through: one of these lists of stages, in any order.
pub type Flows = &'static [&'static [&'static str]];

/// The password of the account.
pub const PASSWORD: Flows = &[&["m.login.password"]];
/// Nothing but the request itself.
pub const DUMMY: Flows = &[&["m.login.dummy"]];
/// A registration token.
pub const TOKEN: Flows = &[&["m.login.registration_token"]];
/// An e-mail address.
pub const EMAIL: Flows = &[&[EMAIL_STAGE]];
/// A registration token and an e-mail address.
pub const TOKEN_AND_EMAIL: Flows = &[&["m.login.registration_token", EMAIL_STAGE]];

/// A login at an identity provider.
pub const SSO: Flows = &[&[SSO_STAGE]];
/// The password, or a login at an identity provider.
pub const PASSWORD_OR_SSO: Flows = &[&["m.login.password"], &[SSO_STAGE]];

/// An identity provider says who it is.
pub const SSO_STAGE: &str = "m.login.sso";
/// Whoever registers, or asks for a new password, reads an e-mail address.
pub const EMAIL_STAGE: &str = "m.login.email.identity";
/// The operation in which an e-mail address is that of a new account.
pub const REGISTER: &str = "POST /register";

/// What a client is told when stages are missing.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Ways through.
    pub flows: Flows,
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
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|flow| json!({ "stages": flow }))
            .collect();
        let mut body = json!({
            "flows": flows,
            "completed": self.completed,
            "params": {},
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
    /// Who asks; `None` in registration.
    pub user: Option<(&'a ruma::UserId, UserNid)>,
    /// Ways through.
    pub flows: Flows,
}

/// Passes when all stages of a flow are done; else fails with the challenge. `auth` is the `auth`
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
    let mut error = None;
    if let Some(auth) = auth
        && let Some(stage) = auth.get("type").and_then(Value::as_str)
        // A proof is good once, and clients ask again.
        && !([EMAIL_STAGE, SSO_STAGE].contains(&stage) && completed.iter().any(|done| done == stage))
    {
        match run(ctx, &operation, stage, auth).await? {
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
    let done = |flow: &&[&str]| {
        flow.iter()
            .all(|stage| completed.iter().any(|c| c == stage))
    };
    if error.is_none() && operation.flows.iter().any(done) {
        let mut conn = ctx.db.conn().await?;
        if storage::users::delete_uia(&mut conn, &id).await? {
            return Ok(facts);
        }
        return Err(Error::Invalid("unknown session"));
    }
    Err(Error::Interactive(Box::new(Challenge {
        flows: operation.flows,
        completed,
        session: id,
        error,
    })))
}

/// The operation that a session is good for, and who asks; `None`: there is no such session.
pub async fn find(ctx: &Context, session: &str) -> Result<Option<(String, UserNid)>, Error> {
    // What no database can hold is none.
    if session.contains('\0') {
        return Ok(None);
    }
    let mut conn = ctx.db.conn().await?;
    let found = storage::users::find_uia(&mut conn, session, now_ms() - LIFE_MS).await?;
    Ok(found.map(|found| (found.path, UserNid(found.user_nid))))
}

/// Notes that an identity provider has said who it is; `false`: somebody else than who asks, or nobody
/// asks any more.
pub async fn prove_person(ctx: &Context, session: &str, user: UserNid) -> Result<bool, Error> {
    let asking = find(ctx, session).await?;
    if asking.is_none_or(|(_, asking)| asking != user) {
        return Ok(false);
    }
    let mut conn = ctx.db.conn().await?;
    storage::users::update_uia(&mut conn, session, SSO_STAGE, &json!({})).await?;
    Ok(true)
}

async fn open(ctx: &Context, path: &str, user: i64) -> Result<String, Error> {
    let id = format!("{:032x}", rand::random::<u128>());
    let mut conn = ctx.db.conn().await?;
    storage::users::insert_uia(&mut conn, &id, path, user, now_ms()).await?;
    Ok(id)
}

type Stage = Result<Value, (&'static str, &'static str)>;

async fn run(
    ctx: &Context,
    operation: &Operation<'_>,
    stage: &str,
    auth: &Value,
) -> Result<Stage, Error> {
    if !operation.flows.iter().any(|flow| flow.contains(&stage)) {
        return Ok(Err(("M_UNRECOGNIZED", "this stage is not asked for")));
    }
    let text = |key: &str| auth.get(key).and_then(Value::as_str);
    match stage {
        "m.login.dummy" => Ok(Ok(json!({}))),
        "m.login.registration_token" => {
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
        // It is done elsewhere, by a browser.
        SSO_STAGE => Ok(Err((
            "M_UNAUTHORIZED",
            "the identity provider has not said yet who you are",
        ))),
        "m.login.password" => {
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
    operation: &Operation<'_>,
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
