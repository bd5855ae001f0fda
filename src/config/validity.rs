//! Accounts that end unless they are renewed.

/// For how long accounts are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountValidity {
    /// Milliseconds from a renewal (or the first day) to the end.
    pub period_ms: i64,
    /// Milliseconds before the end at which a mail with a link goes out; `None`: none does.
    pub renew_at_ms: Option<i64>,
}
