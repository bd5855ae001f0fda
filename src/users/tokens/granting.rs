//! Tokens are given and exchanged.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use sha2::{Digest, Sha256};

use super::{super::Error, Tokens, invalid_entry};
use crate::{
    clock::now_ms,
    storage::{self, UserNid, oauth::Grant, sso::Origin},
};

/// How long an access token lives that comes with a refresh token.
const ACCESS_LIFE_MS: i64 = 5 * 60 * 1000;

/// What a login gives.
#[derive(Clone)]
pub struct Granted {
    /// Device.
    pub device_id: OwnedDeviceId,
    /// Access token.
    pub access_token: String,
    /// Refresh token, if it was asked for.
    pub refresh_token: Option<String>,
    /// Life of the access token.
    pub expires_in_ms: Option<i64>,
}

/// What a session comes of, beside the request that asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause<'a> {
    /// The session at an identity provider.
    pub origin: Option<&'a Origin>,
    /// The client that asks by OAuth 2.0.
    pub client: Option<&'a str>,
}

pub(in crate::users) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

pub(in crate::users) fn fresh(prefix: &str) -> String {
    let bytes: [u8; 32] = rand::random();
    format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// A device id for who brought none.
pub fn fresh_device_id() -> OwnedDeviceId {
    const LETTERS: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let id: String = (0..10)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect();
    id.into()
}

/// A refresh token. Those of one session of OAuth 2.0 begin alike (`family`), so that a dead one is
/// known as such without being kept.
fn fresh_refresh(family: Option<&str>) -> String {
    match family {
        Some(family) => format!("{family}.{}", fresh("r")),
        None => fresh("amr"),
    }
}

/// What the refresh tokens of a session begin with, where they do.
fn family_of(token: &str) -> Option<&str> {
    token.split_once('.').map(|(family, _)| family)
}

impl Tokens {
    /// Opens a session on a device, which loses those it had.
    pub async fn grant(
        &self,
        user: &UserId,
        device_id: Option<&DeviceId>,
        display_name: Option<&str>,
        with_refresh: bool,
    ) -> Result<Granted, Error> {
        self.grant_of(
            user,
            device_id,
            display_name,
            with_refresh,
            Cause::default(),
        )
        .await
    }

    /// [`Self::grant`] with what the session comes of.
    pub async fn grant_of(
        &self,
        user: &UserId,
        device_id: Option<&DeviceId>,
        display_name: Option<&str>,
        with_refresh: bool,
        cause: Cause<'_>,
    ) -> Result<Granted, Error> {
        let user_nid = self.ctx.db.ids.user(user).await?;
        let device_id = device_id.map_or_else(fresh_device_id, ToOwned::to_owned);
        let now = now_ms();
        let mut tx = self.ctx.db.begin().await?;
        let id = device_id.as_str();
        let no = storage::devices::upsert(&mut tx, user_nid, id, display_name, now).await?;
        if storage::dehydrated::exists(&mut tx, user_nid, no).await? {
            return Err(Error::Invalid("nobody logs in with a dehydrated device"));
        }
        storage::tokens::delete_of_devices(&mut tx, user_nid, &[no]).await?;
        let family = cause.client.map(|_| fresh("amr"));
        let family_hash = family.as_deref().map(hash);
        let of_client = cause.client.zip(family_hash.as_ref());
        let grant = of_client.map(|(client, family_hash)| Grant {
            client,
            family_hash,
        });
        let causes = (cause.origin, grant);
        storage::devices::update_origin(&mut tx, (user_nid, no), causes, now).await?;
        let mut granted = Granted {
            device_id,
            access_token: fresh("amt"),
            refresh_token: None,
            expires_in_ms: None,
        };
        let mut refresh_id = None;
        if with_refresh {
            let token = fresh_refresh(family.as_deref());
            let owner = (user_nid, no);
            refresh_id =
                Some(storage::tokens::insert_refresh(&mut tx, &hash(&token), owner).await?);
            granted.refresh_token = Some(token);
            granted.expires_in_ms = Some(ACCESS_LIFE_MS);
        }
        let expires = granted.expires_in_ms.map(|life| now + life);
        let access = hash(&granted.access_token);
        storage::tokens::insert(&mut tx, &access, (user_nid, no), expires, refresh_id).await?;
        tx.log(invalid_entry(user_nid)).await?;
        tx.commit().await?;
        self.forget(user_nid);
        Ok(granted)
    }

    /// Exchanges a refresh token, one of a client of OAuth 2.0 (`client`) or another. The old one
    /// stays good until the new pair is used; a dead one of a client ends the session, for two have it
    /// then (specification, "Refresh token grant").
    pub async fn refresh(&self, token: &str, client: Option<&str>) -> Result<Granted, Error> {
        let mut tx = self.ctx.db.begin().await?;
        let old = storage::tokens::find_refresh(&mut tx, &hash(token)).await?;
        let Some(old) = old.filter(|old| !old.next_used) else {
            drop(tx);
            self.end_family(family_of(token).unwrap_or_default())
                .await?;
            return Err(Error::WrongToken);
        };
        if old.client_id.as_deref() != client {
            return Err(Error::WrongToken);
        }
        let owner = (UserNid(old.user_nid), old.device_no);
        let refresh_token = fresh_refresh(family_of(token));
        let id = storage::tokens::insert_refresh(&mut tx, &hash(&refresh_token), owner).await?;
        storage::tokens::update_refresh(&mut tx, &old, id).await?;
        let access_token = fresh("amt");
        let expires = Some(now_ms() + ACCESS_LIFE_MS);
        let access = hash(&access_token);
        storage::tokens::insert(&mut tx, &access, owner, expires, Some(id)).await?;
        tx.commit().await?;
        Ok(Granted {
            device_id: OwnedDeviceId::from(""),
            access_token,
            refresh_token: Some(refresh_token),
            expires_in_ms: Some(ACCESS_LIFE_MS),
        })
    }

    /// Ends the session whose refresh tokens begin like that, if there is one.
    async fn end_family(&self, family: &str) -> Result<(), Error> {
        let mut conn = self.ctx.db.conn().await?;
        let device = storage::oauth::find_family(&mut conn, &hash(family)).await?;
        drop(conn);
        match device {
            Some((user, device)) => self.end(user, &[device]).await,
            None => Ok(()),
        }
    }
}
