//! Attention in which content and position have scores of their own (DeBERTa, arXiv:2006.03654).
//!
//! `score(i, j) = (q_i k_j + q_i p_k(i - j) + k_j p_q(j - i)) / sqrt(d * terms)`, where `p_k` and `p_q` project the embedding
//! of a distance.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lora_adapter::{project, rows_of};

use super::batch::EncoderBatch;
use super::qkv::Qkv;
use super::scope::Scope;
use super::spec::{Buckets, Disentangled, PositionProjections, Spec};
use super::view::padding;
use crate::named::{Named, unnamed_module};
use crate::norm::LayerNorm;
use crate::weigh::weigh;

/// The embeddings of distances, which all layers share.
#[derive(Debug, Clone)]
pub struct RelativeEmbeddings {
    /// `[2 * span, hidden]`
    pub rows: Named<Embedding>,
    /// Over the rows.
    pub norm: Option<Named<LayerNorm>>,
    spec: Disentangled,
}

unnamed_module!(RelativeEmbeddings { rows, norm } with { spec });

/// The projections of distances in one layer.
#[derive(Debug, Clone)]
pub struct PositionLinears {
    /// As a key, `[hidden, hidden]`.
    pub key: Option<Named<Linear>>,
    /// As a query, `[hidden, hidden]`.
    pub query: Option<Named<Linear>>,
}

unnamed_module!(PositionLinears { key, query });

/// The distances of one batch.
pub(crate) struct RelativeRows {
    spec: Disentangled,
    /// The embeddings of the distances that occur, `[reached, hidden]`.
    rows: Tensor<2>,
    /// For query `i` and key `j` the row of `i - j`, `[1, 1, seq, seq]`.
    forth: Tensor<4, Int>,
    /// For key `j` and query `i` the row of `i - j`, seen from the key. `[1, 1, seq, seq]`
    back: Tensor<4, Int>,
    padding: Option<Tensor<4>>,
}

/// Distances as keys and as queries, `[1 or batch, heads, reached, d_head]` each.
pub(crate) struct Places {
    key: Option<Tensor<4>>,
    query: Option<Tensor<4>>,
}

impl PositionLinears {
    pub(crate) fn build(spec: &Spec, scope: &mut Scope<'_, '_>) -> Option<Self> {
        let d = spec.hidden_size;
        let attention = spec.disentangled.as_ref()?;
        let PositionProjections::Own {
            key,
            key_bias,
            query,
        } = attention.projections
        else {
            return None;
        };
        Some(Self {
            key: attention
                .content_to_position
                .then(|| scope.linear(key, [d, d], key_bias)),
            query: attention
                .position_to_content
                .then(|| scope.linear(query, [d, d], true)),
        })
    }
}

impl RelativeEmbeddings {
    pub(crate) fn build(spec: &Spec, scope: &mut Scope<'_, '_>) -> Option<Self> {
        let attention = spec.disentangled.as_ref()?;
        let d = spec.hidden_size;
        Some(Self {
            rows: scope.embedding(attention.embeddings, [2 * attention.span, d]),
            norm: attention.norm.map(|name| scope.norm(name, d, spec.norm)),
            spec: attention.clone(),
        })
    }

    pub(crate) fn of(&self, batch: &EncoderBatch) -> RelativeRows {
        let ([_, seq], device) = (batch.ids.dims(), batch.ids.device());
        let span = self.spec.span as i64;
        // Row `span + b` is that of the bucket `b`, and the last one of all beyond.
        let row = |distance: i64| {
            let bucket = self.spec.buckets.of(distance, self.spec.span);
            (span + bucket).clamp(0, 2 * span - 1)
        };
        let furthest = seq as i64 - 1;
        let (first, last) = (row(-furthest), row(furthest));
        let rows = self.rows.weight.val();
        let rows = rows.narrow(0, first as usize, (last - first + 1) as usize);
        let rows = match &self.norm {
            Some(norm) => norm.forward(rows),
            None => rows,
        };
        // From the key's side the mirrored distance has the mirrored bucket, which is not the bucket of the mirrored
        // distance where a row of its own is clamped.
        let back = |distance: i64| {
            let bucket = self.spec.buckets.of(distance, self.spec.span);
            (span - bucket).clamp(0, 2 * span - 1)
        };
        RelativeRows {
            spec: self.spec.clone(),
            rows,
            forth: distances(seq, |distance| row(distance) - first, &device),
            back: distances(seq, |distance| back(distance) - first, &device),
            padding: padding(seq, &batch.lengths, &device),
        }
    }
}

/// What `row` says of `i - j` for each `i` and `j`, `[1, 1, seq, seq]`.
fn distances(seq: usize, row: impl Fn(i64) -> i64, device: &Device) -> Tensor<4, Int> {
    let near = seq as i64;
    let by_distance: Vec<i32> = (1 - near..near)
        .map(|distance| row(distance) as i32)
        .collect();
    let values: Vec<i32> = (0..seq)
        .flat_map(|i| (0..seq).map(move |j| i + seq - 1 - j))
        .map(|at| by_distance[at])
        .collect();
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(values, [1, 1, seq, seq]), &device)
}

impl Buckets {
    /// The bucket of a distance, of the distance's sign.
    fn of(self, distance: i64, span: usize) -> i64 {
        let (middle, far) = (span as i64 / 2, distance.abs());
        match self {
            Self::Logarithmic { max_distance } if far > middle => {
                // In f32 and in this order: at the edge of a bucket the rounding decides, and it must be the one that the
                // model was trained with.
                let middle = middle as f32;
                let steepness = ((max_distance as f64 - 1.0) / middle as f64) as f32;
                let part = (far as f32 / middle).ln() / steepness.ln() * (middle - 1.0);
                ((part.ceil() + middle) as i64) * distance.signum()
            }
            _ => distance,
        }
    }
}

impl RelativeRows {
    /// The distances as keys and queries of one layer.
    ///
    /// Where the rows of a batch have adapters of their own, each has its own distances.
    pub(crate) fn project(
        &self,
        content: &Qkv,
        own: Option<&PositionLinears>,
        batch: usize,
    ) -> Places {
        let heads = content.n_heads();
        let split = |linear: &Linear| -> Tensor<4> {
            let copies = if rows_of(linear).is_some() { batch } else { 1 };
            let [reached, d] = self.rows.dims();
            let rows = self.rows.clone().unsqueeze::<3>();
            let x = project(linear, rows.expand([copies, reached, d])); // [copies, reached, hidden]
            x.reshape([copies, reached, heads, d / heads])
                .swap_dims(1, 2)
        };
        match own {
            Some(own) => Places {
                key: own.key.as_deref().map(split),
                query: own.query.as_deref().map(split),
            },
            None => {
                let Disentangled {
                    content_to_position,
                    position_to_content,
                    ..
                } = self.spec;
                Places {
                    key: content_to_position.then(|| split(&content.linears[1])),
                    query: position_to_content.then(|| split(&content.linears[0])),
                }
            }
        }
    }

    /// # Shapes
    ///
    /// - q, k, v, output: `[batch, heads, seq, d_head]`
    pub(crate) fn attention(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        places: Places,
    ) -> Tensor<4> {
        let [batch, heads, seq, d_head] = q.dims();
        let whole = [batch, heads, seq, seq];
        let terms = 1 + usize::from(places.key.is_some()) + usize::from(places.query.is_some());
        let scale = ((d_head * terms) as f64).powf(-0.5);
        let q = q * scale;
        let mut scores = q.clone().matmul(k.clone().swap_dims(2, 3)); // [batch, heads, seq, seq]
        if let Some(key) = places.key {
            let by_row = q.matmul(key.swap_dims(2, 3)); // [batch, heads, seq, reached]
            scores = scores + by_row.gather(3, self.forth.clone().expand(whole));
        }
        if let Some(query) = places.query {
            let by_row = (k * scale).matmul(query.swap_dims(2, 3)); // [batch, heads, seq, reached]
            let of_key = by_row.gather(3, self.back.clone().expand(whole));
            scores = scores + of_key.swap_dims(2, 3);
        }
        weigh(scores, self.padding.clone(), v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_buckets_of_their_own_and_far_ones_share() {
        let buckets = Buckets::Logarithmic { max_distance: 512 };
        let of = |distance| buckets.of(distance, 256);
        assert_eq!([of(0), of(5), of(-128), of(128)], [0, 5, -128, 128]);
        // ln(129 / 128) / ln(511 / 128) * 127 is 0.7.
        assert_eq!([of(129), of(-129)], [129, -129]);
        assert_eq!([of(130), of(131)], [130, 131]);
        assert_eq!(of(511), 255);
        assert!(of(300) < 300 && of(300) == -of(-300));
        assert_eq!(Buckets::Each.of(-700, 512), -700);
    }
}
