"""The decoders' families, each a tiny model with its odd features turned on at these lengths.

An entry is a `Case` of generate.py by its fields. Rows have up to 11 tokens and generation reaches 13, so windows of 3 to 6
tokens hide some, and scaling meant for long contexts acts. No `target_modules` means those that PEFT has for the family.
"""

import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

TOKENS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, attention_dropout=0.0)
SHAPE = dict(
    hidden_size=32,
    intermediate_size=37,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    **TOKENS,
)
GROUPED = dict(num_key_value_heads=2, rms_norm_eps=3e-5, **SHAPE)


def rope(theta, **scaling):
    return {"rope_type": "default", "rope_theta": theta, **scaling}


def entries():
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    long_rope = dict(
        rope_type="longrope",
        short_factor=[1.0, 1.3, 1.7],
        long_factor=[1.1, 2.0, 4.5],
        partial_rotary_factor=0.75,
        original_max_position_embeddings=32,
    )
    return [
        dict(
            name="llama_yarn",
            seed=101,
            config=LlamaConfig(vocab_size=57, mlp_bias=True, rope_parameters=rope(333.0, **yarn), **GROUPED),
            lora=dict(),
            variants={
                "linear": dict(rope_parameters=rope(333.0, rope_type="linear", factor=3.0)),
                # Beyond the 8 positions of pretraining, up to 16.
                "dynamic": dict(
                    max_position_embeddings=8, rope_parameters=rope(333.0, rope_type="dynamic", factor=2.0)
                ),
                "yarn_between": dict(
                    rope_parameters=rope(333.0, **yarn, beta_fast=4.0, beta_slow=0.3, truncate=False)
                ),
                "yarn_mscale": dict(rope_parameters=rope(333.0, **yarn, mscale=0.7, mscale_all_dim=1.3)),
                "longrope": dict(
                    rope_parameters=rope(
                        333.0,
                        rope_type="longrope",
                        factor=4.0,
                        short_factor=[1.0] * 4,
                        long_factor=[1.0, 1.5, 2.0, 3.0],
                        original_max_position_embeddings=8,
                    )
                ),
            },
        ),
        dict(
            name="mistral",
            seed=103,
            config=MistralConfig(vocab_size=59, sliding_window=4, rope_parameters=rope(1000.0), **GROUPED),
            lora=dict(),
        ),
        dict(
            name="qwen2_window",
            seed=107,
            config=Qwen2Config(
                vocab_size=53,
                use_sliding_window=True,
                sliding_window=3,
                max_window_layers=1,
                rope_parameters=rope(2000.0),
                **GROUPED,
            ),
            lora=dict(),
        ),
        dict(
            name="qwen3",
            seed=109,
            config=Qwen3Config(
                vocab_size=55,
                head_dim=10,
                attention_bias=True,
                tie_word_embeddings=True,
                rope_parameters=rope(5000.0),
                **GROUPED,
            ),
            lora=dict(),
        ),
        dict(
            name="gemma2",
            seed=113,
            config=Gemma2Config(
                vocab_size=61,
                head_dim=6,
                query_pre_attn_scalar=7,
                attn_logit_softcapping=2.5,
                final_logit_softcapping=4.0,
                sliding_window=4,
                rope_parameters=rope(900.0),
                **GROUPED,
            ),
            lora=dict(),
        ),
        dict(
            name="gemma3",
            seed=127,
            config=Gemma3TextConfig(
                vocab_size=61,
                head_dim=6,
                query_pre_attn_scalar=7,
                final_logit_softcapping=6.0,
                sliding_window=4,
                sliding_window_pattern=2,
                rope_parameters={
                    "full_attention": rope(5000.0, rope_type="linear", factor=4.0),
                    "sliding_attention": rope(50.0),
                },
                **GROUPED,
            ),
            lora=dict(),
            variants={
                # As published folders have it.
                "version_4": dict(
                    rope_parameters=None,
                    layer_types=None,
                    rope_theta=5000.0,
                    rope_local_base_freq=50.0,
                    rope_scaling=dict(rope_type="linear", factor=4.0),
                    sliding_window_pattern=2,
                    _sliding_window_pattern=None,
                ),
            },
        ),
        dict(
            name="phi3",
            seed=131,
            config=Phi3Config(
                vocab_size=63,
                sliding_window=5,
                original_max_position_embeddings=32,
                rope_parameters=rope(700.0, **long_rope),
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                **GROUPED,
            ),
            # PEFT has no default for it.
            lora=dict(target_modules=["qkv_proj"]),
            variants={
                # The rows are longer than 8 tokens: the other divisors, and another factor on what is rotated.
                "long": dict(original_max_position_embeddings=8),
                "version_4": dict(
                    rope_parameters=None,
                    rope_theta=700.0,
                    partial_rotary_factor=0.5,
                    rope_scaling=dict(type="longrope", short_factor=[1.0, 2.0], long_factor=[3.0, 4.0]),
                    original_max_position_embeddings=8,
                ),
            },
        ),
        dict(
            name="gpt_neox",
            seed=137,
            config=GPTNeoXConfig(
                vocab_size=58,
                layer_norm_eps=3e-5,
                rope_parameters=rope(3000.0, partial_rotary_factor=0.5),
                hidden_dropout=0.0,
                **SHAPE,
            ),
            lora=dict(),
            variants={
                "sequential": dict(use_parallel_residual=False),
                "version_4": dict(rope_parameters=None, rotary_emb_base=100.0, rotary_pct=0.25, hidden_act="gelu_fast"),
            },
        ),
        dict(
            name="mixtral",
            seed=139,
            config=MixtralConfig(
                vocab_size=54,
                sliding_window=6,
                num_local_experts=4,
                num_experts_per_tok=2,
                rope_parameters=rope(4000.0),
                **GROUPED,
            ),
            # As PEFT has them; left out, it finds none beside experts.
            lora=dict(target_modules=["q_proj", "v_proj"]),
        ),
        dict(
            name="qwen3_moe",
            seed=149,
            config=Qwen3MoeConfig(
                vocab_size=52,
                head_dim=6,
                num_experts=5,
                num_experts_per_tok=3,
                moe_intermediate_size=19,
                decoder_sparse_step=2,
                rope_parameters=rope(4000.0),
                **GROUPED,
            ),
            # PEFT has no default for it.
            lora=dict(target_modules=["q_proj", "v_proj"]),
            variants={"normalized": dict(norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[0])},
        ),
    ]


def sequence_logits(folder, inputs, seed):
    """Labels of whole rows: what a head for three of them makes of each row's last token."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if hasattr(model.config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")
    with torch.no_grad():
        noise = torch.randn(model.score.weight.shape, generator=torch.Generator().manual_seed(seed))
        model.score.weight.copy_(noise)
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return {"sequence.weight": noise, "sequence.logits": logits}
