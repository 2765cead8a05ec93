//! CPU time and memory of a process, the broker's or our own, from `/proc` (Linux).

use std::fs;

/// Ticks of `/proc/PID/stat` a second: 100 on every machine that Linux runs on today (USER_HZ).
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Seconds, user and system, of all threads, to a hundredth.
    pub(super) cpu: f64,
    /// Bytes in memory.
    pub(super) resident: u64,
    /// The most that it ever was.
    pub(super) resident_max: u64,
}

/// Of the process with this number.
pub(super) fn usage(pid: u32) -> Result<Usage, String> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}; is --pid the broker's?"))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    parse(&stat, &status).ok_or_else(|| format!("/proc/{pid}/stat is not what Linux writes"))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name of the process is in brackets and may have brackets and blanks.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Usage {
        cpu: (ticks(11)? + ticks(12)?) / TICKS,
        resident: bytes("VmRSS:").unwrap_or(0), // a process that has just ended has none
        resident_max: bytes("VmHWM:").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_blanks_shift_no_field() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 200";
        let status = "Name:\ta) b (c\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(
            parse(stat, status),
            Some(Usage {
                cpu: 3.0,
                resident: 1 << 20,
                resident_max: 2 << 20
            })
        );
        assert_eq!(parse("12 (a) S 1", status), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_process_has_memory() {
        assert!(usage(std::process::id()).unwrap().resident > 0);
        assert!(usage(u32::MAX).unwrap_err().contains("--pid"));
    }
}
