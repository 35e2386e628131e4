//! What a configuration of DeBERTa means: the parts of the encoder and of its heads.

use super::{DebertaConfig, DebertaVersion};
use crate::activation::Activation;
use crate::encoder::families::bert::NAMES as BERT_NAMES;
use crate::encoder::spec::{
    Buckets, ConvSpec, Disentangled, HeadSpec, LearnedPositions, Names, NormOrder, NormSpec,
    OutputSpec, Pooling, PositionProjections, QkvLayout, Spec, Task, TransformSpec, ViewSpec,
};

const NAMES: Names = Names {
    qkv: &[
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
    ],
    ..BERT_NAMES
};

const V1_NAMES: Names = Names {
    qkv: &["attention.self.in_proj"],
    ..BERT_NAMES
};

impl DebertaConfig {
    pub(super) fn parts(&self) -> Spec {
        let v1 = self.version == DebertaVersion::V1;
        Spec {
            prefix: "deberta",
            names: if v1 { V1_NAMES } else { NAMES },
            vocab_size: self.vocab_size,
            embedding_size: self.embedding_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            n_layers: self.num_hidden_layers,
            n_heads: self.num_attention_heads,
            norm: self.norm(),
            order: NormOrder::Post,
            activation: Activation::from_name(&self.hidden_act).unwrap_or(Activation::Gelu),
            gated: false,
            attention_bias: true,
            mlp_bias: true,
            qkv: if v1 {
                QkvLayout::ByHead
            } else {
                QkvLayout::Separate
            },
            learned: self.position_biased_input.then_some(LearnedPositions {
                count: self.max_position_embeddings,
                first: 0,
            }),
            max_length: self.max_position_embeddings,
            segments: self.type_vocab_size,
            views: vec![ViewSpec::default()],
            view_of_layer: Vec::new(),
            disentangled: self.disentangled(),
            conv: self.conv(),
            std: self.initializer_range,
        }
    }

    pub(super) fn head_of(&self, task: Task) -> Option<HeadSpec> {
        let dense = |dense: &str, activation: &str, norm: Option<&str>| TransformSpec {
            dense: dense.into(),
            bias: true,
            activation: Activation::from_name(activation).unwrap_or(Activation::Gelu),
            norm: norm.map(|name| (name.into(), self.norm())),
        };
        let with = |transform, output: OutputSpec, modules: &[&str]| HeadSpec {
            pooling: Pooling::First,
            transform,
            output,
            modules: modules.iter().map(|name| (*name).into()).collect(),
        };
        let classifier = || OutputSpec::Linear("classifier".into());
        match task {
            Task::MultipleChoice if self.version == DebertaVersion::V1 => None,
            Task::SequenceClassification | Task::MultipleChoice => {
                let pooler = dense("pooler.dense", &self.pooler_hidden_act, None);
                Some(with(Some(pooler), classifier(), &["pooler", "classifier"]))
            }
            Task::TokenClassification => Some(with(None, classifier(), &["classifier"])),
            Task::MaskedLm if self.legacy => {
                let norm = Some("cls.predictions.transform.LayerNorm");
                let transform = dense("cls.predictions.transform.dense", &self.hidden_act, norm);
                let output = OutputSpec::of_words(
                    self.tie_word_embeddings,
                    "cls.predictions.decoder",
                    Some("cls.predictions"),
                    "deberta.embeddings.word_embeddings.weight",
                );
                Some(with(Some(transform), output, &["cls.predictions"]))
            }
            Task::MaskedLm => {
                let norm = Some("lm_predictions.lm_head.LayerNorm");
                let transform = dense("lm_predictions.lm_head.dense", &self.hidden_act, norm);
                let output = OutputSpec::Embedding {
                    bias: Some("lm_predictions.lm_head".into()),
                    copies: Vec::new(),
                };
                Some(with(Some(transform), output, &["lm_predictions.lm_head"]))
            }
        }
    }

    fn norm(&self) -> NormSpec {
        NormSpec {
            eps: self.layer_norm_eps,
            bias: true,
        }
    }

    fn disentangled(&self) -> Option<Disentangled> {
        let has = |term: &str| self.pos_att_type.iter().any(|known| known == term);
        let v1 = self.version == DebertaVersion::V1;
        let positions = usize::try_from(self.max_relative_positions);
        let positions = positions.ok().filter(|count| *count > 0);
        let max_distance = positions.unwrap_or(self.max_position_embeddings);
        let buckets = usize::try_from(self.position_buckets).ok();
        let buckets = buckets.filter(|count| *count > 0 && !v1);
        let projections = match v1 || !self.share_att_key {
            true => PositionProjections::Own {
                key: if v1 {
                    "attention.self.pos_proj"
                } else {
                    "attention.self.pos_key_proj"
                },
                key_bias: !v1,
                query: if v1 {
                    "attention.self.pos_q_proj"
                } else {
                    "attention.self.pos_query_proj"
                },
            },
            false => PositionProjections::Shared,
        };
        self.relative_attention.then(|| Disentangled {
            content_to_position: has("c2p"),
            position_to_content: has("p2c"),
            span: buckets.unwrap_or(max_distance),
            buckets: match buckets {
                Some(_) => Buckets::Logarithmic { max_distance },
                None => Buckets::Each,
            },
            embeddings: "encoder.rel_embeddings",
            norm: (!v1 && self.norm_rel_ebd == "layer_norm").then_some("encoder.LayerNorm"),
            projections,
        })
    }

    fn conv(&self) -> Option<ConvSpec> {
        let has = self.version == DebertaVersion::V2 && self.conv_kernel_size > 0;
        has.then(|| ConvSpec {
            name: "encoder.conv",
            width: self.conv_kernel_size,
            groups: self.conv_groups,
            activation: Activation::from_name(&self.conv_act).unwrap_or(Activation::Tanh),
        })
    }
}
