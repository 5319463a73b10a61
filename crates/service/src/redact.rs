//! Secrets out of texts that people see.

/// The text with the password of every URL in it replaced.
pub fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // Up to where user and password can reach; a password may itself hold an `@`.
        let end = after.find(['/', ' ', '"', '\'', '\n', '?', '#']).unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((credentials, host)) => {
                let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
                let password = if credentials.contains(':') { ":***" } else { "" };
                shown.push_str(&format!("{user}{password}@{host}"));
            }
            None => shown.push_str(authority),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (text, want) in [
            ("amqp://u:p@h:5672/%2f", "amqp://u:***@h:5672/%2f"),
            ("redis://:secret@h", "redis://:***@h"),
            ("no `amqps://u:p@ss@h/x` and rediss://h:1", "no `amqps://u:***@h/x` and rediss://h:1"),
            ("amqp://u@h", "amqp://u@h"),
            ("plain: text", "plain: text"),
        ] {
            assert_eq!(redacted(text), want);
        }
    }
}
