"""The encoders of generate.py: families, heads, and batches for them.

A family is an entry of FAMILIES, a tiny configuration with every odd feature turned on and PEFT's default targets; a case is
an entry of CASES, a family with the head of a task.
"""

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

MODELS = {
    "sequence": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "sets": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
    "choice": AutoModelForMultipleChoice,
    "masked": AutoModelForMaskedLM,
}
PER_ROW = ("sequence", "regression", "sets", "choice")

# Tokens of each row, padded on the right; and how many of them are of the first segment.
ROWS = [(11, 4), (7, 7), (9, 2), (5, 3)]
CHOICES = 2

COMMON = dict(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=30,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
DEBERTA = dict(
    relative_attention=True,
    pos_att_type=["p2c", "c2p"],
    layer_norm_eps=1e-3,
    pad_token_id=0,
)

# Configuration class, its arguments, LoRA's targets.
FAMILIES = {
    "bert": (BertConfig, dict(COMMON, layer_norm_eps=1e-3), ["query", "value"]),
    "roberta": (
        RobertaConfig,
        dict(COMMON, layer_norm_eps=1e-3, type_vocab_size=2, pad_token_id=2, hidden_act="gelu_new"),
        ["query", "value"],
    ),
    "xlm_roberta": (
        XLMRobertaConfig,
        dict(COMMON, layer_norm_eps=1e-5, type_vocab_size=1, pad_token_id=1),
        ["query", "value"],
    ),
    "distilbert": (
        DistilBertConfig,
        dict(
            vocab_size=40,
            dim=16,
            n_layers=2,
            n_heads=2,
            hidden_dim=24,
            max_position_embeddings=30,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
        ),
        ["q_lin", "v_lin"],
    ),
    "modernbert": (
        ModernBertConfig,
        dict(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=30,
            local_attention=4,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 700.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            },
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        ["Wqkv"],
    ),
    # Every bias that can be, and the mean in front of the head.
    "modernbert_biased": (
        ModernBertConfig,
        dict(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=30,
            local_attention=6,
            norm_bias=True,
            attention_bias=True,
            mlp_bias=True,
            classifier_bias=True,
            classifier_pooling="mean",
            classifier_activation="relu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        ["Wqkv", "Wo"],
    ),
    "deberta": (
        DebertaConfig,
        dict(COMMON, **DEBERTA, type_vocab_size=2, max_relative_positions=6, position_biased_input=True),
        ["in_proj"],
    ),
    "deberta_v2": (
        DebertaV2Config,
        dict(
            COMMON,
            **DEBERTA,
            type_vocab_size=2,
            position_biased_input=True,
            max_relative_positions=7,
            embedding_size=12,
            conv_kernel_size=3,
            conv_act="gelu",
            conv_groups=2,
            pooler_hidden_act="tanh",
        ),
        ["query_proj", "value_proj"],
    ),
    "deberta_v3": (
        DebertaV2Config,
        dict(
            COMMON,
            **DEBERTA,
            type_vocab_size=0,
            position_biased_input=False,
            position_buckets=6,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
        ),
        ["query_proj", "value_proj"],
    ),
}

# Heads of masked language models that are not the transposed embedding.
for name in ("bert", "roberta", "distilbert", "modernbert", "deberta_v2"):
    config, arguments, targets = FAMILIES[name]
    FAMILIES[f"{name}_untied"] = (config, dict(arguments, tie_word_embeddings=False), targets)

# With these, PEFT trains and saves the head beside the adapter.
TASK_TYPES = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS"}

# (family, task, seed, whether an adapter is tried on it: alone, or with the "head").
CASES = [
    ("bert", "sequence", 41, True),
    ("bert", "regression", 42, False),
    ("bert", "sets", 43, False),
    ("bert", "token", 44, "head"),
    ("bert", "choice", 45, False),
    ("bert", "masked", 46, True),
    ("roberta", "sequence", 56, "head"),
    ("roberta", "token", 52, False),
    ("roberta", "choice", 53, False),
    ("roberta", "masked", 54, False),
    ("xlm_roberta", "sequence", 55, True),
    ("distilbert", "sequence", 65, "head"),
    ("distilbert", "token", 62, False),
    ("distilbert", "choice", 63, False),
    ("distilbert", "masked", 64, False),
    ("modernbert", "sequence", 71, True),
    ("modernbert", "token", 72, False),
    ("modernbert", "choice", 73, False),
    ("modernbert", "masked", 74, False),
    ("modernbert_biased", "sequence", 75, True),
    ("deberta", "sequence", 81, True),
    ("deberta", "masked", 82, False),
    ("deberta_v2", "sequence", 83, True),
    ("deberta_v2", "masked", 84, False),
    ("deberta_v3", "sequence", 85, True),
    ("deberta_v3", "token", 86, False),
    ("deberta_v3", "choice", 87, False),
    ("deberta_v3", "masked", 88, False),
    ("bert_untied", "masked", 48, True),
    ("roberta_untied", "masked", 58, False),
    ("distilbert_untied", "masked", 66, False),
    ("modernbert_untied", "masked", 76, False),
    ("deberta_v2_untied", "masked", 89, False),
]


def cases(case):
    """The cases, made by the constructor `case`."""
    made = []
    for family, task, seed, adapted in CASES:
        config, arguments, targets = FAMILIES[family]
        labels = {"regression": 1, "sets": 4}.get(task, 3)
        kind = {"sets": "multi_label_classification"}.get(task)
        extra = dict(problem_type=kind) if kind else {}
        made.append(
            case(
                name=f"{family}_{task}",
                seed=seed,
                config=config(**arguments, num_labels=labels, **extra),
                lora=dict(
                    target_modules=targets,
                    task_type=TASK_TYPES[task] if adapted == "head" else None,
                )
                if adapted
                else None,
                encoder=task,
            )
        )
    return made


def batch(case, generator):
    """Rows with segments where the family knows them, and labels for the task."""
    config, task = case.config, case.encoder
    rows = ROWS if task == "choice" else ROWS[:3]
    width = max(total for total, _ in rows)
    input_ids = torch.full((len(rows), width), config.pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    token_type_ids = torch.zeros_like(input_ids)
    token_labels = torch.full_like(input_ids, -100)
    for row, (total, first) in enumerate(rows):
        input_ids[row, :total] = torch.randint(3, config.vocab_size, (total,), generator=generator)
        attention_mask[row, :total] = 1
        token_type_ids[row, first:total] = 1
        known = config.vocab_size if task == "masked" else config.num_labels
        token_labels[row, 1:total] = torch.randint(0, known, (total - 1,), generator=generator)
    inputs = dict(input_ids=input_ids, attention_mask=attention_mask)
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = token_type_ids
    if task == "regression":
        inputs["labels"] = torch.randn(len(rows), generator=generator)
    elif task == "sets":
        inputs["labels"] = torch.randint(0, 2, (len(rows), config.num_labels), generator=generator).float()
    elif task == "choice":
        inputs["labels"] = torch.randint(0, CHOICES, (len(rows) // CHOICES,), generator=generator)
    elif task == "sequence":
        inputs["labels"] = torch.randint(0, config.num_labels, (len(rows),), generator=generator)
    else:
        inputs["labels"] = token_labels
    return inputs


def model_inputs(case, inputs):
    """As the model wants them: the rows of one question together."""
    if case.encoder != "choice":
        return inputs
    grouped = {key: value.view(-1, CHOICES, value.shape[-1]) for key, value in inputs.items() if key != "labels"}
    return grouped | {key: value for key, value in inputs.items() if key == "labels"}
