//! The links and images of a Markdown text.
//!
//! Not whether what they point to is there: that is `tidy`'s.

/// The targets that lie beside the text, without their fragments, each with its line from 1.
/// Web addresses and places in the text itself are left out, and so is whatever is code.
pub(super) fn relative(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (i, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if start.starts_with("```") || start.starts_with("~~~") {
            fenced = !fenced;
        } else if !fenced {
            let targets = targets(&without_code(line));
            found.extend(targets.iter().filter_map(|t| Some((i + 1, beside(t)?.to_owned()))));
        }
    }
    found
}

/// A line without its code spans.
fn without_code(line: &str) -> String {
    let mut rest = line;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once('`') {
        // A span ends with as many backticks as it begins with; without an end it is none.
        let ticks = 1 + after.len() - after.trim_start_matches('`').len();
        let Some((_, behind)) = after[ticks - 1..].split_once(&"`".repeat(ticks)) else { break };
        out.push_str(before);
        rest = behind;
    }
    out + rest
}

/// Whatever a line links to: `[text](target)`, `[name]: target`, `src="target"`, `href="target"`.
fn targets(line: &str) -> Vec<String> {
    let mut found: Vec<String> = line.split("](").skip(1).map(inline).collect();
    for attribute in ["src=\"", "href=\""] {
        let values = line.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(values.map(ToOwned::to_owned));
    }
    let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    found.extend(definition.map(|(_, target)| inline(target)));
    found
}

/// The target at the start of `rest`: in `<>`, or up to white space or the bracket that closes it.
fn inline(rest: &str) -> String {
    if let Some((target, _)) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        return target.to_owned();
    }
    let mut depth = 0;
    let end = rest.find(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c.is_whitespace() || depth < 0
    });
    rest[..end.unwrap_or(rest.len())].to_owned()
}

/// The file of a target, if it is one of the project.
fn beside(target: &str) -> Option<&str> {
    let file = target.split(['#', '?']).next()?;
    let elsewhere = file.contains("://") || file.starts_with("mailto:");
    (!file.is_empty() && !elsewhere).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_link_is_found() {
        for (line, want) in [
            ("see [a](docs/a.md) and [b](b.md#part \"title\").", &["docs/a.md", "b.md"][..]),
            ("![picture](docs/images/a.png)", &["docs/images/a.png"]),
            ("[![badge](badge.png)](page.md)", &["badge.png", "page.md"]),
            (
                "[a](<with space.md>) [b](with(brackets).md)",
                &["with space.md", "with(brackets).md"],
            ),
            ("<a href=\"a.md\"><img width=\"3\" src=\"b.png\"></a>", &["b.png", "a.md"]),
            ("[name]: c.md", &["c.md"]),
        ] {
            let found: Vec<_> = relative(line).into_iter().map(|(_, target)| target).collect();
            assert_eq!(found, want, "{line}");
        }
    }

    #[test]
    fn what_is_elsewhere_or_code_is_no_link() {
        for text in [
            "[a](https://example.org/a.md) [b](http://example.org) [c](mailto:a@example.org)",
            "[a](#part)",
            "`[a](b.md)` and ``[a](`b.md)``",
            "```\n[a](b.md)\n```",
            "text (in brackets) [and these]",
        ] {
            assert_eq!(relative(text), [], "{text}");
        }
    }

    #[test]
    fn lines_are_counted_and_code_hides_only_itself() {
        let text = "```sh\n[x](x)\n```\n`code` [a](a.md) ` [b](b.md)";
        assert_eq!(relative(text), [(4, "a.md".to_owned()), (4, "b.md".to_owned())]);
    }
}
