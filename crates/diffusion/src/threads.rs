//! How many threads a pass computes with, and why so many.
//!
//! `rayon` and candle read `RAYON_NUM_THREADS` when the first pass begins, and take a value that is
//! no number for none at all. So it is looked at here before.

use crate::error::{Error, Result};

/// What sets the number.
pub const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";
/// Most threads: beyond that a typing error is likelier than a machine.
pub const THREADS_MAX: usize = 1024;

/// Threads of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// How many.
    pub count: usize,
    /// Why.
    pub from: ThreadsFrom,
}

/// Where a number of threads comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadsFrom {
    /// [`THREADS_VARIABLE`], which `--threads` sets too.
    Variable,
    /// One a core of the machine.
    Cores,
    /// One a core that this process may use, of so many: a container's CPU limit, or an affinity.
    Limit {
        /// Cores of the machine.
        of: usize,
    },
}

/// The number of threads.
///
/// # Errors
/// If [`THREADS_VARIABLE`] is set to what is no number, or to more than [`THREADS_MAX`].
pub fn threads() -> Result<Threads> {
    let set = std::env::var_os(THREADS_VARIABLE);
    let set = set.map(|value| value.to_string_lossy().into_owned());
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    of(set.as_deref(), usable, cores())
}

fn of(set: Option<&str>, usable: usize, cores: Option<usize>) -> Result<Threads> {
    match set.map(str::parse::<usize>) {
        // Zero stands for the default, as for all programs that use rayon.
        None | Some(Ok(0)) => {
            let limited = cores.filter(|cores| *cores > usable);
            let from = limited.map_or(ThreadsFrom::Cores, |of| ThreadsFrom::Limit { of });
            Ok(Threads { count: usable, from })
        }
        Some(Ok(count)) if count <= THREADS_MAX => {
            Ok(Threads { count, from: ThreadsFrom::Variable })
        }
        Some(_) => Err(Error::Environment {
            variable: THREADS_VARIABLE,
            value: set.unwrap_or_default().to_owned(),
            wrong: "is no number of threads".into(),
            remedy: format!(
                "Set {THREADS_VARIABLE} to 1..={THREADS_MAX}, or unset it for one a core."
            ),
        }),
    }
}

/// Cores of the machine that are there, where the system tells (Linux).
fn cores() -> Option<usize> {
    count(std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim())
}

/// Of a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_before_the_limit_before_the_cores() {
        let threads = |count, from| Threads { count, from };
        for (set, usable, cores, want) in [
            (Some("3"), 2, Some(8), threads(3, ThreadsFrom::Variable)),
            (Some("1024"), 2, None, threads(1024, ThreadsFrom::Variable)),
            (None, 2, Some(8), threads(2, ThreadsFrom::Limit { of: 8 })),
            (Some("0"), 8, Some(8), threads(8, ThreadsFrom::Cores)),
            (None, 8, Some(8), threads(8, ThreadsFrom::Cores)),
            (None, 8, None, threads(8, ThreadsFrom::Cores)),
        ] {
            assert_eq!(of(set, usable, cores).unwrap(), want, "{set:?} {usable} {cores:?}");
        }
    }

    #[test]
    fn what_is_no_number_of_threads_is_refused_by_name() {
        for value in ["", "two", "-1", "1.5", "1025", "99999999999999999999", " 2"] {
            let error = of(Some(value), 2, None).unwrap_err();
            let want = format!("RAYON_NUM_THREADS is `{value}`, which is no number of threads");
            assert_eq!(error.to_string(), want);
            assert!(error.advice().1.contains("1..=1024"), "{error}");
        }
    }

    #[test]
    fn lists_of_cores_are_counted() {
        for (list, want) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None)]
        {
            assert_eq!(count(list), want, "{list}");
        }
    }
}
