//! Counts the hardware threads and the cores that this process may use.

use std::{num::NonZeroUsize, thread};

/// Hardware threads that this process may use: affinity and quota as the operating system reports them. At least 1.
pub(super) fn logical() -> usize {
    let reported = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    system::logical(reported).max(1)
}

/// Cores with at least one such thread; `None` where the system does not tell which threads share a core.
pub(super) fn physical() -> Option<usize> {
    system::physical()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    /// The standard library asks for affinity and quota.
    pub fn logical(reported: usize) -> usize {
        reported
    }

    /// Reads the topology files.
    pub fn physical() -> Option<usize> {
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

    #[test]
    fn cpu_lists_are_read_as_linux_writes_them() {
        assert_eq!(cpu_list("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list(""), None);
    }
}

#[cfg(windows)]
mod system {
    use super::{Core, cores_of, quota};
    use std::{ffi::c_void, ptr};

    const RELATION_PROCESSOR_CORE: u32 = 0;
    /// `JobObjectCpuRateControlInformation`.
    const JOB_CPU_RATE: u32 = 15;

    /// The standard library counts the processors of the machine, whatever this process may use of them.
    pub fn logical(reported: usize) -> usize {
        let Some(all) = cores() else { return reported };
        let threads = |cores: &[Core]| cores.iter().map(Core::threads).sum::<usize>();
        let most = job_rate().map_or(usize::MAX, |rate| quota(rate, threads(&all)));
        threads(&allowed(all)).min(most)
    }

    pub fn physical() -> Option<usize> {
        Some(allowed(cores()?).len())
    }

    /// All cores of the machine.
    fn cores() -> Option<Vec<Core>> {
        let mut len = 0;
        // SAFETY: without room for it nothing is written but the length that it takes.
        unsafe { GetLogicalProcessorInformationEx(RELATION_PROCESSOR_CORE, ptr::null_mut(), &mut len) };
        // Words, which the records are aligned to.
        let mut records = vec![0u64; (len as usize).div_ceil(8)];
        // SAFETY: there is room for `len` bytes, and no more are written.
        let told =
            unsafe { GetLogicalProcessorInformationEx(RELATION_PROCESSOR_CORE, records.as_mut_ptr().cast(), &mut len) };
        let bytes: &[u8] = bytemuck::cast_slice(&records);
        (told != 0).then(|| cores_of(bytes.get(..len as usize).unwrap_or(bytes))).filter(|cores| !cores.is_empty())
    }

    /// The cores with the threads that the process's affinity leaves.
    fn allowed(mut cores: Vec<Core>) -> Vec<Core> {
        let (mut ours, mut machine, mut group, mut groups) = (0, 0, 0, 1);
        // SAFETY: the handle of this process is always valid, and each pointer is to a variable of the type asked for;
        // `groups` says that there is room for one group.
        let told = unsafe {
            let process = GetCurrentProcess();
            GetProcessAffinityMask(process, &mut ours, &mut machine) != 0
                && GetProcessGroupAffinity(process, &mut groups, &mut group) != 0
        };
        // A process in several groups of processors has no mask: it may use all of them. One in a single group may use
        // no more than 64, whatever the machine has.
        if told && ours != 0 {
            cores.iter_mut().for_each(|core| core.keep(group, ours as u64));
            cores.retain(|core| core.threads() > 0);
        }
        cores
    }

    /// The hard limit of this process's job (a container's, for one) in parts of 10,000 of all processors.
    fn job_rate() -> Option<u32> {
        const ENABLED_HARD_CAP: u32 = 1 | 4;
        let mut control = [0u32; 2];
        let len = size_of_val(&control) as u32;
        // SAFETY: there is room for `len` bytes; no handle means the job of this process.
        let told = unsafe {
            QueryInformationJobObject(ptr::null_mut(), JOB_CPU_RATE, control.as_mut_ptr().cast(), len, ptr::null_mut())
        };
        let [flags, rate] = control;
        (told != 0 && flags & ENABLED_HARD_CAP == ENABLED_HARD_CAP && rate > 0).then_some(rate)
    }

    // The standard library links kernel32 already; a crate for five functions would count with embedders.
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetLogicalProcessorInformationEx(relation: u32, records: *mut c_void, len: *mut u32) -> i32;
        fn GetCurrentProcess() -> *mut c_void;
        fn GetProcessAffinityMask(process: *mut c_void, process_mask: *mut usize, system_mask: *mut usize) -> i32;
        fn GetProcessGroupAffinity(process: *mut c_void, count: *mut u16, groups: *mut u16) -> i32;
        fn QueryInformationJobObject(
            job: *mut c_void,
            class: u32,
            info: *mut c_void,
            len: u32,
            returned: *mut u32,
        ) -> i32;
    }

    #[test]
    fn windows_tells_its_cores() {
        let cores = physical().unwrap();
        assert!((1..=super::logical()).contains(&cores), "{cores} cores");
    }
}

#[cfg(target_os = "macos")]
mod system {
    use std::{ffi::CStr, ptr};

    /// There are no affinities or quotas.
    pub fn logical(reported: usize) -> usize {
        reported
    }

    /// The fast cores where there are two kinds: a phase of the pool ends with its last item, and an efficiency core
    /// takes about three times as long for one.
    pub fn physical() -> Option<usize> {
        number(c"hw.perflevel0.physicalcpu").or_else(|| number(c"hw.physicalcpu"))
    }

    fn number(name: &CStr) -> Option<usize> {
        let mut value = 0i32;
        let mut len = size_of_val(&value);
        // SAFETY: the name ends with a zero, and there is room for `len` bytes.
        let told = unsafe {
            libc::sysctlbyname(name.as_ptr(), ptr::from_mut(&mut value).cast(), &mut len, ptr::null_mut(), 0)
        };
        if told == 0 && len == size_of_val(&value) { usize::try_from(value).ok().filter(|n| *n > 0) } else { None }
    }
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "macos")))]
mod system {
    pub fn logical(reported: usize) -> usize {
        reported
    }

    pub fn physical() -> Option<usize> {
        None
    }
}

/// A core as Windows describes it: its threads as bits, by group of at most 64 processors.
#[cfg(any(windows, test))]
#[derive(Debug, PartialEq)]
struct Core(Vec<(u16, u64)>);

#[cfg(any(windows, test))]
impl Core {
    fn threads(&self) -> usize {
        self.0.iter().map(|(_, mask)| mask.count_ones() as usize).sum()
    }

    /// Leaves the threads of `group` that `mask` has.
    fn keep(&mut self, group: u16, mask: u64) {
        for (of, threads) in &mut self.0 {
            *threads &= if *of == group { mask } else { 0 };
        }
    }
}

/// Reads records of `SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX`, as far as they are whole.
///
/// ```text
/// u32 relation, u32 bytes of the record, u8 flags, u8 efficiency class, 20 bytes, u16 groups,
/// then for each group: usize mask, u16 number, 6 bytes
/// ```
#[cfg(any(windows, test))]
fn cores_of(mut records: &[u8]) -> Vec<Core> {
    const WORD: usize = size_of::<usize>();
    const GROUP: usize = WORD + 8;
    let u16_at = |bytes: &[u8], at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let mut cores = Vec::new();
    while let Some((_, rest)) = records.split_at_checked(4)
        && let Some(size) = rest.first_chunk().map(|size| u32::from_le_bytes(*size) as usize)
        && let Some((record, next)) = records.split_at_checked(size.max(8))
    {
        let groups = u16_at(record, 30).unwrap_or(0).into();
        let masks = record.get(32..).unwrap_or_default().chunks_exact(GROUP).take(groups);
        let threads = masks.filter_map(|group| {
            let mask = usize::from_le_bytes(group[..WORD].try_into().ok()?) as u64;
            Some((u16_at(group, WORD)?, mask))
        });
        cores.push(Core(threads.collect()));
        records = next;
    }
    cores
}

/// Threads that `rate` parts of 10,000 of `all` processors keep busy.
#[cfg(any(windows, test))]
fn quota(rate: u32, all: usize) -> usize {
    (all.saturating_mul(rate as usize) / 10_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of a core with threads in these groups.
    fn record(groups: &[(u16, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; 32];
        bytes[30..].copy_from_slice(&(groups.len() as u16).to_le_bytes());
        for (number, mask) in groups {
            bytes.extend(mask.to_le_bytes());
            bytes.extend(number.to_le_bytes());
            bytes.extend([0; 6]);
        }
        let len = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    #[test]
    fn cores_are_read_as_windows_describes_them() {
        let records = [record(&[(0, 0b11)]), record(&[(0, 0b100)]), record(&[(1, 0b11)])].concat();
        let mut cores = cores_of(&records);
        assert_eq!(cores, [Core(vec![(0, 3)]), Core(vec![(0, 4)]), Core(vec![(1, 3)])]);
        assert_eq!(cores.iter().map(Core::threads).sum::<usize>(), 5);
        // The affinity leaves one thread of the first core and none of the others.
        cores.iter_mut().for_each(|core| core.keep(0, 0b1010));
        assert_eq!(cores.iter().map(Core::threads).collect::<Vec<_>>(), [1, 0, 0]);
        // Damaged lists end early.
        for n in 0..records.len() {
            assert!(cores_of(&records[..n]).len() < 3, "{n} bytes");
        }
        assert_eq!(cores_of(&[0; 64]).iter().map(Core::threads).sum::<usize>(), 0);
    }

    #[test]
    fn a_container_gets_threads_for_its_share_of_the_processors() {
        assert_eq!([10_000, 5_000, 1_250, 100].map(|rate| quota(rate, 16)), [16, 8, 2, 1]);
    }
}
