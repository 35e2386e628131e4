"""The encoder-decoders of generate.py."""

import torch
from transformers import MT5Config, T5Config

# Tokens of each row, padded on the right, and of what is to be written for it.
ROWS = [(11, 6), (4, 9), (7, 3)]

COMMON = dict(
    vocab_size=45,
    d_model=16,
    d_kv=6,
    d_ff=24,
    num_layers=2,
    num_heads=2,
    # Distances up to 11 reach every kind of bucket.
    relative_attention_num_buckets=8,
    relative_attention_max_distance=9,
    dropout_rate=0.0,
    pad_token_id=0,
    eos_token_id=1,
    decoder_start_token_id=0,
)


def cases(case):
    """The cases, made by the constructor `case`."""
    lora = dict(target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    return [
        case(name="t5", seed=91, config=T5Config(**COMMON), lora=lora, seq2seq=True),
        case(
            name="t5_v1_1",
            seed=92,
            config=T5Config(
                **dict(COMMON, num_layers=3),
                num_decoder_layers=2,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            ),
            lora=lora,
            seq2seq=True,
            # As T5 1.1 and Flan-T5 are published; Transformers 5 writes another layout.
            config_removals=("scale_decoder_outputs", "dense_act_fn", "is_gated_act"),
            config_additions={"tie_word_embeddings": False},
        ),
        case(
            name="mt5",
            seed=93,
            config=MT5Config(**dict(COMMON, feed_forward_proj="gated-gelu")),
            lora=lora,
            seq2seq=True,
            # As mT5 is published.
            config_removals=("dense_act_fn", "is_gated_act"),
            config_additions={"tie_word_embeddings": False},
        ),
    ]


def untie(case, model):
    """Transformers 5 ties the head of every new T5; the published ones of 1.1 and mT5 have their own."""
    if not getattr(case.config, "scale_decoder_outputs", False):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())


def batch(case, generator):
    vocab = case.config.vocab_size
    ids = torch.zeros(len(ROWS), max(read for read, _ in ROWS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(ROWS), max(written for _, written in ROWS)), -100, dtype=torch.int64)
    for row, (read, written) in enumerate(ROWS):
        ids[row, :read] = torch.randint(2, vocab, (read,), generator=generator)
        mask[row, :read] = 1
        labels[row, :written] = torch.randint(2, vocab, (written,), generator=generator)
    before = torch.zeros_like(labels)
    before[:, 1:] = labels[:, :-1].clamp(min=0)
    return dict(input_ids=ids, attention_mask=mask, decoder_input_ids=before, labels=labels)


def generations(case, model, base, generator, new_tokens, min_margin):
    """The first rows whose every greedy choice is clear of rounding, and which the adapter changes."""

    def greedy(model, inputs, use_cache):
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=new_tokens,
            do_sample=False,
            use_cache=use_cache,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = torch.stack(output.scores).topk(2, dim=-1).values
        return output.sequences[:, 1:].contiguous(), (best[..., 0] - best[..., 1]).min().item()

    for _ in range(100):
        inputs = batch(case, generator)
        (cached, margin), (uncached, _) = greedy(model, inputs, True), greedy(model, inputs, False)
        assert torch.equal(cached, uncached)
        if margin > min_margin and not torch.equal(greedy(base, inputs, True)[0], cached):
            return {
                "generate.input_ids": inputs["input_ids"],
                "generate.attention_mask": inputs["attention_mask"],
                "generate.new_ids": cached,
            }
    raise RuntimeError("no row has clear greedy choices: take another seed")
