//! One table of kernels for each instruction set, and the checked calls into it.

use super::act::{self, ActForm};
use super::job::{Gather, Job, Kernel, WeightRows};
use super::unpack::{self, Loader, Numbers, Shape, ToFloats};
use super::{formats, gemm_f32, gemm_i8, mat_vec_unpacked};
use crate::cpu::arch::{Isa, Simd};
use crate::quant::{DType, for_every_format};

/// Alignment of a panel, in bytes.
const PANEL_ALIGN: usize = 64;

/// The linear kernels of one instruction set.
pub struct LinearKernels {
    isa: Isa,
    lanes: usize,
    /// Whether activations stay floats for weights of all formats.
    exact: bool,
    /// Rows of a tile of mat-mat on floats, and of mat-mat on bytes.
    tile_rows: [usize; 2],
    /// By `DType as usize`.
    mat_vec: [Kernel; DType::COUNT],
    mat_mat: [Kernel; DType::COUNT],
    mat_mat_transposed: [Kernel; DType::COUNT],
    chain_floats: unsafe fn(&[f32], &mut [u8]),
    quantize_groups: unsafe fn(&[f32], &mut [u8]),
    quantize_pairs: unsafe fn(&[f32], &mut [u8]),
    quantize_chunks: unsafe fn(&[f32], &mut [u8]),
}

/// The kernels for an instruction set; the generic ones where this CPU does not have it.
pub fn linear_kernels(isa: Isa) -> &'static LinearKernels {
    &tables(isa)[0]
}

/// As [`linear_kernels`], but activations stay floats for blocks too. This is several times slower for blocks, and only
/// the rounding of f32 is left.
pub fn exact_linear_kernels(isa: Isa) -> &'static LinearKernels {
    &tables(isa)[1]
}

/// The kernels of an instruction set, and the exact ones.
fn tables(isa: Isa) -> &'static [LinearKernels; 2] {
    if !isa.is_available() {
        return &generic::TABLES;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &avx2::TABLES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &avx512::TABLES,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => &avx512vnni::TABLES,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &neon::TABLES,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => &neon_dotprod::TABLES,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => &neon_i8mm::TABLES,
        _ => &generic::TABLES,
    }
}

impl LinearKernels {
    /// Most tokens that [`LinearKernels::mat_vec`] takes; from one more on, [`LinearKernels::mat_mat`] is faster.
    pub const MAT_VEC_TOKENS: usize = 2;

    /// The instruction set of these kernels.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The form in which the kernel for `n_tokens` wants its activations.
    pub fn act_form(&self, dtype: DType, n_tokens: usize) -> ActForm {
        match n_tokens > Self::MAT_VEC_TOKENS {
            true if self.multiplies_bytes(dtype) => ActForm::Q8Chunks,
            true => ActForm::F32Chains,
            false if self.exact => ActForm::F32,
            false => dtype.format().acts,
        }
    }

    /// Whether mat-mat unpacks this format to bytes instead of floats.
    fn multiplies_bytes(&self, dtype: DType) -> bool {
        !self.exact && Numbers::of(dtype).bits <= 8
    }

    /// Bytes of one token's row of `k` activations: a multiple of 64.
    pub fn act_row_bytes(&self, form: ActForm, k: usize) -> usize {
        act::row_bytes(form, self.lanes, k)
    }

    /// Writes one token's activations into `out` in the form that a kernel reads.
    ///
    /// # Panics
    /// If `out` is shorter than [`LinearKernels::act_row_bytes`], or for an int8 form if 32 does not divide `x.len()`.
    pub fn quantize_row(&self, form: ActForm, x: &[f32], out: &mut [u8]) {
        match form {
            ActForm::F32 => out[..4 * x.len()].copy_from_slice(bytemuck::cast_slice(x)),
            // SAFETY: a table is handed out only where the CPU has its instruction set.
            ActForm::F32Chains => unsafe { (self.chain_floats)(x, out) },
            // SAFETY: as above.
            ActForm::Q8Groups => unsafe { (self.quantize_groups)(x, out) },
            // SAFETY: as above.
            ActForm::Q8Pairs => unsafe { (self.quantize_pairs)(x, out) },
            // SAFETY: as above.
            ActForm::Q8Chunks => unsafe { (self.quantize_chunks)(x, out) },
        }
    }

    /// `out[t · out_stride + r] = W[r, :] · x[t, :]` for all r < `w.n_rows`, t < `n_tokens` ≤ [`Self::MAT_VEC_TOKENS`].
    ///
    /// `acts` begins with `n_tokens` rows in the form that [`LinearKernels::act_form`] names for `n_tokens`. Nothing is
    /// read beyond them.
    ///
    /// # Panics
    /// If `w` or `acts` is too short, if blocks do not divide `w.k`, or if `n_tokens` is above the limit.
    ///
    /// # Safety
    /// `out` must be valid for these writes, and nobody else may use those elements during the call.
    pub unsafe fn mat_vec(&self, w: WeightRows<'_>, acts: &[u8], n_tokens: usize, out: *mut f32, out_stride: usize) {
        assert!(n_tokens <= Self::MAT_VEC_TOKENS, "mat_vec takes up to {} tokens", Self::MAT_VEC_TOKENS);
        let form = self.act_form(w.dtype, n_tokens);
        let Some(job) = self.job(w, form, acts, n_tokens, out, out_stride) else { return };
        // SAFETY: the CPU has the instruction set; `job` has checked the operands; the caller vouches for `out`.
        unsafe { self.mat_vec[w.dtype as usize](&job) }
    }

    /// Rows that mat-mat unpacks together.
    pub fn tile_rows(&self, dtype: DType) -> usize {
        self.tile_rows[usize::from(self.multiplies_bytes(dtype))]
    }

    /// Rows of W that one call of [`LinearKernels::mat_mat`] should take: a whole number of register tiles.
    pub fn panel_rows(&self, dtype: DType, k: usize) -> usize {
        let tile = self.tile_rows(dtype);
        // About 2¹⁷ weights: long enough to hide the call, short enough to share out a small matrix.
        tile * ((1 << 17) / (tile * k).max(1)).clamp(1, 8)
    }

    /// Bytes of scratch that [`LinearKernels::mat_mat`] needs.
    pub fn panel_bytes(&self, dtype: DType, k: usize) -> usize {
        let bytes = self.multiplies_bytes(dtype);
        let tile = self.tile_rows[usize::from(bytes)];
        let Numbers { group, minima, .. } = Numbers::of(dtype);
        PANEL_ALIGN + if bytes { gemm_i8::panel_bytes(k, tile, group, minima) } else { gemm_f32::panel_bytes(k, tile) }
    }

    /// As [`LinearKernels::mat_vec`], for any number of tokens and with activations in the form for more than
    /// [`Self::MAT_VEC_TOKENS`]. Callers best pass [`LinearKernels::panel_rows`] rows at a time. `panel` is scratch.
    ///
    /// # Panics
    /// If `w`, `acts` or `panel` is too short or blocks do not divide `w.k`.
    ///
    /// # Safety
    /// As for [`LinearKernels::mat_vec`].
    pub unsafe fn mat_mat(
        &self,
        w: WeightRows<'_>,
        acts: &[u8],
        n_tokens: usize,
        out: *mut f32,
        out_stride: usize,
        panel: &mut [u8],
    ) {
        let form = self.act_form(w.dtype, usize::MAX);
        let Some(job) = self.job(w, form, acts, n_tokens, out, out_stride) else { return };
        // SAFETY: `job` has checked the operands; the caller vouches for `out`.
        unsafe { self.run_mat_mat(w, job, panel) }
    }

    /// As [`LinearKernels::mat_mat`] for tokens that are some rows of `n_acts` rows of activations, and whose results are
    /// some rows of the output: `out[g.out · out_stride + r] = W[r, :] · x[g.act, :]` for all g of `gather`.
    ///
    /// # Panics
    /// As [`LinearKernels::mat_mat`], and if `gather` names a row beyond the activations.
    ///
    /// # Safety
    /// `out` must be valid for these writes, and nobody else may use those elements during the call.
    #[allow(clippy::too_many_arguments)] // two lists of rows beside the operands of a product
    pub unsafe fn mat_mat_gathered(
        &self,
        w: WeightRows<'_>,
        acts: &[u8],
        n_acts: usize,
        gather: &[Gather],
        out: *mut f32,
        out_stride: usize,
        panel: &mut [u8],
    ) {
        let form = self.act_form(w.dtype, usize::MAX);
        let Some(job) = self.job(w, form, acts, n_acts, out, out_stride) else { return };
        assert!(gather.iter().all(|g| (g.act as usize) < n_acts), "a row of the activations that is not there");
        if !gather.is_empty() {
            // SAFETY: `job` has checked the operands, and the rows are among them; the caller vouches for `out`.
            unsafe { self.run_mat_mat(w, Job { n_tokens: gather.len(), gather: gather.as_ptr(), ..job }, panel) }
        }
    }

    /// # Safety
    /// The job must be checked and its output valid.
    unsafe fn run_mat_mat(&self, w: WeightRows<'_>, mut job: Job, panel: &mut [u8]) {
        assert!(panel.len() >= self.panel_bytes(w.dtype, w.k), "mat_mat needs a larger panel");
        let skip = panel.as_ptr().align_offset(PANEL_ALIGN);
        job.panel = panel[skip..].as_mut_ptr();
        // SAFETY: the CPU has the instruction set; for the rest the caller vouches.
        unsafe { self.mat_mat[w.dtype as usize](&job) }
    }

    /// Rows of the output that one call of [`LinearKernels::mat_mat_transposed`] should take.
    pub fn transposed_panel_rows(&self) -> usize {
        self.tile_rows[0]
    }

    /// Bytes of scratch that [`LinearKernels::mat_mat_transposed`] needs.
    pub fn transposed_panel_bytes(&self, dtype: DType, k: usize) -> usize {
        let columns = gemm_f32::transposed_columns(dtype.block_len(), self.tile_rows[0]);
        PANEL_ALIGN + gemm_f32::panel_bytes(k, columns)
    }

    /// `out[t · out_stride + j] = Σ_i W[i, columns.start + j] · x[t, i]`: a weight that is stored with a row per input.
    /// `w` has as many rows as inputs; `acts` begins with `n_acts` rows of [`ActForm::F32Chains`]. The tokens are all of
    /// these rows in order, unless `gather` names their rows of activations and of the output.
    ///
    /// # Panics
    /// If `w`, `acts` or `panel` is too short, blocks do not divide `w.k`, or there are no such columns or rows.
    ///
    /// # Safety
    /// As for [`LinearKernels::mat_vec`].
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn mat_mat_transposed(
        &self,
        w: WeightRows<'_>,
        columns: std::ops::Range<usize>,
        acts: &[u8],
        n_acts: usize,
        gather: Option<&[Gather]>,
        out: *mut f32,
        out_stride: usize,
        panel: &mut [u8],
    ) {
        let (inner, row_len) = (w.n_rows, w.k);
        let row_bytes = w.dtype.row_bytes(row_len).expect("blocks divide the row");
        let act_stride = self.act_row_bytes(ActForm::F32Chains, inner);
        assert!(
            columns.end <= row_len && panel.len() >= self.transposed_panel_bytes(w.dtype, inner),
            "columns or panel"
        );
        let enough = |n: usize, each: usize, have: usize| n.checked_mul(each).is_some_and(|n| n <= have);
        assert!(enough(inner, row_bytes, w.bytes.len()), "w has fewer than {inner} rows of {row_len}");
        assert!(enough(n_acts, act_stride, acts.len()), "acts has fewer rows");
        let n_tokens = gather.map_or(n_acts, <[Gather]>::len);
        if columns.is_empty() || n_tokens == 0 || inner == 0 {
            return;
        }
        let known = |g: &Gather| (g.act as usize) < n_acts;
        assert!(gather.is_none_or(|g| g.iter().all(known)), "a row of the activations that is not there");
        let skip = panel.as_ptr().align_offset(PANEL_ALIGN);
        let mut job = Job {
            w: w.bytes.as_ptr(),
            n_rows: columns.len(),
            k: inner,
            row_bytes,
            scales: std::ptr::null(),
            scale_row_bytes: 0,
            scale_block_rows: 1,
            scale_block_cols: usize::MAX,
            scale_first_row: 0,
            gather: gather.map_or(std::ptr::null(), <[Gather]>::as_ptr),
            acts: acts.as_ptr(),
            act_stride,
            n_tokens,
            out,
            out_stride,
            panel: panel[skip..].as_mut_ptr(),
            columns: (columns.start, row_len),
        };
        if let Some(s) = w.scales {
            job.set_scales(s, inner);
        }
        // SAFETY: the CPU has the instruction set; the operands were checked; the caller vouches for `out`.
        unsafe { self.mat_mat_transposed[w.dtype as usize](&job) }
    }

    /// Checks the operands; `None` where there is nothing to do.
    fn job(
        &self,
        w: WeightRows<'_>,
        form: ActForm,
        acts: &[u8],
        n_tokens: usize,
        out: *mut f32,
        out_stride: usize,
    ) -> Option<Job> {
        let (n_rows, k) = (w.n_rows, w.k);
        let row_bytes = w.dtype.row_bytes(k).expect("blocks divide the row");
        let act_stride = self.act_row_bytes(form, k);
        let enough = |n: usize, each: usize, have: usize| n.checked_mul(each).is_some_and(|n| n <= have);
        assert!(enough(n_rows, row_bytes, w.bytes.len()), "w has fewer than {n_rows} rows of {k}");
        assert!(enough(n_tokens, act_stride, acts.len()), "acts has fewer than {n_tokens} rows");
        if n_rows == 0 || n_tokens == 0 {
            return None;
        }
        let mut job = Job {
            w: w.bytes.as_ptr(),
            n_rows,
            k,
            row_bytes,
            scales: std::ptr::null(),
            scale_row_bytes: 0,
            scale_block_rows: 1,
            scale_block_cols: usize::MAX,
            scale_first_row: 0,
            gather: std::ptr::null(),
            acts: acts.as_ptr(),
            act_stride,
            n_tokens,
            out,
            out_stride,
            panel: std::ptr::null_mut(),
            columns: (0, n_rows),
        };
        if let Some(s) = w.scales {
            job.set_scales(s, n_rows);
        }
        Some(job)
    }
}

/// An array of what `$of` gives for the loader of every format, in the order of [`DType`].
macro_rules! kernels {
    ([$of:ident $exact:ident] $($(#[$doc:meta])* $format:ident in $module:ident,)*) => {
        [$($of::<formats::$module::$format, $exact>()),*]
    };
}

/// Makes a module with every kernel compiled for one instruction set.
macro_rules! instantiate {
    ($(#[$meta:meta])* $module:ident, $isa:expr, $token:ty $(, $features:literal)?) => {
        $(#[$meta])*
        mod $module {
            use super::*;

            pub(super) static TABLES: [LinearKernels; 2] = [table::<false>(), table::<true>()];

            const fn table<const EXACT: bool>() -> LinearKernels {
                LinearKernels {
                    isa: $isa,
                    lanes: <$token as Simd>::LANES,
                    exact: EXACT,
                    tile_rows: [gemm_f32::tile_rows::<$token>(), gemm_i8::tile_rows::<$token>()],
                    mat_vec: for_every_format!(kernels mat_vec_of EXACT),
                    mat_mat: for_every_format!(kernels mat_mat_of EXACT),
                    mat_mat_transposed: for_every_format!(kernels transposed_of EXACT),
                    chain_floats,
                    quantize_groups,
                    quantize_pairs,
                    quantize_chunks,
                }
            }

            const fn mat_vec_of<W: Loader, const EXACT: bool>() -> Kernel {
                // Floats are multiplied with floats anyway.
                if EXACT && !W::DTYPE.is_float() { mat_vec_exact::<W> } else { mat_vec::<W> }
            }

            const fn mat_mat_of<W: Loader, const EXACT: bool>() -> Kernel {
                mat_mat::<W, EXACT>
            }

            const fn transposed_of<W: Loader, const EXACT: bool>() -> Kernel {
                transposed::<W>
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn mat_vec<W: Loader>(job: &Job) {
                // SAFETY: the table is handed out only where the CPU has the features; the job is checked.
                unsafe {
                    // Scales of an odd number of columns: mat-vec over floats begins each with the first of its chains.
                    if W::LEN == 1 && job.scale_block_cols < job.k && !job.scale_block_cols.is_multiple_of(16) {
                        return mat_vec_unpacked(job, to_floats::<W>());
                    }
                    W::mat_vec(<$token>::new(), job)
                }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn mat_vec_exact<W: Loader>(job: &Job) {
                // SAFETY: as above.
                unsafe { mat_vec_unpacked(job, to_floats::<W>()) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn mat_mat<W: Loader, const EXACT: bool>(job: &Job) {
                // SAFETY: as above.
                unsafe {
                    if !EXACT && W::Shape::BITS <= 8 {
                        gemm_i8::mat_mat::<_, W>(<$token>::new(), job, multiply_i8::<W::Shape>)
                    } else {
                        mat_mat_f32(job, to_floats::<W>())
                    }
                }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn transposed<W: Loader>(job: &Job) {
                // SAFETY: as above.
                unsafe { mat_mat_transposed(job, to_floats::<W>()) }
            }

            /// The reader of this format for the three kernels below, which are compiled once for all formats.
            const fn to_floats<W: Loader>() -> ToFloats {
                ToFloats { block_len: W::LEN, read: read::<W> }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn read<W: Loader>(job: &Job, row: usize, i: usize, n: usize, out: *mut f32) {
                // SAFETY: as above; the caller vouches for the rest.
                unsafe { unpack::to_floats::<_, W>(<$token>::new(), job, row, i, n, out) }
            }

            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn mat_vec_unpacked(job: &Job, w: ToFloats) {
                // SAFETY: as above.
                unsafe { super::mat_vec_unpacked::mat_vec(<$token>::new(), job, w) }
            }

            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn mat_mat_f32(job: &Job, w: ToFloats) {
                // SAFETY: as above.
                unsafe { gemm_f32::mat_mat(<$token>::new(), job, w) }
            }

            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            unsafe fn mat_mat_transposed(job: &Job, w: ToFloats) {
                // SAFETY: as above.
                unsafe { gemm_f32::mat_mat_transposed(<$token>::new(), job, w) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn multiply_i8<W: Shape>(job: &Job, row: usize, ahead: &mut gemm_i8::Ahead) {
                // SAFETY: as above.
                unsafe { gemm_i8::multiply::<_, W>(<$token>::new(), job, row, ahead) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn chain_floats(x: &[f32], out: &mut [u8]) {
                // SAFETY: as above.
                act::chain_floats(unsafe { <$token>::new() }, x, out)
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quantize_groups(x: &[f32], out: &mut [u8]) {
                // SAFETY: as above.
                act::quantize_groups::<_, false>(unsafe { <$token>::new() }, x, out)
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quantize_pairs(x: &[f32], out: &mut [u8]) {
                // SAFETY: as above.
                act::quantize_groups::<_, true>(unsafe { <$token>::new() }, x, out)
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quantize_chunks(x: &[f32], out: &mut [u8]) {
                // SAFETY: as above.
                act::quantize_chunks(unsafe { <$token>::new() }, x, out)
            }
        }
    };
}

instantiate!(generic, Isa::Generic, crate::cpu::arch::Generic);
instantiate!(
    #[cfg(target_arch = "x86_64")]
    avx2,
    Isa::Avx2,
    crate::cpu::arch::Avx2,
    "avx2,fma,f16c"
);
instantiate!(
    #[cfg(target_arch = "x86_64")]
    avx512,
    Isa::Avx512,
    crate::cpu::arch::Avx512<false>,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2"
);
instantiate!(
    #[cfg(target_arch = "x86_64")]
    avx512vnni,
    Isa::Avx512Vnni,
    crate::cpu::arch::Avx512<true>,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi2"
);
instantiate!(
    #[cfg(target_arch = "aarch64")]
    neon,
    Isa::Neon,
    crate::cpu::arch::Neon<0>
);
instantiate!(
    #[cfg(target_arch = "aarch64")]
    neon_dotprod,
    Isa::NeonDotprod,
    crate::cpu::arch::Neon<1>
);
instantiate!(
    #[cfg(target_arch = "aarch64")]
    neon_i8mm,
    Isa::NeonI8mm,
    crate::cpu::arch::Neon<2>
);
