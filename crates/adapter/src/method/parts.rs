use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use burn_lora_kernels::LowRank;

use super::AdapterMethod;
use crate::lora::Lora;

/// LoRA on some of the columns of a weight: on the queries and the values of a fused projection, as the paper has it for
/// GPT-2. Each part has factors of its own.
///
/// `W'[:, p] = W[:, p] + s A_p B_p`. Together they are one product of the summed rank, whose B is 0 between the parts: so a
/// file has them, and every reader of PEFT's files reads them.
#[derive(Module, Debug)]
pub struct Parts {
    /// The factors of each part.
    pub parts: Vec<Lora>,
    /// The columns of each part.
    #[module(skip)]
    pub columns: Vec<Range<usize>>,
    /// The columns of the weight.
    pub width: usize,
}

/// The columns of a fused projection that are adapted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Some of so many equal parts: of GPT-2's `c_attn`, 3 parts, of which 0 is the queries, 1 the keys, 2 the values.
    Equal {
        /// How many parts there are.
        of: usize,
        /// Which of them are adapted.
        keep: Vec<usize>,
    },
    /// Ranges of columns.
    Ranges(Vec<Range<usize>>),
}

impl Columns {
    /// The ranges within a weight of so many columns; what is wrong with them otherwise.
    pub(crate) fn ranges(&self, width: usize) -> Result<Vec<Range<usize>>, String> {
        let mut ranges = match self {
            Self::Ranges(ranges) => ranges.clone(),
            Self::Equal { of, keep } => {
                if *of == 0 || !width.is_multiple_of(*of) {
                    return Err(format!("{width} columns are not {of} equal parts"));
                }
                if let Some(part) = keep.iter().find(|part| *part >= of) {
                    return Err(format!("there is no part {part} of {of}, counted from 0"));
                }
                let size = width / of;
                keep.iter()
                    .map(|part| part * size..(part + 1) * size)
                    .collect()
            }
        };
        ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        for range in &ranges {
            if range.is_empty() || range.start < end || range.end > width {
                return Err(format!(
                    "the columns {range:?} are none, overlap others or exceed {width}"
                ));
            }
            end = range.end;
        }
        match ranges.is_empty() {
            true => Err("no column is named".to_string()),
            false => Ok(ranges),
        }
    }
}

impl Parts {
    /// The parts as one product.
    pub(crate) fn joined(&self) -> LowRank {
        let a = self.parts.iter().map(|part| part.a.val()).collect();
        let rows = self.parts.iter().zip(&self.columns).map(|(part, columns)| {
            let b = part.b.val();
            let [rank, _] = b.dims();
            let device = b.device();
            let zeros = |width| Tensor::<2>::zeros([rank, width], (&device, DType::F32));
            let mut blocks = Vec::new();
            if columns.start > 0 {
                blocks.push(zeros(columns.start));
            }
            blocks.push(b);
            if columns.end < self.width {
                blocks.push(zeros(self.width - columns.end));
            }
            Tensor::cat(blocks, 1) // [rank, d_out]
        });
        LowRank {
            a: Tensor::cat(a, 1),
            b: Tensor::cat(rows.collect(), 0),
            scale: self.parts.first().map_or(1.0, |part| part.scale),
        }
    }
}

impl AdapterMethod for Parts {
    fn parameters(&self) -> Vec<&Param<Tensor<2>>> {
        let parts = self.parts.iter();
        parts.flat_map(|part| [&part.a, &part.b]).collect()
    }

    fn low_rank(&self) -> Option<LowRank> {
        Some(self.joined())
    }

    fn dropout(&self) -> f64 {
        self.parts.first().map_or(0.0, |part| part.dropout)
    }

    fn scale(&self) -> Option<f64> {
        self.parts.first().map(|part| part.scale)
    }

    fn rank(&self) -> Option<usize> {
        Some(self.parts.iter().map(Lora::rank).sum())
    }
}
