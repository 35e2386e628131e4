//! Resident memory of this process, by Linux's account.

use std::fs;

/// What `/proc/self/status` tells.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Resident now.
    Now,
    /// The highest since the process began, or since [`reset_peak`].
    Peak,
}

impl Memory {
    /// In bytes; nothing where there is no such file.
    pub(crate) fn bytes(self) -> Option<u64> {
        let field = match self {
            Self::Now => "VmRSS:",
            Self::Peak => "VmHWM:",
        };
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }
}

/// Makes [`Memory::Peak`] begin anew, so that what building the model took does not count as the step's.
pub(crate) fn reset_peak() {
    // Where it is refused, the peak stays that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
