//! Models as the store has them: looked up for each batch, listed, and pushed file by file.
//!
//! A model is there when its card is, and the card is written after all its files. Files are named
//! by their SHA-256, so a push that broke off goes on where it stopped.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{ModelCard, ModelFacts, VERSION, keys, limits};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use crate::header::{self, HeaderError};

/// How long a card is kept: a push is seen by all replicas after that.
const KEPT: Duration = Duration::from_secs(5);
/// Cards that are kept; names that are no model are never kept.
const KEPT_MAX: usize = 1000;
/// Models that are listed.
const LISTED_MAX: usize = 1000;
/// Requests to the store at a time.
const AT_A_TIME: usize = 8;
/// Timesteps that a model can have been trained with: ten times those of any known one.
const TIMESTEPS_MAX: u32 = 10_000;

/// Why a card is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CardFault {
    /// Stable, for programs.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The card is wrong, or its files are not there.
    #[error(transparent)]
    Card(#[from] CardFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The models.
pub struct Models {
    store: Arc<dyn Store>,
    /// Held only to look up and to insert.
    kept: Mutex<HashMap<String, (Instant, Arc<ModelCard>)>>,
}

impl Models {
    /// In a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::new(HashMap::new()) }
    }

    /// The current card of a model, or that of `name@digest`; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails or the card cannot be read.
    pub async fn card(&self, name: &str) -> Result<Option<Arc<ModelCard>>, HeaderError> {
        let key = match name.split_once('@') {
            None if ModelCard::is_name(name) => keys::model(name),
            Some((name, digest)) if ModelCard::is_name(name) && is_sha256(digest) => {
                keys::model_of(name, digest)
            }
            _ => return Ok(None),
        };
        let kept = |at: &Instant| at.elapsed() < KEPT;
        if let Some((at, card)) = self.lock().get(name)
            && kept(at)
        {
            return Ok(Some(card.clone()));
        }
        let found = header::document::<ModelCard>(&*self.store, &key).await?;
        let Some((card, _)) = found else { return Ok(None) };
        let card = Arc::new(card);
        let mut lock = self.lock();
        if lock.len() >= KEPT_MAX {
            lock.clear();
        }
        lock.insert(name.to_owned(), (Instant::now(), card.clone()));
        Ok(Some(card))
    }

    /// Names of all models, sorted; of some that are only half pushed, too.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(keys::MODELS_PREFIX, after.as_deref(), true).await?;
            let name = |key: &String| {
                key.strip_prefix(keys::MODELS_PREFIX)?.strip_suffix('/').map(str::to_owned)
            };
            names.extend(page.keys.iter().filter_map(name));
            match page.keys.last() {
                Some(last) if page.more && names.len() < LISTED_MAX => {
                    after = Some(last.clone());
                }
                _ => return Ok(names),
            }
        }
    }

    /// All current cards, by name.
    ///
    /// # Errors
    /// If the store fails or a card cannot be read.
    pub async fn list(&self) -> Result<Vec<ModelCard>, HeaderError> {
        let names = self.names().await?;
        let cards: Vec<Option<Arc<ModelCard>>> = stream::iter(names)
            .map(|name| async move { self.card(&name).await })
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(cards.into_iter().flatten().map(|card| (*card).clone()).collect())
    }

    /// Length of a file that is there.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn file(&self, name: &str, sha256: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.store.head(&keys::model_file(name, sha256)).await?.map(|head| head.bytes))
    }

    /// Stores a file whose hash was checked.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn put_file(&self, name: &str, sha256: &str, path: &Path) -> Result<(), StoreError> {
        self.store.put_file(&keys::model_file(name, sha256), path).await
    }

    /// Makes a card the current one of its model, once all its files are there.
    ///
    /// # Errors
    /// See [`PushError`].
    pub async fn push(&self, name: &str, card: &ModelCard) -> Result<(), PushError> {
        check(name, card)?;
        let missing = self.missing(card).await?;
        if let Some(first) = missing.first() {
            let count = missing.len();
            return Err(PushError::Card(fault(
                "files_missing",
                format!("{count} of its files are not there, or cut: `{first}`"),
                format!("Put each file to /v1/models/{name}/files/SHA256 first."),
            )));
        }
        let body = header::json(card);
        // Jobs name a digest, so that card is written first and never changes.
        let by_digest = keys::model_of(name, &card.digest);
        self.store.put(&by_digest, body.clone(), Condition::Always).await?;
        self.store.put(&keys::model(name), body, Condition::Always).await?;
        self.lock().remove(name);
        Ok(())
    }

    /// Paths of files that are not there with their full length.
    async fn missing(&self, card: &ModelCard) -> Result<Vec<String>, StoreError> {
        let files: Vec<_> = card.files.clone().into_iter().collect();
        let heads = stream::iter(files).map(|(path, file)| async move {
            let there = self.file(&card.name, &file.sha256).await?;
            Ok::<_, StoreError>((there != Some(file.bytes)).then_some(path))
        });
        let missing: Vec<Option<String>> = heads.buffered(AT_A_TIME).try_collect().await?;
        Ok(missing.into_iter().flatten().collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Arc<ModelCard>)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault(code: &'static str, message: String, remedy: impl Into<String>) -> CardFault {
    CardFault { code, message, remedy: remedy.into() }
}

/// Whether a text is a SHA-256 as keys have it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a card can be used at all.
///
/// # Errors
/// What is wrong with it.
pub fn check(name: &str, card: &ModelCard) -> Result<(), CardFault> {
    if card.v != VERSION {
        let message = format!("the card is of version {}, not {VERSION}", card.v);
        return Err(fault("version", message, "Push it with an `excite` of this version."));
    }
    if !ModelCard::is_name(name) {
        let remedy = "Use letters, digits, `.`, `_` and `-`.";
        return Err(fault("model_name", format!("`{name}` cannot name a model"), remedy));
    }
    if card.name != name {
        let message = format!("the card names `{}`, the address `{name}`", card.name);
        return Err(fault("model_name", message, "Use one name."));
    }
    if !ModelCard::is_name(&card.class) {
        let remedy = "Use letters, digits, `.`, `_` and `-`.";
        return Err(fault("class", format!("`{}` cannot name a class", card.class), remedy));
    }
    if card.files.is_empty() || card.files.len() > limits::MODEL_FILES_MAX {
        let message = format!("it has {} files", card.files.len());
        let remedy = format!("List 1 to {} files.", limits::MODEL_FILES_MAX);
        return Err(fault("files", message, remedy));
    }
    for (path, file) in &card.files {
        if !ModelCard::is_path(path) || !is_sha256(&file.sha256) {
            let message = format!("`{path}` is no path inside of the model, or has no SHA-256");
            return Err(fault("files", message, "Use relative paths and 64 hexadecimal digits."));
        }
        if file.bytes > limits::MODEL_FILE_BYTES_MAX {
            let message = format!("`{path}` has {} bytes", file.bytes);
            let remedy = format!("Use files of at most {} bytes.", limits::MODEL_FILE_BYTES_MAX);
            return Err(fault("files", message, remedy));
        }
    }
    let digest = ModelCard::digest_of(&card.files);
    if card.digest != digest {
        let message = format!("its digest is {}, that of its files {digest}", card.digest);
        return Err(fault("digest", message, "Make the card anew with `excite model push`."));
    }
    if card.facts.name != card.name && card.facts.name != card.full_name() {
        let message = format!("its facts are of `{}`", card.facts.name);
        return Err(fault("model_name", message, "Use one name."));
    }
    check_facts(&card.facts)
}

/// Whether jobs can be checked against the facts: no size would be right for a job otherwise.
fn check_facts(facts: &ModelFacts) -> Result<(), CardFault> {
    let sides = facts.side_min..=limits::SIDE_MAX;
    for (field, value, known) in [
        ("size_multiple", facts.size_multiple, 1..=limits::SIDE_MAX),
        ("side_min", facts.side_min, 1..=limits::SIDE_MAX),
        ("width", facts.width, sides.clone()),
        ("height", facts.height, sides),
        ("train_timesteps", facts.train_timesteps, 2..=TIMESTEPS_MAX),
    ] {
        if !known.contains(&value) {
            let message = format!("`facts.{field}` is {value}");
            let remedy = format!("Set it to {} to {}.", known.start(), known.end());
            return Err(fault("facts", message, remedy));
        }
    }
    Ok(())
}
