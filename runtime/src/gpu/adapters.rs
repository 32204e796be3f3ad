//! The adapters of all APIs in their order, and the choice among them.
//!
//! On Windows one GPU is listed by Vulkan and by DX12. Vulkan comes first: its drivers report whether byte products are
//! fast, offer cooperative matrices, keep compiled kernels and import host memory, and compile faster than FXC does.
//! DX12 comes next, and last a Vulkan driver that is itself a layer over DX12. An API that cannot open the device
//! leaves it to the next one.

use std::{cmp::Reverse, path::Path};

use super::{AdapterSummary, ApiChoice, Caps, CapsOverride, GpuError, OtherApi, import};

/// The compilers of DX12's kernels.
const DXC: &str = "DXC";
const FXC: &str = "FXC";

/// An adapter in the list.
pub(super) struct Listed {
    pub adapter: wgpu::Adapter,
    /// The compiler of its kernels, where there is more than one.
    compiler: Option<&'static str>,
    /// Number of its device: adapters of the same device are neighbours.
    device: usize,
}

/// All adapters, best device first: discrete, integrated, virtual, software; of one device the preferred API first.
/// `dxc` is the path of Microsoft's dxcompiler.dll, where DX12 may use it.
pub(super) async fn list(dxc: Option<&Path>) -> Vec<Listed> {
    use wgpu::{Backends, DeviceType};
    let dxc = dxc.and_then(Path::to_str);
    let mut all = enumerate(Backends::PRIMARY, dxc).await;
    let by_dx12 = |a: &wgpu::Adapter| {
        let info = a.get_info();
        info.backend == wgpu::Backend::Dx12 && info.device_type != DeviceType::Cpu
    };
    if dxc.is_some() && !all.iter().any(|(a, _)| by_dx12(a)) {
        // The DLL does not load, or no driver has the shader model 6 that it compiles for.
        all.retain(|(a, _)| a.get_info().backend != wgpu::Backend::Dx12);
        all.extend(enumerate(Backends::DX12, None).await);
    }
    let identities: Vec<Identity> = all.iter().map(|(a, _)| Identity::of(a)).collect();
    let mut all: Vec<_> = all.into_iter().map(Some).collect();
    let devices = by_device(&identities).into_iter().enumerate();
    let in_order = devices.flat_map(|(device, adapters)| adapters.into_iter().map(move |i| (device, i)));
    in_order
        .filter_map(|(device, i)| all[i].take().map(|(adapter, compiler)| Listed { adapter, compiler, device }))
        .collect()
}

async fn enumerate(backends: wgpu::Backends, dxc: Option<&str>) -> Vec<(wgpu::Adapter, Option<&'static str>)> {
    let mut descriptor = wgpu::InstanceDescriptor {
        backends,
        // Validation layers are for debugging wgpu.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    // Never `Auto`, which takes a DLL from wherever the system finds one.
    descriptor.backend_options.dx12.shader_compiler = match dxc {
        Some(path) => wgpu::Dx12Compiler::DynamicDxc { dxc_path: path.to_owned() },
        None => wgpu::Dx12Compiler::Fxc,
    };
    let compiler = if dxc.is_some() { DXC } else { FXC };
    let adapters = wgpu::Instance::new(descriptor).enumerate_adapters(backends).await;
    let has_compiler = |a: &wgpu::Adapter| a.get_info().backend == wgpu::Backend::Dx12;
    let with_compiler = |a| {
        let compiler = has_compiler(&a).then_some(compiler);
        (a, compiler)
    };
    adapters.into_iter().map(with_compiler).collect()
}

/// The facts about an adapter that its place in the list depends on.
#[derive(Clone, Copy, Debug)]
struct Identity {
    backend: wgpu::Backend,
    kind: wgpu::DeviceType,
    /// Invocations of a workgroup.
    size: u32,
    /// Vendor and device, the same for equal cards.
    ids: (u32, u32),
    /// Windows's number of the device, where the API tells it.
    luid: Option<[u8; 8]>,
    /// Whether the driver translates to another API.
    layered: bool,
}

impl Identity {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        Self {
            backend: info.backend,
            kind: info.device_type,
            size: adapter.limits().max_compute_invocations_per_workgroup,
            ids: (info.vendor, info.device),
            luid: import::luid(adapter),
            layered: import::is_layered(adapter),
        }
    }

    /// Whether both are the same device: by Windows's number, or else as far as vendor and device tell. Where these
    /// are all there is, adapters of one API are different devices.
    fn is_same_device(&self, other: &Self) -> bool {
        match (self.luid, other.luid) {
            (Some(one), Some(two)) => one == two,
            _ => self.backend != other.backend && self.ids == other.ids,
        }
    }

    fn api_rank(&self) -> u8 {
        match self.backend {
            _ if self.layered => 3,
            wgpu::Backend::Vulkan => 0,
            wgpu::Backend::Metal => 1,
            _ => 2,
        }
    }

    /// Of two devices of a kind, the one with the larger workgroups comes first.
    fn device_rank(&self) -> (u8, Reverse<u32>) {
        let kind = match self.kind {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, Reverse(self.size))
    }
}

/// The devices, best first, each as the numbers of its adapters, the preferred one first.
fn by_device(adapters: &[Identity]) -> Vec<Vec<usize>> {
    let mut devices: Vec<Vec<usize>> = Vec::new();
    for (i, adapter) in adapters.iter().enumerate() {
        match devices.iter_mut().find(|members| members.iter().all(|&m| adapters[m].is_same_device(adapter))) {
            Some(members) => members.push(i),
            None => devices.push(vec![i]),
        }
    }
    for members in &mut devices {
        members.sort_by_key(|&m| adapters[m].api_rank());
    }
    devices.sort_by_key(|members| adapters[members[0]].device_rank());
    devices
}

/// Whether the hardware multiplies and adds four signed bytes at once. Metal does not report it.
fn byte_products(adapter: &wgpu::Adapter) -> bool {
    #[cfg(windows)]
    if let Some(known) = super::dx12::byte_products(adapter) {
        return known;
    }
    import::byte_products(adapter).unwrap_or(false)
}

pub(super) fn summary(index: usize, listed: &Listed, o: &CapsOverride) -> AdapterSummary {
    let adapter = &listed.adapter;
    let info = adapter.get_info();
    AdapterSummary {
        index,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        api: info.backend.to_string(),
        compiler: listed.compiler,
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned(),
        caps: Caps::new(adapter, import::alignment(adapter), byte_products(adapter), o),
        name: info.name,
    }
}

/// The adapters of one device that `wanted` leaves open, the preferred one first: all of the best device, the one of a
/// number, or those with a text in their name and API.
///
/// # Errors
/// There is none.
pub(super) fn candidates<'a>(
    adapters: &'a [Listed],
    wanted: Option<&str>,
) -> Result<Vec<(usize, &'a Listed)>, GpuError> {
    if adapters.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    let names: Vec<(usize, String)> = adapters.iter().map(|a| (a.device, full_name(&a.adapter))).collect();
    let found = matching(&names, wanted);
    if found.is_empty() {
        let available = names.iter().enumerate().map(|(i, (_, name))| format!("{i} ({name})"));
        return Err(GpuError::NoSuchAdapter {
            wanted: wanted.unwrap_or_default().to_owned(),
            available: available.collect::<Vec<_>>().join(", "),
        });
    }
    Ok(found.into_iter().map(|i| (i, &adapters[i])).collect())
}

/// The adapter's name and its API, which tell the adapters of a device apart.
fn full_name(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} {}", info.name, info.backend)
}

/// The numbers of the adapters of one device that fit `wanted`. Adapters are given by their device and full name.
fn matching(adapters: &[(usize, String)], wanted: Option<&str>) -> Vec<usize> {
    let number = wanted.and_then(|w| w.parse::<usize>().ok());
    let wanted = wanted.unwrap_or_default().to_lowercase();
    let fits = |i: usize, name: &str| match number {
        Some(number) => i == number,
        None => name.to_lowercase().contains(&wanted),
    };
    let all = adapters.iter().enumerate().filter(|(i, (_, name))| fits(*i, name));
    let mut found = all.map(|(i, (device, _))| (i, *device)).peekable();
    let first = found.peek().map(|(_, device)| *device);
    found.filter(|(_, device)| Some(*device) == first).map(|(i, _)| i).collect()
}

/// Opens the first of `candidates` that `open` can open. The error is that of the preferred one.
pub(super) async fn open_first<C: Copy, T>(
    candidates: &[C],
    other: impl Fn(C) -> OtherApi,
    open: impl AsyncFn(C) -> Result<T, GpuError>,
) -> Result<(T, ApiChoice), GpuError> {
    let (mut failed, mut first) = (Vec::new(), None);
    for (i, &candidate) in candidates.iter().enumerate() {
        match open(candidate).await {
            Ok(opened) => {
                let others = candidates[i + 1..].iter().map(|&c| other(c)).collect();
                return Ok((opened, ApiChoice { others, failed }));
            }
            Err(error) => {
                failed.push((other(candidate), error.to_string()));
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or(GpuError::NoAdapter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::{Backend, DeviceType};

    fn identity(backend: Backend, kind: DeviceType, device: u32, luid: Option<u8>) -> Identity {
        Identity { backend, kind, size: 1024, ids: (0x10de, device), luid: luid.map(|n| [n; 8]), layered: false }
    }

    #[test]
    fn one_gpu_of_two_apis_is_one_device_and_vulkan_comes_first() {
        use Backend::{Dx12, Vulkan};
        use DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};
        let discrete = |api, luid| identity(api, DiscreteGpu, 1, luid);
        let integrated = |api, luid| identity(api, IntegratedGpu, 2, luid);
        let warp = identity(Dx12, Cpu, 3, Some(3));
        let small = |adapter: Identity| Identity { size: 256, ..adapter };
        let layer = |adapter: Identity| Identity { layered: true, ..adapter };
        for (what, adapters, devices) in [
            (
                "two GPUs and WARP",
                vec![
                    integrated(Dx12, Some(2)),
                    warp,
                    discrete(Dx12, Some(1)),
                    integrated(Vulkan, Some(2)),
                    discrete(Vulkan, Some(1)),
                ],
                vec![vec![4, 2], vec![3, 0], vec![1]],
            ),
            (
                "smaller workgroups through Vulkan",
                vec![discrete(Dx12, Some(1)), small(discrete(Vulkan, Some(1)))],
                vec![vec![1, 0]],
            ),
            (
                "equal cards by their numbers",
                vec![
                    discrete(Vulkan, Some(1)),
                    discrete(Vulkan, Some(2)),
                    discrete(Dx12, Some(2)),
                    discrete(Dx12, Some(1)),
                ],
                vec![vec![0, 3], vec![1, 2]],
            ),
            (
                "equal cards without numbers",
                vec![discrete(Vulkan, None), discrete(Vulkan, None), discrete(Dx12, Some(1)), discrete(Dx12, Some(2))],
                vec![vec![0, 2], vec![1, 3]],
            ),
            (
                "two drivers of one API on Linux",
                vec![discrete(Vulkan, None), discrete(Vulkan, None)],
                vec![vec![0], vec![1]],
            ),
            ("Vulkan over DX12", vec![layer(discrete(Vulkan, Some(1))), discrete(Dx12, Some(1))], vec![vec![1, 0]]),
            (
                "a device that only DX12 takes for hardware",
                vec![
                    identity(Dx12, DiscreteGpu, 4, Some(4)),
                    identity(Vulkan, Cpu, 4, Some(4)),
                    integrated(Dx12, Some(2)),
                ],
                vec![vec![2], vec![1, 0]],
            ),
        ] {
            assert_eq!(by_device(&adapters), devices, "{what}");
        }
    }

    #[test]
    fn a_device_is_named_by_number_name_or_api() {
        let adapters =
            [(0, "GeForce vulkan"), (0, "GeForce dx12"), (1, "UHD vulkan"), (1, "UHD dx12"), (2, "WARP dx12")];
        let adapters = adapters.map(|(device, name)| (device, name.to_owned()));
        for (wanted, found) in [
            (None, vec![0, 1]),
            (Some("1"), vec![1]),
            (Some("geforce"), vec![0, 1]),
            (Some("dx12"), vec![1]),
            (Some("uhd"), vec![2, 3]),
            (Some("UHD DX12"), vec![3]),
            (Some("warp"), vec![4]),
            (Some("7"), vec![]),
            (Some("radeon"), vec![]),
        ] {
            assert_eq!(matching(&adapters, wanted), found, "{wanted:?}");
        }
    }

    #[test]
    fn an_api_that_cannot_open_the_device_leaves_it_to_the_next() {
        let other = |index: usize| OtherApi { index, api: ["vulkan", "dx12"][index].to_owned() };
        let refuse = |index: usize| GpuError::Open { adapter: "a GPU".to_owned(), reason: format!("no {index}") };
        let open = |candidates: &[usize], works: fn(usize) -> bool| {
            let open = async |i| if works(i) { Ok(i) } else { Err(refuse(i)) };
            pollster::block_on(open_first(candidates, other, open))
        };
        let (opened, choice) = open(&[0, 1], |_| true).unwrap();
        assert_eq!((opened, choice), (0, ApiChoice { others: vec![other(1)], failed: Vec::new() }));
        let (opened, choice) = open(&[0, 1], |i| i > 0).unwrap();
        let failed = vec![(other(0), refuse(0).to_string())];
        assert_eq!((opened, choice), (1, ApiChoice { others: Vec::new(), failed }));
        let error = open(&[0, 1], |_| false).unwrap_err();
        assert_eq!(error.to_string(), refuse(0).to_string());
        assert_eq!(open(&[1], |_| true).unwrap().1, ApiChoice::default());
    }
}
