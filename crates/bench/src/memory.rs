//! How much memory a process holds, where the system tells (Linux), and how much a run needs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use candle_core::Device;
use diptych_kernels::{CountingAllocator, device};

/// Bytes that live at most during `run` above what lived before, on the device; `None` where it does not tell.
pub(crate) fn live_peak(device: &Device, run: impl FnOnce() -> Result<()>) -> Result<Option<u64>> {
    if device.is_cuda() {
        device.synchronize()?;
        let before = device::reset_peak_memory(device)?;
        run()?;
        device.synchronize()?;
        let peak = device::peak_memory(device)?;
        return Ok(peak.zip(before).map(|(peak, before)| peak.saturating_sub(before)));
    }
    let before = CountingAllocator::reset_peak();
    run()?;
    Ok(Some(CountingAllocator::peak().saturating_sub(before) as u64))
}

/// Bytes of physical memory that this process holds now.
pub(crate) fn resident() -> Option<u64> {
    status("VmRSS:")
}

/// The most that it held since [`reset_peak`], or since it began.
pub(crate) fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// Lets the peak begin again at what is held now.
pub(crate) fn reset_peak() {
    // 5 resets the high-water mark (proc(5)); where it is not allowed the peak stays the process's whole one.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Bytes of physical memory of this process that belong to no file.
pub(crate) fn anonymous() -> Option<u64> {
    status("RssAnon:")
}

/// The most of them during `run`, by a look every few milliseconds.
pub(crate) fn anonymous_peak(run: impl FnOnce() -> Result<()>) -> Result<Option<u64>> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = anonymous();
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
                most = most.max(anonymous());
            }
            most
        });
        let ran = run();
        done.store(true, Ordering::Relaxed);
        let most = watcher.join().map_err(|_| anyhow!("the thread that watches memory panicked"))?;
        ran.map(|()| most)
    })
}

fn status(key: &str) -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?, key)
}

/// The value of a line such as `VmHWM:    1234 kB`.
fn parse(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_status_file_are_read() {
        let text = "Name:\tbench\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((parse(text, "VmHWM:"), parse(text, "VmRSS:")), (Some(2 << 20), Some(1 << 20)));
        assert_eq!(parse(text, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_touched_is_seen() {
        reset_peak();
        let before = peak_resident().unwrap();
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(peak_resident().unwrap() >= before + (60 << 20));
        let before = anonymous().unwrap();
        let peak = anonymous_peak(|| {
            let held = std::hint::black_box(vec![1u8; 64 << 20]);
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
            Ok(())
        });
        assert!(peak.unwrap().unwrap() >= before + (60 << 20));
    }
}
