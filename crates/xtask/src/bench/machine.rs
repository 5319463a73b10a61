//! Where and on what a measurement was made: figures without it mean nothing.

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::project::{self, Project};

/// What a measurement depends on besides the programs.
#[derive(Debug)]
pub(super) struct Machine {
    commit: String,
    device: String,
    threads: u32,
    rounds: u32,
    /// As `rustc --version` prints it.
    rustc: String,
    /// Year, month, day in UTC.
    date: String,
}

impl Machine {
    /// This one, now.
    pub(super) fn look(project: &Project, threads: u32, rounds: u32) -> Result<Self> {
        let commit = project.git(&["describe", "--always", "--dirty", "--exclude", "*"]);
        let rustc = project::output(project.command("rustc").arg("--version"))?;
        let date = project::output(project.command("date").args(["-u", "+%F"]))?;
        Ok(Self {
            commit: commit.map_or("unknown".to_owned(), |name| name.trim().to_owned()),
            device: device(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            threads,
            rounds,
            rustc: rustc.split(" (").next().unwrap_or_default().trim().to_owned(),
            date: date.trim().to_owned(),
        })
    }

    /// One line for a person; `versions` is what the programs reported, each as often as it ran.
    pub(super) fn line(&self, versions: &[Value]) -> String {
        let s = |n: u32| if n == 1 { "" } else { "s" };
        let mut names = vec![self.rustc.clone()];
        for (name, version) in versions.iter().filter_map(Value::as_object).flatten() {
            let named = format!("{name} {}", version.as_str().unwrap_or("?"));
            if !names.contains(&named) {
                names.push(named);
            }
        }
        let (threads, rounds) = (self.threads, self.rounds);
        [
            format!("commit {}", self.commit),
            self.device.clone(),
            format!("{threads} thread{}", s(threads)),
            format!("{rounds} round{}", s(rounds)),
            names.join(", "),
            self.date.clone(),
        ]
        .join("; ")
    }

    /// The same as an object.
    pub(super) fn json(&self, versions: &[Value]) -> Value {
        let reported = versions.iter().filter_map(Value::as_object).flatten();
        let mut names: Map<String, Value> =
            reported.map(|(name, version)| (name.clone(), version.clone())).collect();
        let rustc = self.rustc.trim_start_matches("rustc ");
        names.insert("rustc".to_owned(), rustc.into());
        json!({
            "commit": self.commit,
            "device": self.device,
            "threads": self.threads,
            "rounds": self.rounds,
            "versions": names,
            "date": self.date,
        })
    }
}

/// The processor's name in the text of /proc/cpuinfo; without it, what the program was built for.
fn device(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let name = named.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim());
    let other = || format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    name.filter(|name| !name.is_empty()).map_or_else(other, ToOwned::to_owned)
}

#[cfg(test)]
impl Machine {
    /// Some machine.
    pub(super) fn example() -> Self {
        Self {
            commit: "abc".into(),
            device: "Some CPU".into(),
            threads: 1,
            rounds: 3,
            rustc: "rustc 1.95.0".into(),
            date: "2026-01-01".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.0 GHz\nflags\t: a b\n";
        assert_eq!(device(cpuinfo), "Some CPU @ 2.0 GHz");
        for unknown in ["", "processor\t: 0\n", "model name\t:\n"] {
            assert!(device(unknown).contains(std::env::consts::ARCH));
        }
    }

    #[test]
    fn the_line_has_everything() {
        let machine = Machine::example();
        let (ours, peer) = (json!({ "excite": "0.1.0" }), json!({ "torch": "2.0" }));
        let versions = [ours.clone(), peer, ours];
        assert_eq!(
            machine.line(&versions),
            "commit abc; Some CPU; 1 thread; 3 rounds; rustc 1.95.0, excite 0.1.0, torch 2.0; \
             2026-01-01"
        );
        let json = machine.json(&versions);
        assert_eq!(
            json["versions"],
            json!({ "excite": "0.1.0", "torch": "2.0", "rustc": "1.95.0" })
        );
        assert_eq!(json["rounds"], 3);
    }
}
