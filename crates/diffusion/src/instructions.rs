//! Which vector instructions the layers compute with.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What forces fewer than the machine has.
pub const INSTRUCTIONS_VARIABLE: &str = "EXCITE_INSTRUCTIONS";

/// Vector instructions, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// None of the following.
    Plain,
    /// Those of 64-bit ARM.
    Neon,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512.
    Avx512,
}

impl Instructions {
    /// The best of this machine.
    pub fn of_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            let fma = std::arch::is_x86_feature_detected!("fma");
            if fma && std::arch::is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        if cfg!(target_arch = "aarch64") { Self::Neon } else { Self::Plain }
    }

    /// Whether a machine whose best ones these are has `others` too.
    fn has(self, others: Self) -> bool {
        match others {
            Self::Plain => true,
            Self::Neon => self == Self::Neon,
            Self::Avx2 => matches!(self, Self::Avx2 | Self::Avx512),
            Self::Avx512 => self == Self::Avx512,
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Instructions {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Plain, Self::Neon, Self::Avx2, Self::Avx512];
        all.into_iter().find(|one| one.to_string() == text).ok_or(())
    }
}

/// What the layers compute with: [`INSTRUCTIONS_VARIABLE`], or the best of this machine.
///
/// # Errors
/// If the variable is set to something else, or to what this machine lacks.
pub fn instructions() -> Result<Instructions> {
    let set = std::env::var_os(INSTRUCTIONS_VARIABLE);
    let set = set.map(|value| value.to_string_lossy().into_owned());
    of(set.as_deref(), Instructions::of_machine())
}

fn of(set: Option<&str>, machine: Instructions) -> Result<Instructions> {
    let Some(value) = set else { return Ok(machine) };
    let wrong = match value.parse() {
        Ok(asked) if machine.has(asked) => return Ok(asked),
        Ok(_) => format!("this machine lacks: it has {machine}"),
        Err(()) => "is not known".to_owned(),
    };
    let all = [Instructions::Plain, Instructions::Neon, Instructions::Avx2, Instructions::Avx512];
    let here: Vec<String> =
        all.into_iter().filter(|one| machine.has(*one)).map(|one| format!("`{one}`")).collect();
    let here = here.join(" or ");
    Err(Error::Environment {
        variable: INSTRUCTIONS_VARIABLE,
        value: value.to_owned(),
        wrong,
        remedy: format!(
            "Set {INSTRUCTIONS_VARIABLE} to {here}, or unset it for the best of this machine."
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Instructions::{Avx2, Avx512, Neon, Plain};

    #[test]
    fn fewer_can_be_forced_and_never_what_is_not_there() {
        for (set, machine, want) in [
            (None, Avx512, Some(Avx512)),
            (Some("plain"), Avx512, Some(Plain)),
            (Some("avx2"), Avx512, Some(Avx2)),
            (Some("avx512"), Avx512, Some(Avx512)),
            (Some("avx512"), Avx2, None),
            (Some("avx2"), Plain, None),
            (Some("avx2"), Neon, None),
            (Some("neon"), Avx512, None),
            (Some("plain"), Neon, Some(Plain)),
            (Some("AVX2"), Avx512, None),
            (Some(""), Avx512, None),
        ] {
            assert_eq!(of(set, machine).ok(), want, "{set:?} {machine}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        let error = of(Some("avx512"), Avx2).unwrap_err();
        let want = "`EXCITE_INSTRUCTIONS` is `avx512`, which this machine lacks: it has avx2";
        assert_eq!(error.to_string(), want);
        assert!(error.advice().1.contains("to `plain` or `avx2`,"), "{:?}", error.advice());
        let error = of(Some("sse"), Avx2).unwrap_err();
        assert_eq!(error.to_string(), "`EXCITE_INSTRUCTIONS` is `sse`, which is not known");
    }
}
