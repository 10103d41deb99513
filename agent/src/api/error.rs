//! Answers that are errors: which HTTP status, which word, which sentence.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::body::{ErrorBody, ErrorDetail};
use crate::source::WriteError;
use crate::status::VifStatus;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Error {
    status: StatusCode,
    code: &'static str,
    field: String,
    message: String,
    vif: Option<Box<VifStatus>>,
}

impl Error {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Error {
        Error { status, code, field: String::new(), message: message.into(), vif: None }
    }

    /// A parameter makes no sense.
    pub(super) fn parameter(field: &str, message: impl Into<String>) -> Error {
        Error { field: field.into(), ..Error::new(StatusCode::BAD_REQUEST, "bad_request", message) }
    }

    /// The request as a whole makes no sense.
    pub(super) fn request(message: impl Into<String>) -> Error {
        Error::parameter("", message)
    }

    pub(super) fn too_large(limit: usize) -> Error {
        let message = format!("the body may have at most {limit} bytes");
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn too_slow() -> Error {
        Error::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come in time")
    }

    pub(super) fn not_found(message: impl Into<String>) -> Error {
        Error::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Too many clients want the like.
    pub(super) fn busy() -> Error {
        Error::unavailable("too many requests like this one are being served")
    }

    /// The agent is not in a state to do it.
    pub(super) fn unavailable(message: impl Into<String>) -> Error {
        Error::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The reconciler said no, in its words.
    pub(super) fn refused(message: impl Into<String>) -> Error {
        Error::new(StatusCode::CONFLICT, "refused", message)
    }

    /// The VIF cannot become what was waited for.
    pub(super) fn failed(vif: &VifStatus) -> Error {
        let error = Error::new(StatusCode::UNPROCESSABLE_ENTITY, "failed", &vif.message);
        Error { vif: Some(Box::new(vif.clone())), ..error }
    }

    /// Somebody else has what the VIF wants.
    pub(super) fn conflict(vif: &VifStatus) -> Error {
        Error { vif: Some(Box::new(vif.clone())), ..Error::new(StatusCode::CONFLICT, "conflict", &vif.message) }
    }

    /// It did not become what was waited for in time.
    pub(super) fn timeout(message: String, vif: Option<&VifStatus>) -> Error {
        let vif = vif.map(|vif| Box::new(vif.clone()));
        Error { vif, ..Error::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message) }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Error {
        match error {
            WriteError::Refused(refused) => Error {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                code: "invalid_record",
                message: refused.to_string(),
                field: refused.field,
                vif: None,
            },
            WriteError::Conflict(message) => Error::refused(message),
            WriteError::Unavailable(message) => Error::unavailable(message),
            WriteError::Io { ref source, .. } => {
                Error::new(StatusCode::INTERNAL_SERVER_ERROR, "io", format!("{error}: {source}"))
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let Error { status, code, field, message, vif } = self;
        let error = ErrorDetail { code: code.to_owned(), field, message };
        (status, Json(ErrorBody { error, status: vif })).into_response()
    }
}

pub(super) async fn no_such_path(request: Request) -> Error {
    Error::not_found(format!("there is nothing at {}", request.uri().path()))
}

pub(super) async fn no_such_method(request: Request) -> Error {
    let message = format!("{} cannot be done at {}", request.method(), request.uri().path());
    Error::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
