//! How much memory this process had at most, and how much there is.

/// Bytes, where the system tells (Linux).
pub(crate) fn peak_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Bytes that the machine has, where the system tells (Linux).
pub(crate) fn total_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_bytes() {
        let status = "Name:\texcite\nVmPeak:\t  900 kB\nVmHWM:\t   12345 kB\nVmRSS:\t 5 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(12_345 * 1024));
        for broken in ["", "VmHWM:", "VmHWM: x kB", "VmHWM: 5", "VmHWM: 99999999999999999999 kB"] {
            assert_eq!(parse(broken, "VmHWM:"), None, "{broken}");
        }
        if cfg!(target_os = "linux") {
            assert!(peak_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
