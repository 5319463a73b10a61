//! Looking whether the broker's objects are as they should be, without making any.

use lapin::Connection;

use super::{answer, close, declare_one, objects, open, otherwise, soft};
use crate::queue::QueueError;

/// An exchange or queue that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyFinding {
    /// ``queue `excite.v1.control` ``.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Looks at everything. An object that is there is declared once more, which tells whether its
/// arguments are the same; one that is not is not.
pub(in super::super) async fn check(
    connection: &Connection,
    vhost: &str,
    classes: &[String],
) -> Result<Vec<TopologyFinding>, QueueError> {
    let mut findings = Vec::new();
    let mut channel = open(connection).await?;
    for object in objects(classes) {
        let mut found = answer(declare_one(&channel, &object, true)).await;
        if found.is_ok() {
            found = answer(declare_one(&channel, &object, false)).await;
        }
        let Err(error) = found else { continue };
        let Some((_, text)) = soft(&error) else {
            return Err(QueueError::Unavailable(error.to_string()));
        };
        let (problem, remedy) = match otherwise(&error, &object, vhost) {
            Some(otherwise) => otherwise,
            None if text.starts_with("NOT_FOUND") => {
                let remedy = "run `excite-dispatcher topology apply`, or start a dispatcher: both declare it";
                ("it is not there".to_owned(), remedy.to_owned())
            }
            None => (text.to_owned(), "let the user configure and read `^excite\\.`".to_owned()),
        };
        findings.push(TopologyFinding { object: object.describe(), problem, remedy });
        // The broker has closed that one.
        channel = open(connection).await?;
    }
    close(channel).await;
    Ok(findings)
}
