//! Which vector instructions the kernels use: found when the program runs, or asked for.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use pulp::{Scalar, Simd, WithSimd};

/// Asks for less than the machine has.
const VARIABLE: &str = "EXCITE_INSTRUCTIONS";

/// A set of vector instructions, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 16 numbers at a time (x86-64-v4).
    Avx512,
    /// 8 numbers at a time, fused multiply-add (x86-64-v3).
    Avx2,
    /// 4 numbers at a time, fused multiply-add (64-bit ARM).
    Neon,
    /// What every processor of the architecture has.
    Plain,
}

/// What was asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionsError(String);

impl fmt::Display for InstructionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InstructionsError {}

impl Instructions {
    const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Plain];

    /// Those that this machine has, best first; the last one is [`Instructions::Plain`].
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// What to use: the best, or what the environment variable `EXCITE_INSTRUCTIONS` asks for.
    ///
    /// # Errors
    /// If the variable names no set of instructions, or one that this machine lacks.
    pub fn choose() -> Result<Self, InstructionsError> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => name.parse(),
            _ => Ok(Self::best()),
        }
    }

    /// The name in `EXCITE_INSTRUCTIONS` and in kinds of machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Plain => "plain",
        }
    }

    fn best() -> Self {
        Self::available().next().unwrap_or(Self::Plain)
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::is_available(),
            Self::Plain => true,
            #[allow(unreachable_patterns, reason = "on some architecture each is reached")]
            _ => false,
        }
    }

    /// Runs `op` compiled for these instructions.
    #[inline(always)]
    pub(crate) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => match pulp::x86::V4::try_new() {
                Some(simd) => Simd::vectorize(simd, op),
                None => Simd::vectorize(Scalar, op),
            },
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => match pulp::x86::V3::try_new() {
                Some(simd) => Simd::vectorize(simd, op),
                None => Simd::vectorize(Scalar, op),
            },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => match pulp::aarch64::Neon::try_new() {
                Some(simd) => Simd::vectorize(simd, op),
                None => Simd::vectorize(Scalar, op),
            },
            _ => Simd::vectorize(Scalar, op),
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Instructions {
    type Err = InstructionsError;

    fn from_str(name: &str) -> Result<Self, InstructionsError> {
        let available: Vec<&str> = Self::available().map(Self::name).collect();
        let available = available.join(", ");
        let named = Self::ALL.into_iter().find(|set| set.name() == name);
        match named {
            Some(set) if set.is_available() => Ok(set),
            Some(_) => Err(InstructionsError(format!(
                "{VARIABLE} is `{name}`, which this machine lacks; it has: {available}"
            ))),
            None => Err(InstructionsError(format!(
                "{VARIABLE} is `{name}`, which names no instructions; this machine has: {available}"
            ))),
        }
    }
}

/// What this process uses, decided at the first call. A program that wants to report a wrong
/// `EXCITE_INSTRUCTIONS` asks [`Instructions::choose`] first; here the best is taken then.
pub fn instructions() -> Instructions {
    static CHOSEN: OnceLock<Instructions> = OnceLock::new();
    *CHOSEN.get_or_init(|| Instructions::choose().unwrap_or_else(|_| Instructions::best()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood_and_what_is_missing_is_named() {
        for set in Instructions::available() {
            assert_eq!(set.name().parse(), Ok(set));
        }
        assert_eq!(Instructions::available().last(), Some(Instructions::Plain));
        let error = "sse9".parse::<Instructions>().unwrap_err().to_string();
        assert!(error.contains("`sse9`") && error.contains("plain"), "{error}");
        let lacking = Instructions::ALL.into_iter().find(|set| !set.is_available()).unwrap();
        let error = lacking.name().parse::<Instructions>().unwrap_err().to_string();
        assert!(error.contains("this machine lacks"), "{error}");
    }
}
