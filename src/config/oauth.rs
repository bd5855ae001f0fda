//! Login by OAuth 2.0.

/// Login by OAuth 2.0, on pages of this server.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// Where browsers find this server, without a slash at the end: `https://matrix.amt.example`.
    pub base_url: String,
}
