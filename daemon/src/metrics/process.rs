//! The process as Prometheus' client libraries show it (prometheus.io, "Writing client libraries", process metrics).

use std::{fs, time::Duration};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeVal,
};

use super::Page;

/// Writes what the system knows of this process, which began at `started`, a time since 1970. What the system does not
/// tell is left out.
pub fn write_process(page: &mut Page, started: Duration) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let used = time(usage.user_time()) + time(usage.system_time());
        page.counters("process_cpu_seconds_total", "CPU time that was used.").sample(&[], used.as_secs_f64());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, help, field) in [
        ("process_resident_memory_bytes", "Memory in RAM.", "VmRSS"),
        ("process_virtual_memory_bytes", "Address space.", "VmSize"),
    ] {
        if let Some(bytes) = field_bytes(&status, field) {
            page.gauges(name, help).sample(&[], bytes);
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // Without the one that reads the directory.
        let open = entries.count().saturating_sub(1);
        page.gauges("process_open_fds", "Open descriptors.").sample(&[], open);
    }
    if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        page.gauges("process_max_fds", "The most descriptors that may be open.").sample(&[], most);
    }
    page.gauges("process_start_time_seconds", "When it was started, in Unix time.")
        .sample(&[], started.as_secs_f64());
}

/// A field of `/proc/self/status`, where sizes are in KiB (proc(5)).
fn field_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn time(time: TimeVal) -> Duration {
    let (seconds, micros) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_usec()));
    Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let mut page = Page::default();
        write_process(&mut page, Duration::from_millis(1_500));
        let text = page.into_text();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(value.unwrap() > 0.0, "{name} in {text}");
        }
        assert!(text.ends_with("process_start_time_seconds 1.5\n"), "{text}");
    }

    #[test]
    fn a_size_is_read_to_its_unit() {
        let status = "VmSizeX:\t1 kB\nVmSize:\t  20 kB\nThreads:\t4\n";
        assert_eq!(field_bytes(status, "VmSize"), Some(20_480));
        assert_eq!(field_bytes(status, "Threads"), None, "no unit, no size");
    }
}
