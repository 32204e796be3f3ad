//! Huge pages under a mapped file.
//!
//! A file that was just written lies in the page cache in pages of 4 KiB. Every token reads all weights, and then
//! spends a quarter of its time on address translation. Where the file system has large folios, a file that is read
//! *for the first time* through a map with `MADV_HUGEPAGE` lies in pages of 2 MiB. So a file that is cached in small
//! pages is dropped from the cache and read again (`posix_fadvise(2)`, `madvise(2)`); `FilePmdMapped` in
//! `proc_pid_smaps(5)` shows whether it worked.

use std::{io, time::Duration};

use super::Mapping;

/// Bytes of a huge page: the range of one last-level page table on x86-64, and on AArch64 with pages of 4 KiB.
pub const HUGE_PAGE: usize = 2 << 20;

/// Treatment of a file that lies in small pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugePages {
    /// Read it anew where that is quick and no other process has it mapped.
    #[default]
    Auto,
    /// Leave it.
    Off,
    /// Copy it into anonymous memory, which has huge pages on every file system and takes memory of its own.
    Copy,
}

/// Outcome for the pages of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Paging {
    /// Unchanged: the file is small, is not cached yet, lies in huge pages already, or [`HugePages::Off`] was chosen.
    AsItWas,
    /// Its pages were small and stay so.
    Small(WhySmall),
    /// It was read anew.
    ReadAnew {
        /// Bytes read.
        bytes: u64,
        /// Time of the reading.
        took: Duration,
        /// Share of the file that lies in huge pages now.
        huge: f64,
    },
    /// It was copied into anonymous memory.
    Copied {
        /// Bytes copied.
        bytes: u64,
        /// Time of the copy.
        took: Duration,
    },
}

/// Reasons why a file stays in small pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhySmall {
    /// The kernel or the file system has no large folios, or does not report them.
    Unsupported,
    /// Another map of the file keeps its pages in the cache.
    InUse,
    /// Reading it anew would take longer than half a second a GB.
    SlowDisk,
}

impl Mapping {
    /// Drops a file that was just written, and whose bytes are on the disk, from the page cache where it lies in small
    /// pages: its next reader gets pages as [`Mapping::open`] advises. Only a hint.
    ///
    /// Linux caches a file in units of its writes. Where it has large folios, a file that was written in aligned units of
    /// [`HUGE_PAGE`] lies in huge pages from the start, and stays.
    pub fn drop_small_pages(&self) {
        cached::drop_small_pages(self);
    }

    /// Puts huge pages under the map as `huge_pages` says. Call it before the bytes are used a second time.
    ///
    /// # Errors
    /// No memory for a copy.
    pub fn prepare(&self, huge_pages: HugePages) -> io::Result<Paging> {
        match huge_pages {
            HugePages::Off => Ok(Paging::AsItWas),
            HugePages::Auto => Ok(cached::prepare(self)),
            HugePages::Copy => self.copy_to_memory(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod cached {
    use super::{Mapping, Paging};

    /// Other systems do not report how a file is cached.
    pub fn prepare(_: &Mapping) -> Paging {
        Paging::AsItWas
    }

    pub fn drop_small_pages(_: &Mapping) {}
}

#[cfg(target_os = "linux")]
mod cached {
    use std::{
        fs, io,
        ops::Range,
        time::{Duration, Instant},
    };

    use super::{HUGE_PAGE, Mapping, Paging, WhySmall};

    /// Least bytes of a file that is worth the work: smaller files have few pages.
    const LEAST: usize = 64 << 20;
    /// Bytes read anew at a time.
    const PART: usize = 64 << 20;
    /// Threads that read a part. A page fault waits for its own page, and disks want several requests at once.
    const READERS: usize = 4;
    /// Huge pages' worth of the file whose state is looked up.
    const SAMPLES: usize = 48;
    /// Longest time a byte, in seconds.
    const SECONDS_A_BYTE: f64 = 0.5e-9;

    /// How the file of a map lies in the page cache.
    enum Cached {
        /// It is small, or most of it is still to be read for the first time, through the map.
        Hardly,
        /// The kernel does not report sizes of pages.
        Unknown,
        /// Mostly in huge pages.
        Huge,
        /// Mostly in small ones; the range is the first sample.
        Small(Range<usize>),
    }

    /// Reads the file of `map` anew where it lies in small pages.
    pub fn prepare(map: &Mapping) -> Paging {
        match state(map) {
            Cached::Hardly | Cached::Huge => Paging::AsItWas,
            Cached::Unknown => Paging::Small(WhySmall::Unsupported),
            Cached::Small(sample) => match is_mapped_elsewhere(map) {
                Some(false) => read_anew(map, sample),
                Some(true) => Paging::Small(WhySmall::InUse),
                None => Paging::Small(WhySmall::Unsupported),
            },
        }
    }

    pub fn drop_small_pages(map: &Mapping) {
        if matches!(state(map), Cached::Small(_)) {
            // An error leaves the pages as they are.
            let _ = drop_range(map, 0..map.len());
        }
    }

    fn state(map: &Mapping) -> Cached {
        let pages = map.len() / HUGE_PAGE;
        if map.len() < LEAST {
            return Cached::Hardly;
        }
        // The first one has the header, which was already read.
        let step = (pages - 1).div_ceil(SAMPLES);
        let samples: Vec<usize> = (1..pages).step_by(step).map(|page| page * HUGE_PAGE).collect();
        let cached: Vec<usize> = samples.iter().copied().filter(|&at| is_cached(map, at)).collect();
        if cached.len() * 4 < samples.len() * 3 {
            return Cached::Hardly;
        }
        cached.iter().for_each(|&at| touch(map, at..at + 1));
        match huge_bytes(map) {
            None => Cached::Unknown,
            Some(huge) if huge / HUGE_PAGE * 4 >= cached.len() * 3 => Cached::Huge,
            Some(_) => Cached::Small(cached[0]..cached[0] + HUGE_PAGE),
        }
    }

    /// Reads the whole file anew: `trial` first, to see whether it lands in huge pages, then a part, to see how long
    /// that takes.
    fn read_anew(map: &Mapping, trial: Range<usize>) -> Paging {
        let start = Instant::now();
        let before = huge_bytes(map);
        if drop_and_read(map, trial).is_err() || huge_bytes(map) <= before {
            return Paging::Small(WhySmall::Unsupported);
        }
        let mut done = 0;
        while done < map.len() {
            let part = done..map.len().min(done + PART);
            let bytes = part.len();
            let Ok(took) = drop_and_read(map, part) else { break };
            done += bytes;
            let slow = |took: Duration, bytes: usize| took.as_secs_f64() > bytes as f64 * SECONDS_A_BYTE;
            if done == bytes && slow(took, bytes) {
                return Paging::Small(WhySmall::SlowDisk);
            }
            if slow(start.elapsed(), 2 * map.len()) {
                break;
            }
        }
        let huge = huge_bytes(map).unwrap_or(0) as f64 / map.len() as f64;
        Paging::ReadAnew { bytes: done as u64, took: start.elapsed(), huge }
    }

    /// Drops a range from the page cache and reads it again through the map; the time of the reading. (Dropping waits for
    /// bytes that are still to be written, which happens once.)
    fn drop_and_read(map: &Mapping, range: Range<usize>) -> io::Result<Duration> {
        drop_range(map, range.clone())?;
        let start = Instant::now();
        let share = range.len().div_ceil(READERS).next_multiple_of(HUGE_PAGE);
        std::thread::scope(|scope| {
            for start in range.clone().step_by(share).skip(1) {
                let share = start..range.end.min(start + share);
                // Where no thread is to be had, the first reader of these bytes waits for them.
                let _ = std::thread::Builder::new().spawn_scoped(scope, move || touch(map, share));
            }
            touch(map, range.start..range.end.min(range.start + share));
        });
        Ok(start.elapsed())
    }

    /// Drops a range, whose start is a multiple of [`HUGE_PAGE`], from the page cache. Pages that others have mapped stay.
    fn drop_range(map: &Mapping, range: Range<usize>) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let (fd, offset, len) = (map.file().as_raw_fd(), range.start as libc::off64_t, range.len() as libc::off64_t);
        let write = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // Pages that are not on the disk yet, or are mapped, stay in the cache.
        // SAFETY: no memory is passed.
        if unsafe { libc::sync_file_range(fd, offset, len, write) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let at = map[range.clone()].as_ptr().cast_mut().cast();
        // SAFETY: the range lies within our map of a file, and later reads get the same bytes from the file again; it
        // begins at a multiple of HUGE_PAGE, and so of a page.
        if unsafe { libc::madvise(at, range.len(), libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no memory is passed.
        match unsafe { libc::posix_fadvise64(fd, offset, len, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Reads a byte of every page.
    fn touch(map: &Mapping, range: Range<usize>) {
        const PAGE: usize = 4096;
        let sum = map[range].iter().step_by(PAGE).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
    }

    /// Whether the page at `offset`, a multiple of HUGE_PAGE, is in the page cache.
    fn is_cached(map: &Mapping, offset: usize) -> bool {
        let mut state = 0u8;
        // SAFETY: the page lies within our map, and one page has one byte of state.
        let asked = unsafe { libc::mincore(map[offset..].as_ptr().cast_mut().cast(), 1, &mut state) };
        asked == 0 && state & 1 == 1
    }

    /// Bytes of the map that huge pages hold; none where the kernel does not report them.
    fn huge_bytes(map: &Mapping) -> Option<usize> {
        let (start, end) = (map.as_ptr() as usize, map.as_ptr() as usize + map.len());
        let (mut inside, mut told, mut kib) = (false, false, 0);
        for line in fs::read_to_string("/proc/self/smaps").ok()?.lines() {
            if let Some((from, to)) = address_range(line) {
                inside = from < end && start < to;
            } else if inside && let Some(size) = line.strip_prefix("FilePmdMapped:") {
                told = true;
                kib += size.trim().trim_end_matches(" kB").parse::<usize>().ok()?;
            }
        }
        told.then_some(kib << 10)
    }

    /// Whether another map of the file exists in this process or in one that we may inspect; none where that cannot be
    /// found out.
    fn is_mapped_elsewhere(map: &Mapping) -> Option<bool> {
        let ours = map.as_ptr() as usize..map.as_ptr() as usize + map.len();
        // Device and inode in the kernel's own notation: some file systems report others to `stat`.
        let file_of = |line: &str| -> Option<String> {
            let mut fields = line.split_ascii_whitespace().skip(3);
            Some(format!("{} {}", fields.next()?, fields.next()?))
        };
        let own = fs::read_to_string("/proc/self/maps").ok()?;
        let is_ours = |line: &str| address_range(line).is_some_and(|(from, _)| ours.contains(&from));
        let file = file_of(own.lines().find(|line| is_ours(line))?)?;
        let same = |line: &str| file_of(line).is_some_and(|f| f == file);
        if own.lines().any(|line| same(line) && !is_ours(line)) {
            return Some(true);
        }
        let me = std::process::id().to_string();
        let others = fs::read_dir("/proc").ok()?.flatten().filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.bytes().all(|b| b.is_ascii_digit()) && name != me
        });
        // Maps of processes that we may not inspect stay unseen. Where they map the file, it stays in the cache, and
        // the trial shows that.
        Some(others.filter_map(|p| fs::read_to_string(p.path().join("maps")).ok()).any(|maps| maps.lines().any(same)))
    }

    /// The addresses at the beginning of a line of `maps` or `smaps`.
    fn address_range(line: &str) -> Option<(usize, usize)> {
        let (from, to) = line.split_ascii_whitespace().next()?.split_once('-')?;
        Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LEN: usize = (80 << 20) + 12345;

    /// A file that was just written, and its bytes.
    fn written() -> (tempfile::NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..LEN).map(|i| ((i * 31) >> 7) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_file_that_was_just_written_is_read_anew_or_left_as_it_is() {
        let (file, bytes) = written();
        let map = Mapping::open(file.path()).unwrap();
        let paging = map.prepare(HugePages::Auto).unwrap();
        println!("{paging:?}");
        if let Paging::ReadAnew { bytes, huge, .. } = paging {
            assert!(bytes == LEN as u64 && huge > 0.9, "{paging:?}");
            assert_eq!(map.prepare(HugePages::Auto).unwrap(), Paging::AsItWas);
        }
        assert!(map[..] == bytes[..]);
    }

    #[test]
    fn a_file_that_somebody_else_has_mapped_is_left() {
        let (file, _) = written();
        let (other, map) = (Mapping::open(file.path()).unwrap(), Mapping::open(file.path()).unwrap());
        let paging = map.prepare(HugePages::Auto).unwrap();
        assert!(!matches!(paging, Paging::ReadAnew { .. }), "{paging:?}");
        drop(other);
    }

    #[test]
    fn a_copy_has_the_same_bytes_elsewhere() {
        let (file, bytes) = written();
        let map = Mapping::open(file.path()).unwrap();
        let before = map.as_ptr();
        assert!(matches!(map.prepare(HugePages::Copy).unwrap(), Paging::Copied { bytes, .. } if bytes == LEN as u64));
        assert!(map.as_ptr() != before && map[..] == bytes[..]);
        let again = map.as_ptr();
        map.prepare(HugePages::Copy).unwrap();
        assert_eq!(map.as_ptr(), again);
    }
}
