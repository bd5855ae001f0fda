//! E-mail: the relay, and what is mailed.

use super::Secret;

/// E-mail.
#[derive(Clone, Debug)]
pub struct Email {
    /// Host of the relay.
    pub smtp_host: String,
    /// Its port.
    pub smtp_port: u16,
    /// How the way to it is protected.
    pub tls: EmailTls,
    /// Name and password there; `None`: it asks for none.
    pub login: Option<(String, Secret)>,
    /// Sender of every mail.
    pub from: String,
    /// Where answers go; `None`: to the sender.
    pub reply_to: Option<String>,
    /// What this service is called in mails.
    pub app_name: String,
    /// Base address of the links in mails: `well_known.client`.
    pub base_url: String,
    /// Where people open their client; `None`: mails have no link to it.
    pub client_url: Option<String>,
    /// Hosts that a client may have a browser sent to after an address was confirmed.
    pub next_link_hosts: Vec<String>,
    /// Whether notices say the names of rooms.
    pub names_rooms: bool,
    /// Seconds that something is unread before it is mailed.
    pub notice_delay_s: u32,
    /// Seconds between two mails about a room, at most.
    pub notice_pause_max_s: u32,
}

/// How the way to the relay is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmailTls {
    /// Not at all.
    None,
    /// TLS after `STARTTLS`, which the relay must offer.
    #[default]
    StartTls,
    /// TLS from the beginning.
    Tls,
}
