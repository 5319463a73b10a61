//! Configuration: flags, then the environment (`EXCITE_SECTION__KEY`), then `excite.toml`, then
//! defaults, with where each value came from.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::redact::redacted;

/// The file that is read if none is named and it is there.
const FILE: &str = "excite.toml";
const SECTIONS: [&str; 6] = ["broker", "store", "progress", "log", "worker", "dispatcher"];

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// A configuration, and where it came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The values.
    pub config: T,
    figment: Figment,
}

/// Loads a configuration whose fields are sections. `flags` has the same shape, with only what was
/// given on the command line.
///
/// # Errors
/// All faults at once, each with its key, value and source.
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<Loaded<T>, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    if let Some(file) = file.filter(|file| !file.exists()) {
        return Err(ConfigError(vec![format!("there is no file {}", file.display())]));
    }
    let path = file.map_or_else(|| PathBuf::from(FILE), Path::to_owned);
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if path.exists() {
        figment = figment.merge(Toml::file_exact(path));
    }
    let figment = figment
        // Other variables of ours (`EXCITE_MODELS`) have no section.
        .merge(Env::prefixed("EXCITE_").filter(|key| key.as_str().contains("__")).split("__"))
        .merge(Serialized::defaults(flags));
    let mut faults = unknown_sections(&figment);
    match figment.extract::<T>() {
        Ok(config) if faults.is_empty() => Ok(Loaded { config, figment }),
        Ok(_) => Err(ConfigError(faults)),
        Err(errors) => {
            faults.extend(errors.into_iter().map(|error| explain(&error)));
            Err(ConfigError(faults))
        }
    }
}

fn explain(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let source = error.metadata.as_ref().map(source_of);
    let source = source.map_or_else(String::new, |source| format!(" ({source})"));
    let key = if key.is_empty() { "configuration".to_owned() } else { key };
    redacted(&format!("{key}: {}{source}", error.kind))
}

fn unknown_sections(figment: &Figment) -> Vec<String> {
    let Ok(all) = figment.extract::<Dict>() else { return Vec::new() };
    let unknown = all.iter().filter(|(key, value)| {
        matches!(value, Value::Dict(..)) && !SECTIONS.contains(&key.as_str())
    });
    let known = SECTIONS.join(", ");
    unknown
        .map(|(key, _)| format!("{key}: there is no such section; use one of: {known}"))
        .collect()
}

fn source_of(metadata: &figment::Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("environment") => "environment".into(),
        _ => metadata.name.to_string(),
    }
}

impl<T: Default + Serialize> Loaded<T> {
    /// One line a value, and where it came from; passwords are replaced.
    pub fn describe(&self) -> String {
        let defaults = Figment::from(Serialized::defaults(T::default()));
        let mut lines = Vec::new();
        if let Ok(all) = self.figment.extract::<Dict>() {
            for (section, value) in all.iter().filter(|(key, _)| defaults.find_value(key).is_ok()) {
                self.describe_value(section, value, &mut lines);
            }
        }
        lines.join("\n")
    }

    fn describe_value(&self, key: &str, value: &Value, lines: &mut Vec<String>) {
        if let Value::Dict(_, inner) = value {
            for (name, value) in inner {
                self.describe_value(&format!("{key}.{name}"), value, lines);
            }
            return;
        }
        let text = serde_json::to_string(value).unwrap_or_default();
        let source = match self.figment.find_metadata(key) {
            Some(metadata) if metadata.name.contains("environment") => {
                format!("environment, EXCITE_{}", key.to_uppercase().replace('.', "__"))
            }
            Some(metadata) => match &metadata.source {
                Some(figment::Source::File(path)) => path.display().to_string(),
                _ if metadata.name.contains(std::any::type_name::<T>()) => "default".into(),
                _ => "flag".into(),
            },
            None => "default".into(),
        };
        lines.push(format!("{key} = {}  # {source}", redacted(&text)));
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::ports::Broker;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Sections {
        broker: Broker,
        worker: Worker,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Worker {
        slots: u32,
        pool: String,
    }

    impl Default for Worker {
        fn default() -> Self {
            Self { slots: 4, pool: "default".into() }
        }
    }

    #[derive(Serialize)]
    struct Flags {
        worker: FlagWorker,
    }

    #[derive(Serialize)]
    struct FlagWorker {
        #[serde(skip_serializing_if = "Option::is_none")]
        slots: Option<u32>,
    }

    fn load_text(text: &str, slots: Option<u32>) -> Result<Loaded<Sections>, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(Some(file.path()), &Flags { worker: FlagWorker { slots } })
    }

    #[test]
    fn flags_go_before_the_file_before_defaults() {
        let text = "[worker]\nslots = 7\npool = \"spot\"\n[broker]\nurl = \"amqp://u:pw@h\"";
        let loaded = load_text(text, Some(9)).unwrap();
        assert_eq!((loaded.config.worker.slots, loaded.config.worker.pool.as_str()), (9, "spot"));
        let said = loaded.describe();
        assert!(said.contains("worker.slots = 9  # flag"), "{said}");
        assert!(said.contains("worker.pool = \"spot\"  # /"), "{said}");
        assert!(said.contains("broker.url = \"amqp://u:***@h\"  # /"), "{said}");
        assert!(load_text("", None).unwrap().describe().contains("worker.slots = 4  # default"));
    }

    #[test]
    fn faults_name_key_and_source() {
        for (text, want) in [
            ("[worker]\nslots = \"many\"", "worker.slots"),
            ("[worker]\nslot = 4", "slot"),
            ("[wroker]\nslots = 4", "wroker: there is no such section"),
            ("[worker", "TOML"),
        ] {
            let error = load_text(text, None).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        let missing = load::<Sections>(Some(Path::new("no such file")), &()).unwrap_err();
        assert!(missing.to_string().contains("there is no file"), "{missing}");
    }
}
