//! What the report and the plan say of the machine.

use std::fs;

/// Rows of (what, value).
pub fn describe() -> Vec<(String, String)> {
    let mut rows = vec![
        ("Diptych".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("system".to_string(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
    ];
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if let Some(name) = cpu.lines().find_map(|line| line.strip_prefix("model name")) {
        rows.push(("processor".into(), name.trim_start_matches([' ', '\t', ':']).to_string()));
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    rows.push(("cores".into(), cores.to_string()));
    if let Some(total) = memory("MemTotal") {
        rows.push(("memory".into(), bytes(total)));
    }
    rows
}

/// Bytes that programs can still have, where the system tells.
pub fn available_memory() -> Option<u64> {
    memory("MemAvailable")
}

fn memory(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A number of bytes for people.
pub fn bytes(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.1} GB", n / 1e9),
        n => format!("{:.0} MB", (n / 1e6).max(1.0)),
    }
}

/// A time for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{:.0} s", s.max(1.0)),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// A whole number with separators.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(bytes(1_500_000_000), "1.5 GB");
        assert_eq!(duration(300.0), "5 min");
    }
}
