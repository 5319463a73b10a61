//! Memory of this machine and of this process, where the system tells (Linux).
//!
//! Not here: memory of other devices, and what is made of the numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// The highest peak before the last [`reset_peak`].
static EARLIER_PEAK: AtomicU64 = AtomicU64::new(0);

/// Bytes that this process had at most, ever.
pub fn peak_bytes() -> Option<u64> {
    Some(peak_since_reset()?.max(EARLIER_PEAK.load(Ordering::Relaxed)))
}

/// Bytes that this process had at most since [`reset_peak`].
pub fn peak_since_reset() -> Option<u64> {
    parse(&read("/proc/self/status")?, "VmHWM:")
}

/// Bytes that this process has.
pub fn resident_bytes() -> Option<u64> {
    parse(&read("/proc/self/status")?, "VmRSS:")
}

/// Measures the peak anew; whether the system can.
pub fn reset_peak() -> bool {
    let Some(peak) = peak_bytes() else { return false };
    EARLIER_PEAK.fetch_max(peak, Ordering::Relaxed);
    // Only the mark is set back; the pages and their flags stay as they are.
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes that the machine has, or the container if that is less.
pub fn total_bytes() -> Option<u64> {
    let machine = parse(&read("/proc/meminfo")?, "MemTotal:")?;
    Some(Group::read().map_or(machine, |group| machine.min(group.most)))
}

/// Bytes that programs can have now, on this machine and in this container.
pub fn available_bytes() -> Option<u64> {
    let machine = parse(&read("/proc/meminfo")?, "MemAvailable:")?;
    Some(Group::read().map_or(machine, |group| machine.min(group.available())))
}

/// The limit of a container (cgroup 2).
struct Group {
    most: u64,
    used: u64,
    /// Pages of files that nobody needs at once: they are given up first.
    idle_files: u64,
}

impl Group {
    /// `None` where there is no limit.
    fn read() -> Option<Self> {
        // A container sees its own group as the root.
        let number = |name: &str| -> Option<u64> {
            read(&format!("/sys/fs/cgroup/{name}"))?.trim().parse().ok()
        };
        let idle = read("/sys/fs/cgroup/memory.stat");
        let idle = idle.and_then(|stat| {
            stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok())
        });
        Some(Self {
            most: number("memory.max")?,
            used: number("memory.current")?,
            idle_files: idle.unwrap_or(0),
        })
    }

    fn available(&self) -> u64 {
        self.most.saturating_sub(self.used.saturating_sub(self.idle_files))
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn parse(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_bytes() {
        let status = "Name:\texcite\nVmPeak:\t  900 kB\nVmHWM:\t   12345 kB\nVmRSS:\t 5 kB\n";
        assert_eq!(parse(status, "VmHWM:"), Some(12_345 * 1024));
        for broken in ["", "VmHWM:", "VmHWM: x kB", "VmHWM: 5", "VmHWM: 99999999999999999999 kB"] {
            assert_eq!(parse(broken, "VmHWM:"), None, "{broken}");
        }
    }

    #[test]
    fn a_group_has_what_it_does_not_use_and_what_it_can_give_up() {
        let group = |most, used, idle_files| Group { most, used, idle_files }.available();
        assert_eq!(group(100, 60, 0), 40);
        assert_eq!(group(100, 60, 25), 65);
        assert_eq!(group(100, 10, 25), 100);
        assert_eq!(group(100, 120, 0), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_peak_is_measured_anew_and_the_highest_is_kept() {
        const BLOCK: usize = 64 << 20;
        let (total, available) = (total_bytes().unwrap(), available_bytes().unwrap());
        assert!(available > 1 << 20 && available <= total, "{available} of {total}");
        let block = vec![1u8; BLOCK];
        assert!(std::hint::black_box(&block).iter().all(|byte| *byte == 1));
        let high = peak_bytes().unwrap();
        drop(block);
        if reset_peak() {
            let low = peak_since_reset().unwrap();
            assert!(low + (BLOCK as u64) / 2 < high, "{low} after {high}");
            assert!(low >= resident_bytes().unwrap() / 2);
        }
        // The kernel counts a core's newest pages apart, and leaves them out.
        let kept = peak_bytes().unwrap();
        assert!(kept + (1 << 20) > high, "{kept} after {high}");
    }
}
