//! Compiled pipelines on disk, where the API has a cache for them (Vulkan).
//!
//! One file an adapter and driver, named by both. It holds the driver's data behind a header of our own with a
//! checksum, so that a driver never sees a truncated file or another program's: such a file is ignored and rewritten. A
//! file gets its name only when it is whole. A failure here never fails a model: without a cache, kernels are compiled.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

const MAGIC: &[u8; 16] = b"handmill pipes 1";
/// Magic, length and checksum.
const HEADER: usize = 32;

/// The cache of one device.
pub(super) struct PipelineCache {
    pub cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Checksum of the file's data, as last read or written.
    on_disk: Mutex<u64>,
}

impl PipelineCache {
    /// The cache of `adapter` in the folder `dir`; none where the adapter has no pipeline cache.
    pub fn open(device: &wgpu::Device, adapter: &wgpu::AdapterInfo, dir: &Path) -> Option<Self> {
        let key = wgpu::util::pipeline_cache_key(adapter)?;
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        // The key names vendor and device; each version of the driver gets its own file.
        let driver = checksum(format!("{} {}", adapter.driver, adapter.driver_info).as_bytes());
        let path = dir.join(format!("{}-{driver:016x}.bin", key.chars().map(safe).collect::<String>()));
        let bytes = fs::read(&path).unwrap_or_default();
        let data = unpack(&bytes);
        // SAFETY: `get_data` gave these bytes to a process of this program for this adapter and driver: the file's name
        // says so, and its checksum shows that they are unchanged.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("handmill"),
                data,
                fallback: true,
            })
        };
        Some(Self { cache, path, on_disk: Mutex::new(data.map_or(0, checksum)) })
    }

    /// Writes the compiled pipelines to the file, where they are not in it yet.
    pub fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let sum = checksum(&data);
        let mut on_disk = self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        if *on_disk == sum || data.is_empty() {
            return;
        }
        // Written beside its place and then renamed, so that readers meanwhile get the old file, whole.
        let scratch = self.path.with_extension(format!("{}.part", std::process::id()));
        let written =
            self.path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&scratch, pack(&data)));
        match written.and_then(|()| fs::rename(&scratch, &self.path)) {
            Ok(()) => *on_disk = sum,
            // The disk is full or read-only: the next start compiles again.
            Err(_) => drop(fs::remove_file(&scratch)),
        }
    }
}

fn pack(data: &[u8]) -> Vec<u8> {
    [&header_of(data)[..], data].concat()
}

fn header_of(data: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(MAGIC);
    header[16..24].copy_from_slice(&(data.len() as u64).to_le_bytes());
    header[24..].copy_from_slice(&checksum(data).to_le_bytes());
    header
}

/// The data that `pack` was given, if the file is whole.
fn unpack(file: &[u8]) -> Option<&[u8]> {
    let (header, data) = file.split_at_checked(HEADER)?;
    (header == header_of(data)).then_some(data)
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{pack, unpack};

    #[test]
    fn only_whole_files_count() {
        let file = pack(b"compiled");
        assert_eq!(unpack(&file), Some(&b"compiled"[..]));
        assert_eq!(unpack(&pack(b"")), Some(&b""[..]));
        for n in 0..file.len() {
            assert_eq!(unpack(&file[..n]), None, "{n} bytes");
            let mut wrong = file.clone();
            wrong[n] ^= 1;
            assert_eq!(unpack(&wrong), None, "byte {n}");
        }
    }
}
