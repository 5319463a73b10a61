//! The broker's objects: made, and looked at, from the command line.
//!
//! Not here: which there are and with which arguments (`excite_jobs::queue`).

use std::time::Duration;

use excite_jobs::Lane;
use excite_jobs::queue::{Queue, QueueError, QueueName};
use serde::Serialize;
use tokio::time::Instant;

/// How long the connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// A queue as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name in the broker.
    pub queue: String,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Makes what is missing.
///
/// # Errors
/// If the broker cannot be reached in time, or an object is there otherwise.
pub async fn apply(queue: &dyn Queue, classes: &[String]) -> Result<(), QueueError> {
    let start = Instant::now();
    loop {
        match queue.declare(classes).await {
            Err(QueueError::Unavailable(_)) if start.elapsed() < CONNECT_MAX => {
                tokio::time::sleep(AGAIN).await;
            }
            declared => return declared,
        }
    }
}

/// Looks at each queue, and changes nothing.
///
/// # Errors
/// If the broker cannot be reached in time.
pub async fn check(queue: &dyn Queue, classes: &[String]) -> Result<Vec<Finding>, QueueError> {
    let jobs = classes.iter().flat_map(|class| Lane::ALL.map(|lane| QueueName::jobs(class, lane)));
    let mut findings = Vec::new();
    let start = Instant::now();
    for name in jobs.chain([QueueName::Control, QueueName::Dead]) {
        let found = loop {
            match queue.depth(&name).await {
                Err(QueueError::Unavailable(_)) if start.elapsed() < CONNECT_MAX => {
                    tokio::time::sleep(AGAIN).await;
                }
                found => break found,
            }
        };
        let queue = name.key();
        findings.push(match found {
            Ok(depth) => {
                let (ready, consumers) = (depth.ready, depth.consumers);
                let detail = format!("{ready} messages ready, {consumers} consumers");
                Finding { queue, ok: true, detail, remedy: None }
            }
            Err(error @ QueueError::Unavailable(_)) => return Err(error),
            Err(error) => {
                let remedy = Some("Run `excite-dispatcher topology apply`.".to_owned());
                Finding { queue, ok: false, detail: error.to_string(), remedy }
            }
        });
    }
    Ok(findings)
}

/// The findings as a table.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.queue.len()).max().unwrap_or(0);
    let row = |finding: &Finding| {
        let mark = if finding.ok { "ok" } else { "MISSING" };
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        let row = format!("{:width$}  {mark:7}  {}  {remedy}", finding.queue, finding.detail);
        row.trim_end().to_owned()
    };
    findings.iter().map(row).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use excite_jobs::queue::memory::MemoryQueue;

    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_found_and_made() {
        let queue = MemoryQueue::new();
        let classes = ["default".to_owned(), "xl".to_owned()];
        let before = check(&queue, &classes).await.unwrap();
        assert!(before.len() == 6 && before.iter().all(|finding| !finding.ok), "{before:?}");
        assert!(table(&before).contains("topology apply"));
        apply(&queue, &classes).await.unwrap();
        let after = check(&queue, &classes).await.unwrap();
        assert!(after.iter().all(|finding| finding.ok), "{after:?}");
        assert!(table(&after).contains("0 messages ready, 0 consumers"));
    }
}
