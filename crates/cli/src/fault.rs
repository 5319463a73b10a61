//! How a command ends: exit status, and errors that say what to do.

use std::process::ExitCode;

use excite_jobs::LineError;
use excite_jobs::api::LineRefusal;
use serde::Serialize;

/// Exit status of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// All done.
    Done,
    /// Nothing, or not what was asked for.
    Failed,
    /// The command or its input is wrong; nothing was begun.
    Usage,
    /// Some images failed, the others are there.
    PartlyFailed,
    /// Ctrl-C.
    Interrupted,
}

impl Status {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::PartlyFailed => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code() as u8)
    }
}

/// An error as a person reads it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fault {
    /// Stable, for programs.
    pub(crate) code: String,
    /// What is wrong, with its causes.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
    /// Lines that a server refused: the first ones.
    #[serde(rename = "errors", skip_serializing_if = "Vec::is_empty")]
    pub(crate) lines: Vec<LineRefusal>,
    /// How many it refused in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<u64>,
    #[serde(skip)]
    pub(crate) status: Status,
}

impl Fault {
    pub(crate) fn new(status: Status, code: &str, message: String, remedy: String) -> Self {
        Self { code: code.into(), message, remedy, lines: Vec::new(), refused: None, status }
    }

    pub(crate) fn usage(code: &str, message: String, remedy: &str) -> Self {
        Self::new(Status::Usage, code, message, remedy.into())
    }

    /// The same fault, found in a line of a file.
    pub(crate) fn at_line(mut self, number: usize) -> Self {
        self.message = format!("line {number}: {}", self.message);
        self
    }

    pub(crate) fn bug(message: &str) -> Self {
        let remedy = "Report this with the command that led to it.";
        Self::new(Status::Failed, "internal", message.into(), remedy.into())
    }

    /// A file that could not be read or written.
    pub(crate) fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let remedy = match error.kind() {
            ErrorKind::NotFound => "Check the path.",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "Choose a place you may use, for example with --out."
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "Make room and run the same command again: finished images are kept."
            }
            _ => "Check the path and the disk.",
        };
        // A library may have wrapped the error to tell the name of its temporary file.
        let plain = error.get_ref().and_then(|inner| inner.source());
        let reason = plain.map_or_else(|| error.to_string(), ToString::to_string);
        let message = format!("cannot {doing} {}: {reason}", path.display());
        Self::new(Status::Failed, "io", message, remedy.into())
    }
}

impl From<excite_diffusion::Error> for Fault {
    fn from(error: excite_diffusion::Error) -> Self {
        let (code, remedy) = error.advice();
        let status = match error {
            excite_diffusion::Error::Cancelled => Status::Interrupted,
            excite_diffusion::Error::Environment { .. }
            | excite_diffusion::Error::Instructions(_) => Status::Usage,
            _ => Status::Failed,
        };
        Self::new(status, code, with_causes(&error), remedy)
    }
}

impl From<excite_eval::Error> for Fault {
    fn from(error: excite_eval::Error) -> Self {
        let (code, remedy) = error.advice();
        Self::new(Status::Failed, code, with_causes(&error), remedy)
    }
}

impl From<excite_hub::Error> for Fault {
    fn from(error: excite_hub::Error) -> Self {
        let (code, remedy) = error.advice();
        let status = match error {
            excite_hub::Error::Cancelled => Status::Interrupted,
            _ => Status::Failed,
        };
        Self::new(status, code, with_causes(&error), remedy)
    }
}

/// An error's message and those of its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        message.push_str(&format!(": {next}"));
        cause = next.source();
    }
    message
}

impl From<LineError> for Fault {
    fn from(error: LineError) -> Self {
        let (code, remedy) = error.advice();
        Self::new(Status::Usage, code, error.to_string(), remedy)
    }
}
