//! The kind of machine: the same job gives the same bytes on machines of one kind.

use std::sync::OnceLock;

use excite_kernels::{Instructions, instructions};

/// For example `cpu-avx512-f32`: device, vector instructions, and number format. Where
/// `EXCITE_INSTRUCTIONS` asks for less than the processor has, both are named, as in
/// `cpu-avx512-f32-plain`, since the text encoder's library goes on to use what it finds.
pub fn kind() -> &'static str {
    static KIND: OnceLock<String> = OnceLock::new();
    KIND.get_or_init(|| {
        let best = Instructions::available().next().unwrap_or(Instructions::Plain);
        match instructions() {
            used if used == best => format!("cpu-{best}-f32"),
            used => format!("cpu-{best}-f32-{used}"),
        }
    })
}
