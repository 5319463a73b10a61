//! Sets of prompts that are part of the program, as a file of jobs would have them.

use clap::ValueEnum;
use excite_prompt::paper_prompts;
use serde_json::json;

/// Prompts by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PromptSet {
    /// The 276 prompts of the Attend-and-Excite paper, with their subjects
    Paper,
}

impl PromptSet {
    /// One JSON object a line. The labels `set` and `subset` find the jobs again.
    pub(crate) fn jsonl(self) -> String {
        let Self::Paper = self;
        let lines = paper_prompts().map(|prompt| {
            let subjects = prompt
                .subjects
                .map(|subject| json!({"word": subject.word, "indices": [subject.index]}));
            let labels = json!({"set": "paper", "subset": prompt.subset.as_str()});
            json!({"prompt": prompt.text, "subjects": subjects, "labels": labels}).to_string()
                + "\n"
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::Line;

    use super::*;

    #[test]
    fn every_line_is_a_job() {
        let text = PromptSet::Paper.jsonl();
        let lines: Vec<Line> = text.lines().map(|line| Line::parse(line).unwrap()).collect();
        assert_eq!(lines.len(), 276);
        assert!(lines.iter().all(|line| line.subjects.as_ref().is_some_and(|all| all.len() == 2)));
    }
}
