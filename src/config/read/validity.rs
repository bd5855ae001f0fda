//! The section `[account_validity]`.

use super::super::{AccountValidity, source::Source};

const DAY_MS: i64 = 24 * 3_600_000;
/// A hundred years.
const DAYS_MAX: u64 = 36_500;

/// `None`: accounts have no end.
pub(super) fn read(source: &mut Source, has_mail: bool) -> Option<AccountValidity> {
    let period = days(source, "account_validity.period_days");
    let renew_at = days(source, "account_validity.renew_at_days");
    let Some(period) = period else {
        if renew_at.is_some() {
            let remedy = "needs account_validity.period_days, for how long an account is good";
            source.problem("account_validity.renew_at_days", None, remedy);
        }
        return None;
    };
    if renew_at.is_some() && !has_mail {
        let remedy = "needs the section [email]: the link that renews an account is mailed";
        source.problem("account_validity.renew_at_days", None, remedy);
    }
    if renew_at.is_some_and(|days| days >= period) {
        let remedy = "has to be less than account_validity.period_days";
        let shown = renew_at.map(|days| days.to_string());
        source.problem("account_validity.renew_at_days", shown, remedy);
    }
    Some(AccountValidity {
        period_ms: period * DAY_MS,
        renew_at_ms: renew_at.map(|days| days * DAY_MS),
    })
}

fn days(source: &mut Source, key: &'static str) -> Option<i64> {
    let days = source.number(key)?;
    if days == 0 || days > DAYS_MAX {
        let remedy = format!("is out of bounds; give a number of days from 1 to {DAYS_MAX}");
        source.problem(key, Some(days.to_string()), remedy);
    }
    i64::try_from(days).ok()
}
