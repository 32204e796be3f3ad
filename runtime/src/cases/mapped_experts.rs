//! Mixtures of experts in files, for tests: weights of experts that no row chooses lie on pages that cannot be read.

use super::experts::{ExpertsCase, ExpertsModel};
use crate::format::{Bytes, Mapping};

const PAGE: usize = 65536;

/// A model, with the file of each linear's experts.
pub(crate) struct MappedExperts {
    pub case: ExpertsCase,
    pub model: ExpertsModel,
    _files: Vec<tempfile::NamedTempFile>,
}

impl MappedExperts {
    /// Each expert gets pages of its own.
    pub fn new(case: ExpertsCase) -> Self {
        let mut files = Vec::new();
        let model = case.model(&mut |encoded| {
            let n = encoded[0].len();
            let each = n.next_multiple_of(PAGE);
            let mut file = Vec::new();
            for mut bytes in encoded {
                bytes.resize(each, 0);
                file.extend(bytes);
            }
            let temp = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(temp.path(), &file).unwrap();
            let map = Mapping::open(temp.path()).unwrap();
            files.push(temp);
            #[cfg(unix)]
            for e in case.never_from..case.n_experts {
                unsafe extern "C" {
                    fn mprotect(p: *mut std::ffi::c_void, len: usize, protection: i32) -> i32;
                }
                let start = map[e * each..].as_ptr().cast_mut();
                // SAFETY: whole pages of a mapping of our own, which nobody may read from now on.
                assert_eq!(unsafe { mprotect(start.cast(), each, 0) }, 0);
            }
            (0..case.n_experts).map(|e| Bytes::mapped(&map, e * each..e * each + n).unwrap()).collect()
        });
        Self { case, model: model.unwrap(), _files: files }
    }
}
