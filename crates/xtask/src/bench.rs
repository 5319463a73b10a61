//! `cargo xtask bench`: what it can measure, and the page where the tables are published.
//!
//! Not the measuring: that is done by programs of other crates and by scripts, which print what
//! they found as JSON.

mod bundled;
mod busy;
mod full_size;
mod machine;
pub(crate) mod pipeline;
pub(crate) mod queue;
mod rounds;
mod start;
mod table;

use std::path::Path;

use anyhow::{Context, Result};

use crate::project::{self, Project};

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench pipeline
  cargo xtask bench pipeline --only bundled --threads 2 --repeats 5
  cargo xtask bench pipeline --write
  cargo xtask bench queue";

/// Where the tables are published; each between a line that names its command and [`END`].
const PAGE: &str = "docs/performance.md";
const END: &str = "<!-- end -->";

/// Builds the programs that a cluster is made of, and those that measure it.
fn build_cluster(project: &Project) -> Result<()> {
    let programs = ["excite", "excite-dispatcher", "excite-worker", "excite-tests"];
    let mut build = vec!["build", "--release", "--bins"];
    build.extend(programs.iter().flat_map(|name| ["-p", name]));
    project::run(&mut project.cargo(&build)).context("the programs do not build")
}

/// Replaces what stands between the two lines of the page.
fn publish(page: &Path, mark: &str, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {PAGE}"))?;
    let text = replaced(&text, mark, table)
        .with_context(|| format!("{PAGE} has no line `{}` with `{END}` behind it", begin(mark)))?;
    std::fs::write(page, text).with_context(|| format!("cannot write {PAGE}"))
}

fn begin(mark: &str) -> String {
    format!("<!-- {mark} -->")
}

fn replaced(text: &str, mark: &str, table: &str) -> Option<String> {
    let begin = begin(mark);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{table}\n\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_table_of_the_page_is_replaced() {
        let (one, two) = (begin("one"), begin("two"));
        let page = format!("{one}\nold\n{END}\nabove\n{two}\nold\n{END}\nbelow\n");
        let once = replaced(&page, "two", "new").unwrap();
        let want = format!("{one}\nold\n{END}\nabove\n{two}\n\nnew\n\n{END}\nbelow\n");
        assert_eq!(once, want);
        assert_eq!(replaced(&once, "two", "new").unwrap(), once);
        assert_eq!(replaced("no such lines", "two", "new"), None);
    }
}
