//! Models by name and digest: from the program, the directory of models, or the store.
//!
//! A model is what its digest says or it is not loaded. Blocks, so it runs on the compute thread or
//! a blocking one. Not here: what stays in memory (`cache`), fetching (`fetch`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use excite_diffusion::{BUNDLED, Compute, Folder, Model, bundled};
use excite_jobs::store::{Store, StoreError};
use excite_jobs::{Class, Failure, ModelCard};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::cache::Cache;
use crate::fetch::{FetchError, Fetcher};
use crate::metrics::{Metrics, Stage};
use crate::pipeline::{chain, is_out_of_memory};

/// Why there is no such model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Nobody has it.
    #[error("there is no model `{name}` here or in the store{hint}")]
    Unknown {
        /// As the job names it.
        name: String,
        /// What was found instead.
        hint: String,
    },
    /// It was found, and cannot be loaded.
    #[error("the model `{name}` cannot be loaded: {}", chain(.source.as_ref()))]
    Load {
        /// As the job names it.
        name: String,
        /// What is wrong with it.
        source: Box<excite_diffusion::Error>,
    },
    /// A folder of this machine cannot be loaded, and the store has no such model.
    #[error(
        "the model `{name}` cannot be loaded from this machine's folder, and the store has none: {}",
        chain(.source.as_ref())
    )]
    Here {
        /// As the job names it.
        name: String,
        /// What is wrong with the folder.
        source: Box<excite_diffusion::Error>,
    },
    /// It cannot be fetched now.
    #[error("the model `{name}` cannot be fetched: {source}")]
    Fetch {
        /// As the job names it.
        name: String,
        /// What is wrong.
        source: FetchError,
    },
}

impl ModelError {
    /// Whether memory was short.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Load { source, .. } if is_out_of_memory(source))
    }

    /// What it means for a job.
    pub fn failure(&self) -> Failure {
        use excite_diffusion::Error as E;
        let (class, code) = match self {
            Self::Unknown { .. } => (Class::Invalid, "unknown_model"),
            // Another machine may have the memory, or another precision.
            Self::Load { source, .. } if is_out_of_memory(source) => {
                (Class::Capacity, source.advice().0)
            }
            Self::Load { source, .. } if matches!(**source, E::WeightOverflow { .. }) => {
                (Class::Transient, source.advice().0)
            }
            // A disk that fails is this machine's; a model that is not one is so everywhere.
            Self::Load { source, .. } if matches!(**source, E::Read { .. } | E::Candle(_)) => {
                (Class::Transient, "model_unreadable")
            }
            Self::Load { source, .. } => (Class::Invalid, source.advice().0),
            // Nobody knows what it would be if it were whole; another machine may have it.
            Self::Here { .. } => (Class::Transient, "model_unreadable"),
            Self::Fetch { source: FetchError::Store(StoreError::Unavailable { .. }), .. } => {
                (Class::Transient, "store")
            }
            Self::Fetch { .. } => (Class::Transient, "model_fetch"),
        };
        Failure::new(class, code, self.to_string())
    }
}

/// Where models come from, and those in memory.
pub struct Models {
    cache: Cache<Model>,
    models_dir: Option<PathBuf>,
    compute: Compute,
    fetcher: Fetcher,
    metrics: Metrics,
    /// `name@digest` of the bundled model, once it was loaded.
    bundled: OnceLock<String>,
    /// Folders whose digest was found to be another than a job names: hashing takes a second a
    /// gigabyte, so it is not done for each of its jobs.
    others: Mutex<BTreeSet<(PathBuf, String)>>,
}

/// How models are found and kept.
#[derive(Debug, Clone)]
pub struct ModelsOptions {
    /// What they compute on.
    pub compute: Compute,
    /// A directory of model folders.
    pub models_dir: Option<PathBuf>,
    /// Where models from the store are kept.
    pub cache_dir: PathBuf,
    /// Memory for models.
    pub bytes: u64,
    /// `name@digest` of those that are never given up.
    pub pinned: Vec<String>,
}

impl Models {
    /// No model is loaded yet. `runtime` is where the store is asked.
    pub fn new(
        options: ModelsOptions,
        store: Arc<dyn Store>,
        runtime: Handle,
        metrics: Metrics,
    ) -> Self {
        Self {
            cache: Cache::new(options.bytes, options.pinned, metrics.clone()),
            models_dir: options.models_dir,
            compute: options.compute,
            fetcher: Fetcher::new(options.cache_dir, store, runtime),
            metrics,
            bundled: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// What they compute on.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The model that a job names.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn get(&self, name: &str) -> Result<Arc<Model>, ModelError> {
        self.cache.get(name, || self.find(name))
    }

    /// The model that is part of the program.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn bundled(&self) -> Result<Arc<Model>, ModelError> {
        if let Some(name) = self.bundled.get() {
            return self.get(name);
        }
        // Its digest is known only once it is loaded.
        let model = self.load(BUNDLED, &bundled())?;
        let name = self.bundled.get_or_init(|| model.name().to_owned()).clone();
        let bytes = model.bytes();
        self.cache.get(&name, || Ok((model, bytes)))
    }

    /// Gives up all models but one; whether there was any.
    pub fn evict_all_but(&self, name: &str) -> bool {
        self.cache.evict_unused(name)
    }

    /// `name@digest` of the models in memory, and their bytes.
    pub fn contents(&self) -> (Vec<String>, u64) {
        self.cache.contents()
    }

    /// The label of a model in metrics: its name, without the digest.
    pub fn label<'a>(&self, name: &'a str) -> &'a str {
        label(name)
    }

    fn find(&self, full: &str) -> Result<(Model, u64), ModelError> {
        let unknown = |hint: String| ModelError::Unknown { name: full.to_owned(), hint };
        let (name, digest) = full.split_once('@').unwrap_or((full, ""));
        if !ModelCard::is_name(name) || digest.is_empty() {
            return Err(unknown("; name it as `name@digest`".into()));
        }
        let (mut hint, mut broken) = (String::new(), None);
        for folder in self.folders(name) {
            match self.try_folder(full, &folder) {
                Ok(Ok(model)) => {
                    let bytes = model.bytes();
                    return Ok((model, bytes));
                }
                Ok(Err(found)) => hint = format!("; here is `{found}`"),
                // The store may have it whole: what is broken here says nothing of the job.
                Err(ModelError::Load { source, .. }) if !is_out_of_memory(&source) => {
                    warn!(wanted = full, error = chain(source.as_ref()), "a folder is broken");
                    broken = Some(ModelError::Here { name: full.to_owned(), source });
                }
                Err(error) => return Err(error),
            }
        }
        let model = match self.fetched(full, name, digest)? {
            Some(model) => model,
            None => return Err(broken.unwrap_or_else(|| unknown(hint))),
        };
        let bytes = model.bytes();
        Ok((model, bytes))
    }

    /// The model as the store has it. What was fetched before and is broken since is fetched anew.
    fn fetched(&self, full: &str, name: &str, digest: &str) -> Result<Option<Model>, ModelError> {
        let failed = |source| ModelError::Fetch { name: full.to_owned(), source };
        let mut mended = false;
        loop {
            let Some(folder) = self.fetcher.fetch(name, digest).map_err(failed)? else {
                return Ok(None);
            };
            let wrong = match self.load(full, &Folder::Directory(folder.clone())) {
                Ok(model) if model.name() == full => return Ok(Some(model)),
                Ok(model) => {
                    let message = format!("it is `{}`", model.name());
                    let file = folder.display().to_string();
                    failed(FetchError::Damaged { file, message })
                }
                Err(error) if error.is_out_of_memory() => return Err(error),
                Err(error) => error,
            };
            // If the files are those of the card, the fault is the model's.
            if mended || !self.fetcher.drop_damaged(name, digest).map_err(failed)? {
                return Err(wrong);
            }
            warn!(model = full, error = %wrong, "a fetched model was damaged; it is fetched anew");
            mended = true;
        }
    }

    fn folders(&self, name: &str) -> Vec<Folder> {
        let local = self.models_dir.as_ref().map(|dir| dir.join(name)).filter(|dir| dir.exists());
        let bundled = (name == BUNDLED).then(bundled);
        bundled.into_iter().chain(local.map(|path| Folder::at(single_file_in(&path)))).collect()
    }

    /// The model of a folder, or what it is instead.
    fn try_folder(&self, full: &str, folder: &Folder) -> Result<Result<Model, String>, ModelError> {
        let place = match folder {
            Folder::Directory(path) | Folder::SingleFile(path) => path.clone(),
            Folder::Embedded { name, .. } => {
                if let Some(found) = self.bundled.get().filter(|found| *found != full) {
                    return Ok(Err(found.clone()));
                }
                PathBuf::from(name)
            }
        };
        let key = (place, full.to_owned());
        let others = || self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others().contains(&key) {
            return Ok(Err(format!("another `{}`", label(full))));
        }
        let model = self.load(full, folder)?;
        if model.name() == full {
            return Ok(Ok(model));
        }
        let found = model.name().to_owned();
        warn!(wanted = full, found, "a folder has another digest than the job names");
        others().insert(key);
        Ok(Err(found))
    }

    fn load(&self, full: &str, folder: &Folder) -> Result<Model, ModelError> {
        let began = Instant::now();
        if let Folder::Directory(path) | Folder::SingleFile(path) = folder {
            self.cache.make_room(bytes_at(path));
        }
        let failed = |source| ModelError::Load { name: full.to_owned(), source: Box::new(source) };
        let model = Model::load_on(folder, &self.compute).map_err(failed)?;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.model_load.observe(seconds);
        self.metrics.stage(Stage::Load, seconds);
        info!(model = model.name(), seconds, bytes = model.bytes(), "a model was loaded");
        Ok(model)
    }
}

/// The name without the digest.
pub(crate) fn label(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// Bytes of the files below, about what a model takes in memory.
fn bytes_at(path: &Path) -> u64 {
    let Ok(found) = std::fs::metadata(path) else { return 0 };
    if found.is_file() {
        return found.len();
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    // A model folder has one level of folders; links are not followed further.
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .map(|path| match std::fs::read_dir(&path) {
            Ok(below) => {
                let sizes = below.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
                sizes.sum()
            }
            Err(_) => std::fs::metadata(&path).map_or(0, |found| found.len()),
        })
        .sum()
}

/// A folder may hold no pipeline, but one file in the original layout.
fn single_file_in(path: &Path) -> PathBuf {
    let is_weights = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors");
    let found = || {
        let entries = std::fs::read_dir(path).ok()?;
        let mut files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_weights);
        let first = files.next()?;
        files.next().is_none().then_some(first)
    };
    let whole = path.join("model_index.json").exists();
    found().filter(|_| !whole).unwrap_or_else(|| path.to_owned())
}
