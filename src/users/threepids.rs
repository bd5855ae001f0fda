//! E-mail addresses of accounts (specification, "Adding Account Administrative Contact
//! Information").

use super::Error;
use crate::{
    clock::now_ms,
    context::Context,
    storage::{self, UserNid, threepids::Threepid},
};

/// Addresses that an account may have.
const ADDRESSES_MAX: i64 = 20;
/// Bytes of an address, and of the part before the @ (RFC 5321).
const ADDRESS_BYTES_MAX: usize = 254;
const LOCALPART_BYTES_MAX: usize = 64;

/// An address in its one form, so that nobody has it twice by writing it otherwise: lower case, the
/// host as the DNS knows it. What is no address of a usual kind is refused: quotes, comments and
/// line ends have no place in the head of a mail.
pub fn canonical(address: &str) -> Result<String, Error> {
    let no_address = Error::Invalid("that is not an e-mail address");
    let Some((localpart, host)) = address.trim().split_once('@') else {
        return Err(no_address);
    };
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_dotted = |text: &str| {
        let mut atoms = text.split('.');
        atoms.all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
    };
    let is_host = host
        .chars()
        .all(|c| c.is_alphanumeric() || c == '-' || c == '.');
    if !is_dotted(localpart) || localpart.len() > LOCALPART_BYTES_MAX || !is_host {
        return Err(no_address);
    }
    let Ok(url::Host::Domain(host)) = url::Host::parse(host) else {
        return Err(no_address);
    };
    let canonical = format!("{}@{host}", localpart.to_ascii_lowercase());
    let is_writable = canonical.parse::<lettre::Address>().is_ok();
    if canonical.len() > ADDRESS_BYTES_MAX || !is_writable {
        return Err(no_address);
    }
    Ok(canonical)
}

/// Addresses of a user.
pub async fn list(ctx: &Context, user: UserNid) -> Result<Vec<Threepid>, Error> {
    let mut conn = ctx.db.conn().await?;
    Ok(storage::threepids::list(&mut conn, user, ADDRESSES_MAX).await?)
}

/// The user of an address, as somebody writes it.
pub async fn find_owner(ctx: &Context, address: &str) -> Result<Option<UserNid>, Error> {
    let Ok(address) = canonical(address) else {
        return Ok(None);
    };
    let mut conn = ctx.db.conn().await?;
    Ok(storage::threepids::find_owner(&mut conn, &address).await?)
}

/// Gives a user an address that was proved.
pub async fn add(
    ctx: &Context,
    user: UserNid,
    (address, validated_ts): (&str, i64),
) -> Result<(), Error> {
    let mut tx = ctx.db.begin().await?;
    match storage::threepids::find_owner(&mut tx, address).await? {
        Some(owner) if owner == user => return Ok(()),
        Some(_) => return Err(Error::AddressInUse),
        None => {}
    }
    if storage::threepids::count(&mut tx, user).await? >= ADDRESSES_MAX {
        return Err(Error::Invalid("too many addresses; delete some"));
    }
    match storage::threepids::insert(&mut tx, user, address, (validated_ts, now_ms())).await {
        Err(error) if error.violates("threepid_pkey") => return Err(Error::AddressInUse),
        added => added?,
    }
    Ok(tx.commit().await?)
}

/// Takes an address from a user; mails about what is unread end with it. One that is not theirs is
/// none: nothing happens.
pub async fn delete(ctx: &Context, user: UserNid, address: &str) -> Result<(), Error> {
    let address = canonical(address)?;
    let mut conn = ctx.db.conn().await?;
    Ok(storage::threepids::delete(&mut conn, user, &address).await?)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn an_address_has_one_form() {
        for (given, expected) in [
            (" Anna.Amt@AMT.example ", "anna.amt@amt.example"),
            ("o'neil+a@b", "o'neil+a@b"),
            ("x@MÜNCHEN.example", "x@xn--mnchen-3ya.example"),
        ] {
            assert_eq!(canonical(given).unwrap(), expected);
        }
        let long_name = format!("{}@amt.example", "a".repeat(65));
        let long_host = format!("a@{}example", "amt.".repeat(70));
        for bad in [
            "",
            "anna",
            "@amt.example",
            "anna@",
            "a@b@c",
            "a b@c",
            "a@b c",
            "a\r\nBcc: x@y@amt.example",
            "a@amt.example\r\nBcc: x",
            "a\0@amt.example",
            "\"a\"@amt.example",
            "<a@amt.example>",
            "a,b@amt.example",
            "a@amt.example,b@amt.example",
            ".a@amt.example",
            "a..b@amt.example",
            "a@127.0.0.1",
            "a@[::1]",
            "ä@amt.example",
            "a@amt..example",
            long_name.as_str(),
            long_host.as_str(),
        ] {
            assert!(canonical(bad).is_err(), "{bad:?}");
        }
    }
}
