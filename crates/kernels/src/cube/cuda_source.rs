//! Kernels written in CUDA C++, launched in the order of CubeCL's own.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::ir::metadata::Info;
use cubecl::ir::{Scope, UIntKind};
use cubecl::prelude::*;
use cubecl::server::{KernelArguments, MetadataBindingInfo};
use cubecl::{CubeKernel, PrecompiledSource};

/// The text of kernels, known at compile time.
#[derive(Debug)]
pub(crate) struct CudaText {
    /// One behind the other.
    parts: &'static [&'static str],
    hash: u64,
}

impl CudaText {
    pub(crate) const fn new(parts: &'static [&'static str]) -> Self {
        // FNV-1a, which a constant can be made of.
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut part = 0;
        while part < parts.len() {
            let bytes = parts[part].as_bytes();
            let mut at = 0;
            while at < bytes.len() {
                hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
                at += 1;
            }
            part += 1;
        }
        Self { parts, hash }
    }
}

/// What a kernel does with the memory of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Reads,
    Writes,
}

/// One kernel of a text, which must be `extern "C" __global__`, with what is defined in front of the text.
///
/// Its parameters are a pointer for each tensor, in their order, and then if there are numbers one
/// `const __grid_constant__` struct of as many eight-byte fields. It has no dynamic shared memory, so at most 48 KiB of it.
/// Each set of definitions is compiled once, at its first launch, and kept as CubeCL keeps its own kernels.
#[derive(Clone, Debug)]
pub(crate) struct CudaSource {
    text: &'static CudaText,
    entry: &'static str,
    defines: Vec<(&'static str, usize)>,
    units: u32,
}

impl CudaSource {
    /// `units` are the threads of a block.
    pub(crate) fn new(
        text: &'static CudaText,
        entry: &'static str,
        units: u32,
        defines: impl IntoIterator<Item = (&'static str, usize)>,
    ) -> Self {
        Self {
            text,
            entry,
            units,
            defines: defines.into_iter().collect(),
        }
    }

    /// Launches it in so many blocks.
    ///
    /// # Safety
    /// Within the memory of its tensors, the kernel must not read nor write beyond what they have, and write only those
    /// that are said to be written.
    pub(crate) unsafe fn launch(
        self,
        blocks: [usize; 3],
        tensors: &[(&CubeTensor, Access)],
        numbers: Vec<u64>,
    ) {
        let Some((first, _)) = tensors.first() else {
            return;
        };
        let client = first.client.clone();
        let [x, y, z] = blocks.map(|count| count as u32);
        let mut arguments = KernelArguments::new();
        for (tensor, access) in tensors {
            let io = match access {
                Access::Reads => BufferIOAttr::ReadOnly,
                Access::Writes => BufferIOAttr::WriteOnly,
            };
            arguments = arguments.with_buffer_io(tensor.handle.clone().binding(), io);
        }
        // With none of them behind its end, all the numbers are the one parameter, and no buffer is made of them.
        let all = numbers.len();
        let info = MetadataBindingInfo::new(numbers, all);
        client.launch(
            Box::new(self),
            CubeCount::Static(x, y, z),
            arguments.with_info(info),
        );
    }

    fn complete(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.defines {
            text.push_str(&format!("#define {name} {value}\n"));
        }
        self.text.parts.iter().for_each(|part| text.push_str(part));
        text
    }
}

impl KernelMetadata for CudaSource {
    fn name(&self) -> &'static str {
        self.entry
    }

    fn id(&self) -> KernelId {
        let info = (self.entry, self.text.hash, self.defines.clone());
        KernelId::new::<Self>()
            .info(info)
            .cube_dim(CubeDim::new_1d(self.units).0)
    }

    fn address_type(&self) -> ElemType {
        UIntKind::U64.into()
    }
}

impl CubeKernel for CudaSource {
    /// The text stands in for what would be compiled from this.
    fn define(&self) -> KernelDefinition {
        let units = CubeDim::new_1d(self.units).0;
        let settings = KernelSettings::new(units, ExecutionMode::Unchecked, AddressType::U64);
        KernelDefinition {
            body: Scope::root(settings.clone()),
            settings,
            info: Info::default(),
        }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource {
            source: self.complete(),
            entrypoint_name: self.entry.to_string(),
            lang: "cuda",
        })
    }
}
