//! User-interactive authentication: stages that a client goes through before a weighty request.

use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use super::{
    Error, login, oauth, registration, sso, terms,
    validation::{self, Purpose},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, users::UiaSession},
};

/// Ways through: one of these lists of stages, in any order.
pub type Flows = Vec<Vec<&'static str>>;

/// How long a client may take.
const LIFE_MS: i64 = 3_600_000;

/// The password of the account.
pub const PASSWORD_STAGE: &str = "m.login.password";
/// Nothing but the request itself.
pub const DUMMY_STAGE: &str = "m.login.dummy";
/// An identity provider says who it is.
pub const SSO_STAGE: &str = "m.login.sso";
/// The user says so on our pages, under the name of the specification and the one of before.
pub const OAUTH_STAGES: [&str; 2] = ["m.oauth", "org.matrix.cross_signing_reset"];
/// A registration token.
pub const TOKEN_STAGE: &str = "m.login.registration_token";
/// Whoever registers, or asks for a new password, reads an e-mail address.
pub const EMAIL_STAGE: &str = "m.login.email.identity";
/// The operation in which an e-mail address is that of a new account.
pub const REGISTER: &str = "POST /register";
/// The operation that may be one of somebody without a session, who reads an e-mail address.
pub const CHANGE_PASSWORD: &str = "POST /account/password";
/// The only operation that a session of OAuth 2.0 can ask for.
pub const CROSS_SIGNING: &str = "POST /keys/device_signing/upload";

/// What a client is told when stages are missing.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Ways through.
    pub flows: Flows,
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
        let flows = self.flows.iter();
        let flows: Vec<Value> = flows.map(|flow| json!({ "stages": flow })).collect();
        let mut body = json!({
            "flows": flows,
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
    /// Whether the session was opened by OAuth 2.0.
    pub oauth: bool,
}

/// Ways through an operation of a user, or of somebody without a session (`None`).
async fn flows(ctx: &Context, path: &str, user: Option<UserNid>) -> Result<Flows, Error> {
    match (path, user) {
        (REGISTER, _) => {
            let config = &ctx.config.registration;
            let asked = [
                (ctx.config.terms.is_some(), terms::STAGE),
                (config.require_token, TOKEN_STAGE),
                (config.require_email, EMAIL_STAGE),
            ];
            let asked = asked.into_iter().filter(|(is_asked, _)| *is_asked);
            let stages: Vec<&str> = asked.map(|(_, stage)| stage).collect();
            Ok(vec![if stages.is_empty() {
                vec![DUMMY_STAGE]
            } else {
                stages
            }])
        }
        (CHANGE_PASSWORD, None) => Ok(vec![vec![EMAIL_STAGE]]),
        (_, None) => Ok(vec![vec![PASSWORD_STAGE]]),
        (_, Some(user)) => sso::flows(ctx, user).await,
    }
}

/// What clients need to know for stages.
fn params(ctx: &Context, stages: &[&str]) -> Value {
    if let Some(config) = ctx
        .config
        .oauth
        .as_ref()
        .filter(|_| stages.contains(&OAUTH_STAGES[0]))
    {
        let page = json!({ "url": oauth::replacement_page(config) });
        return json!(
            OAUTH_STAGES
                .map(|stage| (stage, page.clone()))
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>()
        );
    }
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
    if operation.oauth && oauth::take_replacement(ctx, UserNid(user)).await? {
        return Ok(json!({}));
    }
    let given = auth
        .and_then(|auth| auth.get("session"))
        .and_then(Value::as_str);
    let session = match given {
        Some(id) => find(ctx, id)
            .await?
            .filter(|session| session.path == operation.path && session.user_nid == user)
            .map(|session| (id.to_owned(), session.completed, session.params)),
        None => None,
    };
    let (id, mut completed, mut facts) = match session {
        Some(session) => session,
        None if given.is_some() => return Err(Error::Invalid("unknown session")),
        None => (
            open(ctx, operation.path, user).await?,
            Vec::new(),
            json!({}),
        ),
    };
    let flows = if operation.oauth {
        OAUTH_STAGES.map(|stage| vec![stage]).to_vec()
    } else {
        flows(ctx, operation.path, operation.user.map(|(_, nid)| nid)).await?
    };
    let stages = flows.concat();
    let mut error = None;
    if let Some(auth) = auth
        && let Some(stage) = auth.get("type").and_then(Value::as_str)
        // A proof is good once, and clients ask again.
        && !([EMAIL_STAGE, SSO_STAGE].contains(&stage) && completed.iter().any(|done| done == stage))
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
    if error.is_none() && flows.iter().any(|flow| flow.iter().all(is_done)) {
        let mut conn = ctx.db.conn().await?;
        if storage::users::delete_uia(&mut conn, &id).await? {
            return Ok(facts);
        }
        return Err(Error::Invalid("unknown session"));
    }
    Err(Error::Interactive(Box::new(Challenge {
        params: params(ctx, &stages),
        flows,
        completed,
        session: id,
        error,
    })))
}

/// What is stored of a session that is still good; `None`: there is none of that id.
async fn find(ctx: &Context, session: &str) -> Result<Option<UiaSession>, Error> {
    // What no database can hold is none.
    if session.contains('\0') {
        return Ok(None);
    }
    let mut conn = ctx.db.conn().await?;
    Ok(storage::users::find_uia(&mut conn, session, now_ms() - LIFE_MS).await?)
}

/// Notes that an identity provider has said who it is; `false`: somebody else than who asks, or nobody
/// asks any more.
pub async fn prove_person(ctx: &Context, session: &str, user: UserNid) -> Result<bool, Error> {
    let asking = find(ctx, session).await?;
    if asking.is_none_or(|asking| asking.user_nid != user.0) {
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

/// A session as the page for a stage finds it.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The operation.
    pub path: String,
    /// Who asks; `None` without a session.
    pub user: Option<(OwnedUserId, UserNid)>,
    /// The stages of the ways through the operation.
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
    let Some(found) = find(ctx, session).await? else {
        return Ok(None);
    };
    let user = match UserNid(found.user_nid) {
        UserNid(0) => None,
        nid => Some((ctx.db.ids.user_id(nid).await?, nid)),
    };
    let flows = flows(ctx, &found.path, user.as_ref().map(|(_, nid)| *nid)).await?;
    Ok(Some(Pending {
        stages: flows.concat(),
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
        oauth: false,
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
        stage if OAUTH_STAGES.contains(&stage) => Ok(Err((
            "M_UNAUTHORIZED",
            "the user has not said so yet on the page",
        ))),
        // It is done elsewhere, by a browser.
        SSO_STAGE => Ok(Err((
            "M_UNAUTHORIZED",
            "the identity provider has not said yet who you are",
        ))),
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
