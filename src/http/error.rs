//! Domain errors as Matrix errors: the one place that knows both.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};

use super::reply::Object;
use crate::{appservices, devices, federation, media, rooms, storage, sync, users};

/// When to try again with too many pending uploads: they end when they are used.
const PENDING_RETRY_MS: u64 = 60_000;

/// When to try again after too many mails.
const MAILS_RETRY_MS: u64 = 3_600_000;

/// An error as a client or peer gets it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Value,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// Any error.
    pub fn new(status: StatusCode, errcode: &str, error: &str) -> Self {
        Self {
            status,
            body: json!({ "errcode": errcode, "error": error }),
            retry_after_s: None,
        }
    }

    /// No such route, or no such method on it.
    pub fn unrecognized(status: StatusCode) -> Self {
        Self::new(status, "M_UNRECOGNIZED", "unrecognized request")
    }

    /// `M_MISSING_TOKEN`.
    pub fn missing_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "M_MISSING_TOKEN",
            "an access token is needed",
        )
    }

    /// `M_UNKNOWN_TOKEN`.
    pub fn unknown_token(soft_logout: bool) -> Self {
        let mut error = Self::new(
            StatusCode::UNAUTHORIZED,
            "M_UNKNOWN_TOKEN",
            "the access token is not valid",
        );
        error.body["soft_logout"] = json!(soft_logout);
        error
    }

    /// A peer's signature is missing or wrong.
    pub fn unauthorized(why: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", why)
    }

    /// `M_FORBIDDEN`.
    pub fn forbidden(why: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", why)
    }

    /// `M_NOT_FOUND`.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", what)
    }

    /// `M_NOT_JSON`.
    pub fn not_json(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", why)
    }

    /// `M_BAD_JSON`.
    pub fn bad_json(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", why)
    }

    /// `M_INVALID_PARAM`.
    pub fn invalid_param(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", why)
    }

    /// `M_MISSING_PARAM`.
    pub fn missing_param(what: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", what)
    }

    /// `M_TOO_LARGE`.
    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "M_TOO_LARGE",
            "the request is too large",
        )
    }

    /// `M_LIMIT_EXCEEDED`.
    pub fn limited(retry_after_ms: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "M_LIMIT_EXCEEDED",
            "too many requests",
        );
        error.body["retry_after_ms"] = json!(retry_after_ms);
        error.retry_after_s = Some(retry_after_ms.div_ceil(1_000));
        error
    }

    /// A delayed event is not taken (MSC4140, under the names that clients know).
    fn delayed(errcode: &str, why: &str, most_ms: Option<i64>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", why);
        error.body["org.matrix.msc4140.errcode"] = json!(errcode);
        if let Some(most_ms) = most_ms {
            error.body["org.matrix.msc4140.max_delay"] = json!(most_ms);
        }
        error
    }

    /// Our fault: logged here, told without detail.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "internal server error",
        )
    }

    /// Not now.
    fn unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::warn!(%error, "temporarily unavailable");
        let mut answer = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_UNKNOWN",
            "temporarily unavailable",
        );
        answer.retry_after_s = Some(2);
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Object(self.body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<storage::Error> for ApiError {
    fn from(error: storage::Error) -> Self {
        match &error {
            storage::Error::Sqlx(
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_),
            ) => Self::unavailable(&error),
            storage::Error::Sqlx(_)
            | storage::Error::Migrate(_)
            | storage::Error::Inconsistent { .. } => Self::internal(&error),
        }
    }
}

impl From<rooms::Error> for ApiError {
    fn from(error: rooms::Error) -> Self {
        use rooms::Error;
        let text = error.to_string();
        let bad = StatusCode::BAD_REQUEST;
        match error {
            Error::RoomNotFound(_)
            | Error::EventNotFound
            | Error::StateNotFound
            | Error::DelayedNotFound
            | Error::AliasNotFound
            | Error::UserNotFound(_) => Self::not_found(&text),
            Error::NotJoined { .. }
            | Error::Forbidden(_)
            | Error::RefusedServers(_)
            | Error::Withheld => Self::forbidden(&text),
            Error::InviteBlocked(_) => Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", &text),
            Error::UnredactedGone(keep_ms) => {
                let code = "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED";
                let mut error = Self::new(StatusCode::NOT_FOUND, code, &text);
                error.body["fi.mau.msc2815.content_keep_ms"] = json!(keep_ms);
                error
            }
            Error::Notices => {
                let code = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
                Self::new(StatusCode::FORBIDDEN, code, &text)
            }
            Error::Invalid(_) => Self::new(bad, "M_BAD_JSON", &text),
            Error::StillThere(_) | Error::NoThreadThere => Self::new(bad, "M_UNKNOWN", &text),
            Error::SwitchedOff => Self::unrecognized(StatusCode::NOT_FOUND),
            Error::NotInThread => Self::new(bad, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", &text),
            Error::Unsubscribed => {
                let code = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
                Self::new(StatusCode::CONFLICT, code, &text)
            }
            Error::DelayTooLong(most) => Self::delayed("M_MAX_DELAY_EXCEEDED", &text, Some(most)),
            Error::TooManyDelayed => Self::delayed("M_MAX_DELAYED_EVENTS_EXCEEDED", &text, None),
            Error::DelayedOver => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", &text),
            Error::DuplicateAnnotation => Self::new(bad, "M_DUPLICATE_ANNOTATION", &text),
            Error::InvalidParam(_) => Self::invalid_param(&text),
            Error::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &text),
            Error::UnsupportedVersion(_) => Self::new(bad, "M_UNSUPPORTED_ROOM_VERSION", &text),
            Error::IncompatibleVersion(version) => {
                let mut error = Self::new(bad, "M_INCOMPATIBLE_ROOM_VERSION", &text);
                error.body["room_version"] = json!(version);
                error
            }
            Error::UnableToAuthorise => Self::new(bad, "M_UNABLE_TO_AUTHORISE_JOIN", &text),
            Error::AliasTaken(_) => Self::new(bad, "M_ROOM_IN_USE", &text),
            Error::AliasClaimed => Self::new(bad, "M_EXCLUSIVE", &text),
            Error::Busy | Error::Incomplete(_) | Error::NotWritten(_) => Self::unavailable(&text),
            Error::Refused {
                status, errcode, ..
            } => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                Self::new(status, &errcode, &text)
            }
            Error::Remote(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", &text),
            Error::Storage(error) => error.into(),
        }
    }
}

impl From<devices::Error> for ApiError {
    fn from(error: devices::Error) -> Self {
        match error {
            devices::Error::Invalid(why) => Self::invalid_param(&why),
            devices::Error::BadJson(why) => Self::bad_json(why),
            devices::Error::InvalidSignature(why) => {
                Self::new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", why)
            }
            devices::Error::Missing(what) => Self::missing_param(what),
            devices::Error::Forbidden(why) => Self::forbidden(&why),
            devices::Error::NotFound(what) => Self::not_found(what),
            devices::Error::WrongBackup(ref version) => {
                let text = error.to_string();
                let mut error =
                    Self::new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION", &text);
                error.body["current_version"] = json!(version);
                error
            }
            devices::Error::Storage(error) => error.into(),
        }
    }
}

impl From<users::Error> for ApiError {
    fn from(error: users::Error) -> Self {
        use users::Error;
        let text = error.to_string();
        let bad = |code: &str| Self::new(StatusCode::BAD_REQUEST, code, &text);
        let forbidden = |code: &str| Self::new(StatusCode::FORBIDDEN, code, &text);
        match error {
            Error::RegistrationClosed | Error::WrongCredentials | Error::Forbidden(_) => {
                forbidden("M_FORBIDDEN")
            }
            Error::NameTaken => bad("M_USER_IN_USE"),
            Error::Exclusive(_) => bad("M_EXCLUSIVE"),
            Error::UnknownDevice => bad("M_UNKNOWN_DEVICE"),
            Error::NameInvalid(_) => bad("M_INVALID_USERNAME"),
            Error::Deactivated => forbidden("M_USER_DEACTIVATED"),
            Error::Suspended => forbidden("M_USER_SUSPENDED"),
            Error::NotForGuests => forbidden("M_GUEST_ACCESS_FORBIDDEN"),
            Error::TermsOwed(link) => {
                let mut error = forbidden("M_CONSENT_NOT_GIVEN");
                error.body["consent_uri"] = json!(link);
                error
            }
            Error::Expired => forbidden("ORG_MATRIX_EXPIRED_ACCOUNT"),
            Error::Locked => {
                let mut error = Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", &text);
                error.body["soft_logout"] = json!(true);
                error
            }
            Error::WeakPassword(_) => bad("M_WEAK_PASSWORD"),
            Error::WrongToken => Self::unknown_token(false),
            Error::UnknownLogin => bad("M_UNKNOWN"),
            Error::NotFound(_) => Self::not_found(&text),
            Error::ProfileTooLarge(_) => bad("M_PROFILE_TOO_LARGE"),
            Error::KeyTooLarge => bad("M_KEY_TOO_LARGE"),
            Error::NotSettable(_) => Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", &text),
            Error::NoSuchField(_)
            | Error::Invalid(_)
            | Error::NoGateway(_)
            | Error::Parameter(_) => bad("M_INVALID_PARAM"),
            Error::UnknownAddress => bad("M_THREEPID_NOT_FOUND"),
            Error::AddressInUse => bad("M_THREEPID_IN_USE"),
            Error::ExternalIdInUse => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", &text),
            Error::AddressNotSupported => bad("M_THREEPID_MEDIUM_NOT_SUPPORTED"),
            Error::AddressDenied => forbidden("M_THREEPID_DENIED"),
            Error::AddressUnproved => bad("M_THREEPID_AUTH_FAILED"),
            Error::IdentityServer => forbidden("M_SERVER_NOT_TRUSTED"),
            Error::TooManyMails => Self::limited(MAILS_RETRY_MS),
            Error::Missing(_) => bad("M_MISSING_PARAM"),
            Error::Interactive(challenge) => Self {
                status: StatusCode::UNAUTHORIZED,
                body: challenge.body(),
                retry_after_s: None,
            },
            Error::Hashing(_) => Self::internal(&text),
            Error::Storage(error) => error.into(),
        }
    }
}

impl From<users::rendezvous::Error> for ApiError {
    fn from(error: users::rendezvous::Error) -> Self {
        use users::rendezvous::{Error, RETRY_MS};
        match error {
            Error::NotFound => Self::not_found("no such rendezvous"),
            Error::TooLarge => Self::too_large(),
            Error::TooMany => Self::limited(RETRY_MS),
            Error::Storage(error) => error.into(),
        }
    }
}

impl From<appservices::Error> for ApiError {
    fn from(error: appservices::Error) -> Self {
        use appservices::Error;
        let text = error.to_string();
        match error {
            Error::NoUrl => Self::new(StatusCode::BAD_REQUEST, "M_URL_NOT_SET", &text),
            Error::Unreachable(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "M_CONNECTION_FAILED", &text)
            }
            Error::TimedOut => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_CONNECTION_TIMEOUT", &text)
            }
            Error::Status { status, body } => {
                let mut error = Self::new(StatusCode::BAD_GATEWAY, "M_BAD_STATUS", &text);
                error.body["status"] = json!(status);
                error.body["body"] = json!(body);
                error
            }
            Error::Nonsense(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", &text),
        }
    }
}

impl From<media::Error> for ApiError {
    fn from(error: media::Error) -> Self {
        use media::Error;
        let text = error.to_string();
        match error {
            Error::NotFound | Error::NoPreview => Self::not_found(&text),
            Error::NotYetUploaded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", &text)
            }
            Error::CannotOverwrite => {
                Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", &text)
            }
            Error::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", &text),
            Error::OverQuota(_) | Error::Forbidden | Error::RefusedServer(_) | Error::DeniedUrl => {
                Self::forbidden(&text)
            }
            Error::PreviewsOff => Self::unrecognized(StatusCode::NOT_FOUND),
            Error::BadUrl => Self::invalid_param(&text),
            Error::TooManyPending => {
                let mut error = Self::limited(PENDING_RETRY_MS);
                error.body["error"] = json!(text);
                error
            }
            Error::NotAnImage | Error::BrokenOff => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", &text)
            }
            Error::Remote(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", &text),
            Error::Disk(_) => Self::internal(&text),
            Error::Storage(error) => error.into(),
        }
    }
}

impl From<sync::Error> for ApiError {
    fn from(error: sync::Error) -> Self {
        let text = error.to_string();
        match error {
            sync::Error::BadToken | sync::Error::BadFilter(_) | sync::Error::BadRequest(_) => {
                Self::invalid_param(&text)
            }
            sync::Error::UnknownPos => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", &text),
            sync::Error::Rooms(error) => error.into(),
            sync::Error::Storage(error) => error.into(),
        }
    }
}

impl From<federation::Error> for ApiError {
    fn from(error: federation::Error) -> Self {
        use federation::Error;
        let text = error.to_string();
        match error {
            Error::Remote { status: 404, .. } => Self::not_found("not found at the other server"),
            Error::Remote {
                status: 403,
                message,
                ..
            } => Self::forbidden(&message),
            Error::Refused(_) | Error::RefusedInRoom(_) => Self::forbidden(&text),
            Error::Rule(_) => Self::invalid_param(&text),
            Error::BackingOff { .. }
            | Error::Unresolved(_)
            | Error::Unreachable { .. }
            | Error::Remote { .. }
            | Error::Nonsense { .. } => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", &text),
            Error::Request(_) | Error::Setup(_) => Self::internal(&text),
            Error::Storage(error) => error.into(),
        }
    }
}
