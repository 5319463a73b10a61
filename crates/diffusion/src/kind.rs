//! The kind of machine: the same job gives the same bytes on machines of one kind.

/// That of this machine's CPU; a model on a GPU has another ([`crate::Compute::kind`]).
///
/// For example `cpu-avx512-f32`: device, vector instructions that the GEMM kernels find at run
/// time, and number format.
pub fn kind() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "cpu-avx512-f32";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return "cpu-avx2-f32";
        }
    }
    if cfg!(target_arch = "aarch64") { "cpu-neon-f32" } else { "cpu-plain-f32" }
}
