//! What a run keeps in memory: the file's own pages, its KV, and little else.

#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use support::{handmill, model_path};

const MIB: u64 = 1 << 20;

/// Peak resident memory of `run` on SmolLM2 stays within file + 60 MiB + KV: nothing is copied that can be viewed.
#[test]
fn run_copies_no_weights() {
    let Some(path) = model_path("memory::run_copies_no_weights", "smollm2") else { return };
    let file = fs::metadata(&path).expect("the model").len();
    // 30 layers of keys and values, 3 heads of 64, f16; pages may be allotted ahead.
    let kv = 64 * 30 * 2 * 3 * 64 * 2;
    let mut child = handmill()
        .arg("run")
        .arg(&path)
        .args(["-p", "The capital of France is", "-n", "16", "--threads", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("running the command");
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        peak = peak.max(fs::read_to_string(&status_file).ok().and_then(|s| high_water_mark(&s)).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("waiting for the command") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success(), "run: {status}");
    assert!(peak > file / 2, "only {} MiB seen of a file of {} MiB", peak / MIB, file / MIB);
    let allowed = file + 60 * MIB + kv;
    assert!(peak <= allowed, "peak {} MiB, allowed {} MiB for a file of {}", peak / MIB, allowed / MIB, file / MIB);
    println!("peak {} MiB for a file of {} MiB", peak / MIB, file / MIB);
}

/// Opening reads metadata only. Loose bounds: what it takes on a quiet machine stands in benches.
#[test]
fn opening_is_quick() {
    let Some(path) = model_path("memory::opening_is_quick", "smollm2") else { return };
    let times = (0..5).map(|_| {
        let start = Instant::now();
        let out = handmill().arg("inspect").arg(&path).arg("--json").output().expect("running the command");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        start.elapsed()
    });
    let best = times.min().expect("five runs");
    println!("inspect takes {best:?}");
    assert!(best < Duration::from_secs(1), "inspect takes {best:?}");
}

/// VmHWM of a /proc status file in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}
