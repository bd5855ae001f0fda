//! Mails that leave the house: each on a connection of its own to the relay, a few at once.

pub mod text;

use std::{sync::Arc, time::Duration};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};
use tokio::sync::Semaphore;

use crate::config::{Config, Email, EmailTls, Outbound};

/// Connections to the relay at once.
const SENDING_MAX: usize = 4;
/// Mails that wait for one; beyond that who asks for a mail is told to come later.
const WAITING_MAX: usize = 1_000;
/// How long it may take to connect to the relay, and to hand it a mail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_mins(1);
/// Pauses before a mail that somebody waits for is tried again.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_mins(1),
];

/// Why a mail did not go out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The relay does not take mails for that address, and says that this will not change.
    #[error("the relay refuses the recipient: {0}")]
    Refused(String),
    /// It could not be sent now.
    #[error("the mail could not be sent: {0}")]
    Failed(String),
    /// The configuration does not do.
    #[error("[email]: {0}")]
    Setup(String),
}

/// A mail.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Address of the reader.
    pub to: String,
    /// Subject.
    pub subject: String,
    /// What it says, as plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// Where a POST ends mails of this kind (RFC 8058).
    pub unsubscribe: Option<String>,
}

/// Sends mails. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mailer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    relay: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    reply_to: Option<Mailbox>,
    /// What ids of our mails end with.
    host: String,
    sending: Semaphore,
    waiting: Arc<Semaphore>,
}

impl Mailer {
    /// Sets up the way to the relay; `None`: there is no e-mail.
    pub fn new(config: &Config) -> Result<Option<Self>, Error> {
        let Some(email) = &config.email else {
            return Ok(None);
        };
        let host = config.server_name.host().to_owned();
        let mailbox = |text: &String| {
            let parsed = text.parse::<Mailbox>();
            parsed.map_err(|error| Error::Setup(format!("{text}: {error}")))
        };
        Ok(Some(Self(Arc::new(Inner {
            relay: relay(email, &config.outbound, &host)?,
            from: mailbox(&email.from)?,
            reply_to: email.reply_to.as_ref().map(mailbox).transpose()?,
            host,
            sending: Semaphore::new(SENDING_MAX),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }))))
    }

    /// Sends a mail, and waits until the relay has it.
    pub async fn send(&self, letter: &Letter) -> Result<(), Error> {
        let message = self.message(letter)?;
        let Ok(_sending) = self.0.sending.acquire().await else {
            return Err(Error::Failed("stopping".to_owned()));
        };
        let sent = tokio::time::timeout(TIMEOUT, self.0.relay.send(message)).await;
        let is_sent = matches!(sent, Ok(Ok(_)));
        let result = if is_sent { "ok" } else { "failed" };
        metrics::counter!("mails_sent_total", "result" => result).increment(1);
        let error = match sent {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => return Err(Error::Failed("the relay took too long".to_owned())),
        };
        // Of the other codes many are about us and not about the reader.
        let code = error.status().map(u16::from);
        // Relays repeat the address, and this is logged.
        let text = error.to_string().replace(&letter.to, "…");
        if matches!(code, Some(550 | 551 | 553 | 556)) {
            Err(Error::Refused(text))
        } else {
            Err(Error::Failed(text))
        }
    }

    /// Sends a mail in the background, and tries a few times; `false`: too many wait.
    pub fn post(&self, letter: Letter) -> bool {
        let Ok(waiting) = self.0.waiting.clone().try_acquire_owned() else {
            tracing::warn!("too many mails wait for the relay");
            return false;
        };
        let mailer = self.clone();
        tokio::spawn(async move {
            let mut pauses = PAUSES.into_iter();
            while let Err(error) = mailer.send(&letter).await {
                let pause = pauses.next();
                let again = pause.is_some();
                // Not to whom: that is nothing for a log.
                tracing::warn!(%error, again, "a mail did not go out");
                match pause {
                    Some(pause) if !matches!(error, Error::Refused(_)) => {
                        tokio::time::sleep(pause).await;
                    }
                    _ => break,
                }
            }
            drop(waiting);
        });
        true
    }

    fn message(&self, letter: &Letter) -> Result<Message, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let to: Address = letter.to.parse().map_err(|error| failed(&error))?;
        let id = format!("<{}@{}>", uuid::Uuid::new_v4().simple(), self.0.host);
        let mut builder = Message::builder()
            .from(self.0.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&letter.subject)
            .message_id(Some(id));
        if let Some(reply_to) = &self.0.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        // No out-of-office note comes back (RFC 3834).
        builder = builder.raw_header(header("Auto-Submitted", "auto-generated"));
        if let Some(url) = &letter.unsubscribe {
            builder = builder
                .raw_header(header("List-Unsubscribe", &format!("<{url}>")))
                .raw_header(header(
                    "List-Unsubscribe-Post",
                    "List-Unsubscribe=One-Click",
                ));
        }
        let parts = MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone());
        builder.multipart(parts).map_err(|error| failed(&error))
    }
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn relay(
    email: &Email,
    outbound: &Outbound,
    host: &str,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, Error> {
    let tls = match email.tls {
        EmailTls::None => Tls::None,
        EmailTls::StartTls => Tls::Required(tls(email, outbound)?),
        EmailTls::Tls => Tls::Wrapper(tls(email, outbound)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.smtp_host)
        .port(email.smtp_port)
        .tls(tls)
        .hello_name(ClientId::Domain(host.to_owned()))
        .timeout(Some(CONNECT_TIMEOUT));
    if let Some((user, password)) = &email.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.0.clone()));
    }
    Ok(builder.build())
}

/// Whom we trust: as everywhere outside (`[outbound]`).
fn tls(email: &Email, outbound: &Outbound) -> Result<TlsParameters, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let mut builder = TlsParameters::builder(email.smtp_host.clone());
    let files = if outbound.replace_ca.is_empty() {
        &outbound.extra_ca
    } else {
        builder = builder.certificate_store(CertificateStore::None);
        &outbound.replace_ca
    };
    for file in files {
        let pem = std::fs::read(file).map_err(|error| setup(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| setup(&error))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|error| setup(&error))
}
