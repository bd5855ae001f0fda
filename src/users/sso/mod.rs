//! Login through identity providers: a browser goes there and comes back, and whoever it is has an
//! account here. What is under way stands in the database, so that any node may be come back to.

mod account;
pub mod logout;

use ruma::OwnedUserId;
use url::Url;

use super::{
    login_token,
    oauth::browser,
    tokens::{fresh, hash},
    uia::{self, Flows, PASSWORD_STAGE, SSO_STAGE},
};
use crate::{
    clock::now_ms,
    context::Context,
    oidc::{self, Provider, exchange::Way},
    storage::{
        self, UserNid,
        sso::{Keys, Login, Origin},
    },
};

/// Where browsers come back to; registrations at providers name it.
pub const CALLBACK_PATH: &str = "/_synapse/client/oidc/callback";
/// How long people may take at the provider.
const LIFE_MS: i64 = 15 * 60_000;
/// Logins under way at the same time: anybody may begin one.
const LOGINS_MAX: i64 = 20_000;
/// Who one user may be at providers.
const IDS_MAX: i64 = 20;

/// Why a login through a provider comes to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of that is under way, or another browser began it.
    #[error("no such login is under way")]
    NotUnderWay,
    /// Too many are.
    #[error("too many logins are under way")]
    TooMany,
    /// The provider sends the browser back without a login: the person changed their mind, or may not.
    #[error("the identity provider did not log in: {0}")]
    Denied(String),
    /// The provider, or a token of it.
    #[error(transparent)]
    Provider(#[from] oidc::Error),
    /// What the operator asks of who logs in is not so.
    #[error("not all that is required is true of this person")]
    Unmet,
    /// Nobody has that person's account, and none is made.
    #[error("no account is made here for people who have none")]
    NoAccount,
    /// The provider says no name that could be one of a user.
    #[error("the identity provider says no usable user name")]
    NoName,
    /// The account of that name is another's.
    #[error("the user name belongs to another account")]
    NameTaken,
    /// Somebody else than the one who has to prove who they are.
    #[error("this is another person than the one who is asked")]
    OtherPerson,
    /// About the account.
    #[error(transparent)]
    Account(#[from] super::Error),
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        Self::Account(error.into())
    }
}

/// What a login is for.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'a> {
    /// A new session of a client, which waits at this address.
    Session {
        /// The address.
        redirect_url: &'a str,
    },
    /// A stage of user-interactive authentication.
    Stage {
        /// Its session.
        session: &'a str,
    },
    /// The browser itself is logged in to our pages, and goes on with one of them.
    Page {
        /// The page: a path of ours with its query, which begins with one slash.
        path: &'a str,
    },
}

/// A login that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser goes.
    pub location: Url,
    /// What it carries there and back.
    pub state: String,
    /// The cookie that it keeps.
    pub cookie: String,
}

/// What a browser comes back with.
#[derive(Clone, Copy)]
pub struct Back<'a> {
    /// What it carried there.
    pub state: &'a str,
    /// The cookie that goes with it.
    pub cookie: &'a str,
    /// What the provider gave it.
    pub code: Option<&'a str>,
    /// Why it gave nothing.
    pub error: Option<&'a str>,
    /// Which provider it was, as it says itself (RFC 9207).
    pub issuer: Option<&'a str>,
}

/// What has come of a login.
#[derive(Debug)]
pub enum Done {
    /// Who it is may have a session.
    Session {
        /// Where the client waits.
        redirect_url: String,
        /// The token by which it logs in.
        token: String,
        /// Who it is.
        user: OwnedUserId,
        /// Whether the display name is another now, which rooms do not know yet.
        is_renamed: bool,
    },
    /// The stage is done.
    Stage,
    /// The browser is logged in to our pages.
    Page {
        /// The page that it goes on with.
        path: String,
        /// What it keeps as a cookie.
        token: String,
        /// Who it is.
        user: OwnedUserId,
        /// Whether the display name is another now, which rooms do not know yet.
        is_renamed: bool,
    },
}

fn redirect_uri(ctx: &Context) -> String {
    let base = ctx.config.well_known.client.as_deref().unwrap_or_default();
    format!("{}{CALLBACK_PATH}", base.trim_end_matches('/'))
}

/// Begins a login at a provider.
pub async fn begin(ctx: &Context, provider: &Provider, goal: Goal<'_>) -> Result<Begun, Error> {
    let (state, cookie) = (fresh("st"), fresh("co"));
    let (redirect_url, uia_session) = match goal {
        Goal::Session { redirect_url } => (Some(redirect_url.to_owned()), None),
        Goal::Stage { session } => (None, Some(session.to_owned())),
        Goal::Page { path } => (Some(path.to_owned()), None),
    };
    let login = Login {
        provider: provider.config.id.clone(),
        nonce: fresh("no"),
        verifier: fresh("ve"),
        redirect_url,
        uia_session,
    };
    let callback = redirect_uri(ctx);
    let way = way(&callback, &login);
    // Who is logged in there already has proved nothing anew.
    let again = login.uia_session.is_some();
    let location = provider.authorization(way, &state, again).await?;
    let keys = Keys {
        state_hash: &hash(&state),
        cookie_hash: &hash(&cookie),
    };
    let now = now_ms();
    let mut conn = ctx.db.conn().await?;
    let times = (now + LIFE_MS, now);
    if !storage::sso::insert_login(&mut conn, keys, &login, times, LOGINS_MAX).await? {
        return Err(Error::TooMany);
    }
    Ok(Begun {
        location,
        state,
        cookie,
    })
}

fn way<'a>(redirect_uri: &'a str, login: &'a Login) -> Way<'a> {
    Way {
        redirect_uri,
        nonce: &login.nonce,
        verifier: &login.verifier,
    }
}

/// Ends a login, however it ends: who it is, and what they wanted. A state is good once, and for the
/// browser that has its cookie.
pub async fn finish(ctx: &Context, back: Back<'_>) -> Result<Done, Error> {
    let keys = Keys {
        state_hash: &hash(back.state),
        cookie_hash: &hash(back.cookie),
    };
    let mut conn = ctx.db.conn().await?;
    let login = storage::sso::take_login(&mut conn, keys, now_ms()).await?;
    drop(conn);
    let login = login.ok_or(Error::NotUnderWay)?;
    let provider = ctx.providers.find(&login.provider);
    let provider = provider.ok_or(Error::NotUnderWay)?;
    if back
        .issuer
        .is_some_and(|issuer| issuer != provider.config.issuer)
    {
        return Err(oidc::Error::Nonsense("another one answers in its place").into());
    }
    if let Some(error) = back.error {
        // A code of a few letters (RFC 6749, section 4.1.2.1), from anybody, for the log.
        let code = error.chars().filter(char::is_ascii_graphic).take(64);
        return Err(Error::Denied(code.collect()));
    }
    let callback = redirect_uri(ctx);
    let code = back.code.unwrap_or_default();
    let identity = provider.redeem(code, way(&callback, &login)).await?;
    if !provider.admits(&identity.claims) {
        return Err(Error::Unmet);
    }
    let origin = Origin {
        provider: provider.config.id.clone(),
        subject: identity.subject.clone(),
        sid: identity.sid.clone(),
    };
    if let Some(session) = &login.uia_session {
        prove(ctx, &origin, session).await?;
        return Ok(Done::Stage);
    }
    let found = account::of(ctx, provider, &identity).await?;
    let redirect_url = login.redirect_url.ok_or(Error::NotUnderWay)?;
    if redirect_url.starts_with('/') {
        return Ok(Done::Page {
            path: redirect_url,
            token: browser::open(ctx, found.nid, Some(&origin)).await?,
            user: found.user,
            is_renamed: found.is_renamed,
        });
    }
    let token = login_token::issue(ctx, found.nid, Some(&origin)).await?;
    Ok(Done::Session {
        redirect_url,
        token,
        user: found.user,
        is_renamed: found.is_renamed,
    })
}

/// Notes a stage as done, if it is the same person.
async fn prove(ctx: &Context, origin: &Origin, session: &str) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    let user = storage::sso::find_user(&mut conn, &origin.provider, &origin.subject).await?;
    drop(conn);
    let user = user.ok_or(Error::OtherPerson)?;
    if uia::prove_person(ctx, session, user).await? {
        Ok(())
    } else {
        Err(Error::OtherPerson)
    }
}

/// Providers at which a user can prove who they are.
pub async fn providers_of(ctx: &Context, user: UserNid) -> Result<Vec<&Provider>, storage::Error> {
    if ctx.providers.all().is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = ctx.db.conn().await?;
    let ids = storage::sso::list_ids(&mut conn, user, IDS_MAX).await?;
    let all = ctx.providers.all().iter();
    let is_there = |it: &&Provider| ids.iter().any(|id| id.provider == it.config.id);
    Ok(all.filter(is_there).collect())
}

/// Ways by which a user proves once more who they are: by the password, at a provider, or by either.
pub async fn flows(ctx: &Context, user: UserNid) -> Result<Flows, super::Error> {
    if providers_of(ctx, user).await?.is_empty() {
        return Ok(vec![vec![PASSWORD_STAGE]]);
    }
    let mut conn = ctx.db.conn().await?;
    let account = storage::users::find(&mut conn, user).await?;
    let has_password = account.is_some_and(|account| account.password_hash.is_some());
    let mut flows = vec![vec![SSO_STAGE]];
    if has_password {
        flows.insert(0, vec![PASSWORD_STAGE]);
    }
    Ok(flows)
}
