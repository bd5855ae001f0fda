//! Pushers: where a user is notified (specification, "Push notifications"; MSC3881).

use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Error, threepids,
    tokens::{self, Session},
};
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, pushers::Pusher},
};

/// Pushers that a user may have.
const PUSHERS_MAX: i64 = 100;
/// Characters of an application id (specification).
const APP_ID_CHARS_MAX: usize = 64;
/// Bytes of a push key (specification).
const PUSHKEY_BYTES_MAX: usize = 512;
/// Bytes of any other text.
const TEXT_BYTES_MAX: usize = 512;
/// Bytes of what is passed to the gateway with each notice.
const DATA_BYTES_MAX: usize = 8 << 10;

/// Whether a pusher is on, and whose it is, until the specification has names for it.
const ENABLED: &str = "org.matrix.msc3881.enabled";
const DEVICE_ID: &str = "org.matrix.msc3881.device_id";

/// What mails are as an application (specification, "email" pushers).
const EMAIL_APP: &str = "m.email";
/// Where the link in mails leads that ends them, below the base address.
pub const UNSUBSCRIBE_PATH: &str = "/_matrix/client/unstable/de.amtsbote.email/unsubscribe";

/// Makes, changes or (`kind` null) deletes a pusher.
pub async fn set(ctx: &Context, session: &Session, body: &Map<String, Value>) -> Result<(), Error> {
    require(body, &["kind", "app_id", "pushkey"])?;
    let app_id = text(body, "app_id")?;
    let pushkey = text(body, "pushkey")?;
    if app_id.chars().count() > APP_ID_CHARS_MAX {
        return Err(Error::Invalid("app_id has at most 64 characters"));
    }
    if pushkey.is_empty() || pushkey.len() > PUSHKEY_BYTES_MAX {
        return Err(Error::Invalid("pushkey has 1 to 512 bytes"));
    }
    // An address is the same however it is written.
    let pushkey = if app_id == EMAIL_APP {
        threepids::canonical(&pushkey).unwrap_or(pushkey)
    } else {
        pushkey
    };
    let user = session.user_nid;
    let key = (&*app_id, &*pushkey);
    if body["kind"].is_null() {
        let mut conn = ctx.db.conn().await?;
        return Ok(storage::pushers::delete(&mut conn, user, key).await?);
    }
    let pusher = read(ctx, body, key)?;
    let is_added = flag(body, "append")?.unwrap_or(false);
    // Whoever turns a pusher on or off may do so from another device, and it stays with its own.
    let keeps_device = body.contains_key(ENABLED);
    let mut tx = ctx.db.begin().await?;
    let is_mail = pusher.kind == "email";
    if is_mail && storage::threepids::find_owner(&mut tx, &pusher.pushkey).await? != Some(user) {
        return Err(Error::UnknownAddress);
    }
    if storage::pushers::count_others(&mut tx, user, key).await? >= PUSHERS_MAX {
        return Err(Error::Invalid("too many pushers; delete some"));
    }
    if !is_added {
        storage::pushers::delete_of_others(&mut tx, user, key).await?;
    }
    // Mails are for who has logged out as well: they end with the address.
    let owner = (user, if is_mail { 0 } else { session.device_no });
    storage::pushers::upsert(&mut tx, owner, &pusher, keeps_device).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends mails, by the token in their link; nothing happens where there is none such.
pub async fn unsubscribe(ctx: &Context, token: &str) -> Result<(), Error> {
    if token.len() > TEXT_BYTES_MAX || token.contains('\0') {
        return Ok(());
    }
    let mut conn = ctx.db.conn().await?;
    Ok(storage::pushers::delete_unsubscribed(&mut conn, token).await?)
}

/// Pushers of a user, as clients are shown them.
pub async fn list(ctx: &Context, user: UserNid) -> Result<Vec<Value>, Error> {
    let mut conn = ctx.db.conn().await?;
    let pushers = storage::pushers::list(&mut conn, user).await?;
    Ok(pushers.iter().map(shown).collect())
}

fn shown(pusher: &Pusher) -> Value {
    let data: Value = serde_json::from_str(&pusher.data).unwrap_or_default();
    let mut shown = json!({
        "kind": pusher.kind,
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "app_display_name": pusher.app_display_name,
        "device_display_name": pusher.device_display_name,
        "profile_tag": pusher.profile_tag,
        "lang": pusher.lang,
        "data": data,
        ENABLED: pusher.enabled,
    });
    if let Some(device) = &pusher.device_id {
        shown[DEVICE_ID] = json!(device);
    }
    shown
}

/// What a client wants, checked.
fn read(
    ctx: &Context,
    body: &Map<String, Value>,
    (app_id, pushkey): (&str, &str),
) -> Result<Pusher, Error> {
    require(
        body,
        &["app_display_name", "device_display_name", "lang", "data"],
    )?;
    let kind = text(body, "kind")?;
    let data = body["data"].as_object();
    let data = data.ok_or(Error::Invalid("data is an object"))?;
    let gateway = match kind.as_str() {
        "http" => gateway(ctx, data)?,
        "email" if ctx.mail.is_none() => return Err(Error::UnknownAddress),
        "email" if app_id != EMAIL_APP => {
            return Err(Error::Invalid("app_id of mails is \"m.email\""));
        }
        "email" => String::new(),
        _ => return Err(Error::Invalid("kind is \"http\", \"email\" or null")),
    };
    let data_text = body["data"].to_string();
    if data_text.len() > DATA_BYTES_MAX {
        return Err(Error::Invalid("data is too large"));
    }
    Ok(Pusher {
        unsubscribe: (kind == "email").then(|| tokens::fresh("amu")),
        kind,
        app_id: app_id.to_owned(),
        pushkey: pushkey.to_owned(),
        app_display_name: text(body, "app_display_name")?,
        device_display_name: text(body, "device_display_name")?,
        profile_tag: match body.get("profile_tag") {
            None | Some(Value::Null) => String::new(),
            Some(_) => text(body, "profile_tag")?,
        },
        lang: text(body, "lang")?,
        data: data_text,
        gateway,
        enabled: flag(body, ENABLED)?.unwrap_or(true),
        set_ts: now_ms(),
        device_id: None,
    })
}

/// Host and port of the gateway that a pusher names.
fn gateway(ctx: &Context, data: &Map<String, Value>) -> Result<String, Error> {
    let url = data.get("url");
    let url = url.ok_or_else(|| Error::Missing("data.url".to_owned()))?;
    let url = url.as_str().and_then(|url| Url::parse(url).ok());
    let url = url.ok_or(Error::Invalid("data.url is not an address"))?;
    let checked = ctx
        .federation
        .check_gateway(&url, ctx.config.push.allow_http);
    checked.map_err(Error::NoGateway)?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Ok(format!("{host}:{port}"))
}

/// Names what is not there, all of it at once.
fn require(body: &Map<String, Value>, names: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !body.contains_key(*name))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing(missing.join(", ")))
    }
}

fn text(body: &Map<String, Value>, name: &'static str) -> Result<String, Error> {
    let text = body.get(name).and_then(Value::as_str);
    let text = text.ok_or(Error::Parameter(name))?;
    // A zero byte is a character, and none that the database takes.
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(Error::Parameter(name));
    }
    Ok(text.to_owned())
}

fn flag(body: &Map<String, Value>, name: &'static str) -> Result<Option<bool>, Error> {
    match body.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(Error::Parameter(name)),
    }
}
