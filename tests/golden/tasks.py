"""Losses and gradients of preferences by TRL's own trainers, and metrics by the libraries that define them.

Writes `tasks/reference.safetensors`, on the model of the case `llama` under an adapter with random factors, and
`tasks/metrics.json`. Of ORPO, TRL counts the prompt into the likelihood of the better answer and averages it over the batch's
tokens; the paper, and burn-lora, take the mean over each answer. So that part is the paper's formula here, and the odds ratio is
TRL's. DPO's label smoothing is no longer in TRL: it is the formula of its author.

    python tasks.py           # write the files again
    python tasks.py --verify  # compare with them (1e-5)
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from safetensors.torch import load_file, save_file
from scipy import stats
from seqeval.metrics import f1_score as entity_f1, precision_score as entity_precision, recall_score as entity_recall
from sklearn import metrics as sk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.experimental.orpo import ORPOTrainer

HERE = Path(__file__).parent
OUT = HERE / "tasks"
BETA = 0.3
SMOOTHING = 0.2
EOS = 2
# Tokens of prompt, better and worse answer; the end of the sequence comes behind each answer.
PAIRS = [(4, 3, 5), (2, 6, 1), (5, 2, 2)]


def llama():
    return AutoModelForCausalLM.from_pretrained(HERE / "llama" / "model", dtype=torch.float32)


def words():
    """A tokenizer of which the word `w7` is the token 7."""
    vocabulary = {f"w{at}": at for at in range(llama().config.vocab_size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=f"w{EOS}", pad_token="w0", unk_token="w0")


def rows():
    generator = torch.Generator().manual_seed(5)
    draw = lambda count: torch.randint(3, llama().config.vocab_size, (count,), generator=generator).tolist()
    # A space behind each, so that what follows is a word of its own.
    text = lambda ids: "".join(f"w{at} " for at in ids)
    names = ("prompt", "chosen", "rejected")
    return [dict(zip(names, (text(draw(count)) for count in counts))) for counts in PAIRS]


def trainer(folder, loss):
    kept = json.loads((HERE / "llama" / "adapter" / "adapter_config.json").read_text())
    lora = LoraConfig(
        r=kept["r"], lora_alpha=kept["lora_alpha"], target_modules=kept["target_modules"], task_type="CAUSAL_LM"
    )
    config = DPOConfig(
        output_dir=folder,
        beta=BETA,
        loss_type=[loss],
        per_device_train_batch_size=len(PAIRS),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        max_length=64,
        remove_unused_columns=False,
    )
    # A new adapter, so that the reference is the model without it; a trained one would be its own reference.
    made = DPOTrainer(
        model=llama(), args=config, train_dataset=Dataset.from_list(rows()), processing_class=words(), peft_config=lora
    )
    start = load_file(HERE / "llama" / "reference.safetensors")
    named = dict(made.model.named_parameters())
    for key, value in start.items():
        if key.startswith("init.weight/"):
            name = key.removeprefix("init.weight/").replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default")
            named[name].data.copy_(value)
    return made


def log_probs(model, batch):
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    sums = ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=False)
    means = ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    return sums, means


def gradients(model):
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name.replace(".default", "")] = parameter.grad.detach().clone()
            parameter.grad = None
    return found


def preference():
    tensors = {}

    def note(name, model, loss):
        loss.backward()
        tensors[f"{name}.loss"] = loss.detach().reshape(1)
        for key, gradient in gradients(model).items():
            tensors[f"{name}.grad/{key}"] = gradient

    with tempfile.TemporaryDirectory() as folder:
        for loss in ("sigmoid", "ipo"):
            made = trainer(folder, loss)
            items = [made.train_dataset[at] for at in range(len(PAIRS))]
            batch = made.data_collator(items)
            made.model.train()
            note(loss, made.model, made.compute_loss(made.model, dict(batch)))
            told = made._metrics["train"]
            for name in ("chosen", "rejected", "accuracies", "margins"):
                tensors[f"{loss}.rewards/{name}"] = torch.tensor([told[f"rewards/{name}"][-1]])
        model = made.model
    for key in ("input_ids", "attention_mask", "completion_mask"):
        tensors[key] = batch[key].to(torch.int64)

    sums, means = log_probs(model, batch)
    with torch.no_grad(), model.disable_adapter():
        reference, _ = log_probs(model, batch)
    chosen, rejected = (sums - reference).chunk(2)
    margin = BETA * (chosen - rejected)
    smoothed = -(1 - SMOOTHING) * F.logsigmoid(margin) - SMOOTHING * F.logsigmoid(-margin)
    note("smoothed", model, smoothed.mean())

    _, means = log_probs(model, batch)
    chosen, rejected = means.chunk(2)
    stub = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    ratio, rewards_chosen, rewards_rejected, _, _ = ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)
    tensors["orpo.rewards/chosen"] = rewards_chosen.mean().reshape(1)
    tensors["orpo.rewards/rejected"] = rewards_rejected.mean().reshape(1)
    note("orpo", model, (-chosen - ratio).mean())
    tensors["beta"], tensors["label_smoothing"] = torch.tensor([BETA]), torch.tensor([SMOOTHING])
    return {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


TEXTS = [
    ("The cat sat on the mat.", "The cat sat on the mat."),
    ("A dog, named Rex, costs $3.50 (or 1,000 yen)!", "A dog named Rex costs $3.50, or 1,000 yen."),
    ("it's 2-3 times \"better\" &amp; well-known", "It's 2-3 times better & well-known..."),
    ("  ", "nothing was written"),
    ("naïve Ünïcode résumé costs 5.", "naïve unicode resume costs 5.,"),
    ("the the the the the", "the cat"),
]
SHORT = [("a b c d e f", "a x c y e z"), ("g h", "g i")]
TAGS = [
    (["B-PER", "I-PER", "O", "B-LOC", "O"], ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]),
    (["O", "I-LOC", "I-LOC", "B-LOC", "I-PER"], ["O", "B-LOC", "I-LOC", "B-LOC", "B-PER"]),
    (["I-ORG", "O", "I-ORG", "B-ORG", "B-ORG"], ["I-ORG", "I-ORG", "O", "B-ORG", "I-ORG"]),
    (["B-MISC"], ["O"]),
]


def scores():
    draw = np.random.default_rng(3)
    found = dict(classes=[], values=[], texts=[], tags={})
    for count, labels in ((40, 2), (60, 4), (5, 2)):
        wanted = draw.integers(0, labels, count)
        made = np.where(draw.random(count) < 0.6, wanted, draw.integers(0, labels, count))
        if count == 5:
            made[:] = 0
        found["classes"].append(
            dict(
                made=made.tolist(),
                wanted=wanted.tolist(),
                accuracy=sk.accuracy_score(wanted, made),
                f1=sk.f1_score(wanted, made, zero_division=0) if labels == 2 else None,
                f1_macro=sk.f1_score(wanted, made, average="macro", zero_division=0),
                matthews=sk.matthews_corrcoef(wanted, made),
            )
        )
    for ties in (False, True):
        wanted = draw.normal(size=30)
        made = wanted * 0.5 + draw.normal(size=30) + 3
        if ties:
            wanted, made = wanted.round(), made.round()
        found["values"].append(
            dict(
                made=made.tolist(),
                wanted=wanted.tolist(),
                pearson=stats.pearsonr(made, wanted).statistic,
                spearman=stats.spearmanr(made, wanted).statistic,
            )
        )
    scorer = RougeScorer(["rougeL"])
    for pairs in (TEXTS, SHORT, TEXTS[3:4], TEXTS[:2]):
        made, wanted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        found["texts"].append(
            dict(
                pairs=pairs,
                bleu=BLEU().corpus_score(made, [wanted]).score,
                rouge_l=float(np.mean([scorer.score(w, m)["rougeL"].fmeasure for m, w in pairs])),
            )
        )
    made, wanted = [pair[0] for pair in TAGS], [pair[1] for pair in TAGS]
    found["tags"] = dict(
        made=made,
        wanted=wanted,
        precision=float(entity_precision(wanted, made)),
        recall=float(entity_recall(wanted, made)),
        f1=float(entity_f1(wanted, made)),
    )
    return found


def close(left, right, path=""):
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            close(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for at, (a, b) in enumerate(zip(left, right)):
            close(a, b, f"{path}[{at}]")
    elif isinstance(left, float):
        assert abs(left - right) < 1e-9, path
    else:
        assert left == right, path


def main():
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    tensors, found = preference(), json.loads(json.dumps(scores()))
    if arguments.verify:
        kept = load_file(OUT / "reference.safetensors")
        assert kept.keys() == tensors.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(tensor, kept[key], rtol=1e-5, atol=1e-5, msg=key)
        close(found, json.loads((OUT / "metrics.json").read_text()))
        return
    OUT.mkdir(exist_ok=True)
    save_file(tensors, OUT / "reference.safetensors")
    (OUT / "metrics.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
