//! The broker's objects: made, and looked at, from the command line.
//!
//! Not here: which there are and with which arguments (`excite_jobs::queue::rabbit::topology`);
//! how policies are set, which AMQP cannot do (`management`).

mod management;

use std::fmt::Write;
use std::time::Duration;

use excite_jobs::queue::rabbit::{RabbitQueue, TopologyFinding};
use excite_jobs::queue::{Queue, QueueError};
use serde::Serialize;
use tokio::time::Instant;

pub use management::{Did, Management, ManagementError, PolicySet};

/// How long the connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);
/// What is said where policies cannot be set.
const NO_POLICIES: &str = "The policies (delivery limit, dead letters, length) are not set: give \
                           --management-url http://user:password@host:15672, or import what \
                           `topology apply --definitions` prints.";

/// An exchange or queue that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// ``queue `excite.v1.control` ``.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl From<TopologyFinding> for Finding {
    fn from(finding: TopologyFinding) -> Self {
        let TopologyFinding { object, problem, remedy } = finding;
        Self { object, problem, remedy }
    }
}

/// What was found and done in a vhost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which one.
    pub vhost: String,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// The policies, if they were to be set.
    pub policies: Vec<PolicySet>,
    /// What was left undone, and how to do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why the broker's objects cannot be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Over AMQP.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Over the management API.
    #[error(transparent)]
    Management(#[from] ManagementError),
}

/// Makes what is missing, sets the policies if it is told where, and looks at all of it.
///
/// # Errors
/// If the broker cannot be reached in time, or refuses.
pub async fn apply(
    queue: &RabbitQueue,
    classes: &[String],
    management: Option<&Management>,
) -> Result<Report, TopologyError> {
    match reached(async || queue.declare(classes).await).await {
        // Looking finds all that is there otherwise, not only the first.
        Ok(()) | Err(QueueError::Topology(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut report = check(queue, classes).await?;
    match management {
        Some(management) => report.policies = management.set_policies(&report.vhost).await?,
        None => report.note = Some(NO_POLICIES.to_owned()),
    }
    Ok(report)
}

/// Looks at each exchange and queue, and changes nothing.
///
/// # Errors
/// If the broker cannot be reached in time.
pub async fn check(queue: &RabbitQueue, classes: &[String]) -> Result<Report, TopologyError> {
    let findings = reached(async || queue.check(classes).await).await?;
    let findings = findings.into_iter().map(Finding::from).collect();
    let vhost = queue.vhost().to_owned();
    Ok(Report { vhost, findings, policies: Vec::new(), note: None })
}

/// Waits for the connection to be made.
async fn reached<T>(mut ask: impl AsyncFnMut() -> Result<T, QueueError>) -> Result<T, QueueError> {
    let start = Instant::now();
    loop {
        match ask().await {
            Err(QueueError::Unavailable(_)) if start.elapsed() < CONNECT_MAX => {
                tokio::time::sleep(AGAIN).await;
            }
            answered => return answered,
        }
    }
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_well(&self) -> bool {
        self.findings.is_empty()
    }

    /// For people: a line for each object that is not well and each policy.
    pub fn table(&self) -> String {
        let names = self.findings.iter().map(|finding| finding.object.len());
        let names = names.chain(self.policies.iter().map(|policy| policy.name.len() + 9));
        let width = names.max().unwrap_or(0);
        let mut text = format!("vhost `{}`\n", self.vhost);
        // Writing to memory cannot fail.
        for (at, Finding { object, problem, remedy }) in self.findings.iter().enumerate() {
            let _ = writeln!(text, "{object:width$}  WRONG  {problem}");
            // Once for all in a row of which it is true.
            if self.findings.get(at + 1).is_none_or(|next| next.remedy != *remedy) {
                let _ = writeln!(text, "{:width$}  to do: {remedy}", "");
            }
        }
        if self.findings.is_empty() {
            text.push_str("All exchanges and queues are as they should be.\n");
        }
        for policy in &self.policies {
            let name = format!("policy `{}`", policy.name);
            let _ = writeln!(text, "{name:width$}  {}", policy.did);
        }
        text.extend(self.note.iter().map(String::as_str));
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_wrong_what_to_do_and_what_was_not_done() {
        let finding = Finding {
            object: "queue `excite.v1.delay.10`".into(),
            problem: "other arguments".into(),
            remedy: "delete it".into(),
        };
        let mut report = Report {
            vhost: "/".into(),
            findings: vec![finding],
            policies: Vec::new(),
            note: Some(NO_POLICIES.into()),
        };
        let table = report.table();
        for want in ["vhost `/`", "delay.10`  WRONG  other arguments", "to do: delete it"] {
            assert!(table.contains(want), "{table}");
        }
        assert!(table.ends_with("prints.") && !report.is_well(), "{table}");
        report.findings.clear();
        assert!(report.table().contains("as they should be") && report.is_well());
    }
}
