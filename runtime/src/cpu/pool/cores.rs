//! Counts the cores that this process may use.

/// Cores with at least one allowed thread, by Linux's topology files; `None` where they cannot be read.
pub(super) fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = Vec::new();
    for cpu in cpu_list(allowed)? {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let first = cpu_list(&std::fs::read_to_string(path).ok()?)?.into_iter().min()?;
        if !cores.contains(&first) {
            cores.push(first);
        }
    }
    Some(cores.len())
}

/// The CPUs of a list such as `0-3,8`.
fn cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_linux_writes_them() {
        assert_eq!(cpu_list("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list(""), None);
    }
}
