//! What a server says when it refuses, as a fault that a person reads.

use excite_jobs::api::Problem;

use super::Answer;
use crate::fault::{Fault, Status};

/// Characters shown of an answer that is no problem document.
const TEXT_CHARS_MAX: usize = 200;

/// The fault of an answer that is no success.
pub(super) fn fault(answer: &Answer) -> Fault {
    let status = answer.status;
    // These say that what was asked for is wrong; nothing was begun.
    let exit = if matches!(status, 400 | 413 | 415 | 422) { Status::Usage } else { Status::Failed };
    if let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body) {
        let mut fault = Fault::new(exit, &problem.code, problem.detail, problem.remedy);
        fault.refused =
            problem.refused.or((!problem.errors.is_empty()).then_some(problem.errors.len() as u64));
        fault.lines = problem.errors;
        return fault;
    }
    let text = String::from_utf8_lossy(&answer.body);
    let text: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(TEXT_CHARS_MAX)
        .collect();
    let text = if text.is_empty() { text } else { format!(": {text}") };
    let remedy = "Check the address: this is no answer of a dispatcher.";
    let message = format!("the server answers with status {status}{text}");
    Fault::new(exit, &format!("http_{status}"), message, remedy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_other_servers_are_shown_shortly() {
        let answer = |body: &str| Answer { status: 502, retry_after: None, body: body.into() };
        let long = format!("<html>\n  <b>Bad\u{1b}[31m gateway</b> {}", "x".repeat(1000));
        let fault = fault(&answer(&long));
        assert_eq!((fault.code.as_str(), fault.status), ("http_502", Status::Failed));
        assert!(fault.message.contains(": <html> <b>Bad[31m gateway"), "{}", fault.message);
        assert!(fault.message.chars().count() < 300);
        assert!(super::fault(&answer("")).message.ends_with("status 502"));
    }
}
