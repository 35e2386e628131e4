"""What Transformers' `generate` makes of prompts: the case `decoding` of generate.py.

`cases.json` holds the requests and the tokens, `reference.safetensors` the scores of beams and the distributions that
sampling draws from. The models are those of the cases `llama`, `gpt2`, `t5` and `mt5`, without their adapters, and for text
the small trained base of `datasets/`, whose tokens are parts of words.
"""

import json

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, LogitsProcessor

MODELS = ("llama", "gpt2", "t5", "mt5")
ENCODER_DECODERS = ("t5", "mt5")
NOISE = 2e-4  # on every score; no choice may hang on less
MIN_GAP = 2e-5  # between the scores of two answers
NEW_TOKENS = 14
PROMPT_LENGTHS = [7, 4, 1, 5]
EOS = 6  # end tokens: several, so that random models come upon them

GREEDY = dict(
    plain=dict(),
    eos=dict(eos_token_id=EOS),
    repetition_penalty=dict(repetition_penalty=1.7),
    no_repeat_ngram=dict(no_repeat_ngram_size=2),
    all=dict(repetition_penalty=0.6, no_repeat_ngram_size=3, eos_token_id=EOS, min_new_tokens=6),
)
BEAMS = dict(
    plain=dict(num_beams=4, num_return_sequences=4),
    lora_paper=dict(num_beams=10, length_penalty=0.9, no_repeat_ngram_size=4, num_return_sequences=3),
    lora_paper_eos=dict(num_beams=10, length_penalty=0.9, no_repeat_ngram_size=4, eos_token_id=2),
    unigrams=dict(num_beams=3, no_repeat_ngram_size=1, num_return_sequences=2),
    eos=dict(num_beams=4, eos_token_id=3, num_return_sequences=4),
    early=dict(num_beams=4, eos_token_id=3, early_stopping=True, num_return_sequences=4),
    never=dict(num_beams=4, eos_token_id=3, early_stopping="never", length_penalty=1.6, num_return_sequences=4),
    short=dict(num_beams=5, eos_token_id=2, early_stopping="never", length_penalty=-0.7, num_return_sequences=2),
    no_penalty=dict(num_beams=3, eos_token_id=EOS, length_penalty=0.0, num_return_sequences=3),
    all=dict(
        num_beams=4,
        eos_token_id=EOS,
        repetition_penalty=1.4,
        no_repeat_ngram_size=2,
        min_new_tokens=5,
        num_return_sequences=2,
    ),
)
SAMPLES = dict(
    temperature=dict(temperature=0.6),
    hot=dict(temperature=2.5),
    top_k=dict(top_k=5),
    top_p=dict(top_p=0.8),
    min_p=dict(min_p=0.1),
    all=dict(
        temperature=1.5,
        top_k=20,
        top_p=0.9,
        min_p=0.05,
        repetition_penalty=1.3,
        no_repeat_ngram_size=1,
        eos_token_id=EOS,
        min_new_tokens=1,
    ),
)
TEXTS = dict(
    greedy=dict(),
    inside_words=dict(stop_strings=["eiv", "lou"]),
    across_words=dict(stop_strings=[" at the", "s. "]),
    beam=dict(num_beams=4, length_penalty=0.9, no_repeat_ngram_size=4),
    beam_stop=dict(num_beams=4, stop_strings=[" the", "."]),
)
TEXT_PROMPTS = ["Edda sold six yellow nets to", "On Thursday the Osprey", "The carts that the Petrel got from Brisa were", "At"]
TEXT_BASE = "../../datasets/tiny-base"


class Noise(LogitsProcessor):
    """What another order of summation may change, and more."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        return scores + NOISE * (2 * torch.rand(scores.shape, generator=self.generator) - 1)


def padded(model, prompts):
    """In front for a decoder, behind for an encoder."""
    width = max(map(len, prompts))
    behind = model.config.is_encoder_decoder

    def row(values, length):
        padding = [0] * (width - length)
        return values + padding if behind else padding + values

    ids = torch.tensor([row(prompt, len(prompt)) for prompt in prompts])
    mask = torch.tensor([row([1] * len(prompt), len(prompt)) for prompt in prompts])
    return dict(input_ids=ids, attention_mask=mask)


def new_tokens(model, prompts, sequences):
    """What follows the prompts, or the token that a decoder with an encoder starts from."""
    return sequences[:, 1 if model.config.is_encoder_decoder else max(map(len, prompts)) :]


def run(model, prompts, options, **more):
    """`generate` with nothing that the options do not name: the library's defaults sample among 50 tokens."""
    neutral = dict(top_k=0, top_p=1.0, temperature=1.0, eos_token_id=None, pad_token_id=0)
    arguments = dict(max_new_tokens=NEW_TOKENS, return_dict_in_generate=True, output_scores=True)
    if "num_return_sequences" not in options:
        arguments["num_return_sequences"] = 1
    return model.generate(**padded(model, prompts), **(neutral | arguments | options | more))


def end_tokens(model, generator):
    """Tokens that the model says now and then, whatever the prompt: a random model has no end token of its own."""
    prompts = torch.randint(3, model.config.vocab_size, (64, 3), generator=generator).tolist()
    said = new_tokens(model, prompts, run(model, prompts, {}, do_sample=False).sequences)
    counts = said.flatten().bincount(minlength=model.config.vocab_size)
    return counts.argsort(descending=True, stable=True)[6 : 6 + EOS].tolist()


def with_eos(options, tokens):
    """The options with as many of the end tokens as they ask for."""
    count = options.get("eos_token_id")
    return options | dict(eos_token_id=tokens[:count]) if count else options


def sequences(model, prompts, options, **more):
    """The new tokens of each answer, up to its end token, and the scores of beams."""
    output = run(model, prompts, options, do_sample=False, **more)
    eos = (options | more).get("eos_token_id", [])
    answers = []
    for row in new_tokens(model, prompts, output.sequences).tolist():
        end = next((place for place, token in enumerate(row) if token in eos), len(row))
        answers.append(row[:end])
    count = options.get("num_return_sequences", 1)
    answers = [answers[start : start + count] for start in range(0, len(answers), count)]
    return answers, getattr(output, "sequences_scores", None)


def is_clear(model, prompts, options):
    """Whether noise on the scores leaves every token as it is, and each prompt says alone what it says in the batch."""
    answers, scores = sequences(model, prompts, options)
    if scores is not None:
        gaps = scores.view(len(prompts), -1).diff(dim=1).abs()
        if gaps.numel() and gaps.min() < MIN_GAP:
            return None
    for seed in range(6):
        if sequences(model, prompts, options, logits_processor=[Noise(seed)])[0] != answers:
            return None
    alone = [sequences(model, [prompt], options)[0][0] for prompt in prompts]
    return (answers, scores) if alone == answers else None


def clear_prompts(model, vocab_size, options, generator):
    """Prompts in which tokens repeat, whose answers are clear of rounding and shaped by the options."""
    few = torch.randperm(vocab_size - 3, generator=generator)[:6] + 3
    bare = {key: options[key] for key in ("num_beams", "num_return_sequences") if key in options}
    for _ in range(300):
        prompts = [few[torch.randint(6, (length,), generator=generator)].tolist() for length in PROMPT_LENGTHS]
        found = is_clear(model, prompts, options)
        if found and (options == bare or sequences(model, prompts, bare)[0] != found[0]):
            return prompts, *found
    raise RuntimeError(f"no clear prompts for {options}: take another seed")


def distributions(model, prompts, options):
    def probabilities(**more):
        scores = run(model, prompts, options, do_sample=True, max_new_tokens=1, **more).scores[0]
        return scores.softmax(dim=-1)

    expected = probabilities()
    for seed in range(6):
        noisy = probabilities(logits_processor=[Noise(seed)])
        assert torch.equal(noisy > 0, expected > 0), f"the tokens that {options} keep hang on rounding"
    return expected


def text_cases(root):
    """Answers as texts, as continuations of their prompts and up to the first stop string."""
    tokenizer = AutoTokenizer.from_pretrained(root / TEXT_BASE, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(root / TEXT_BASE, dtype=torch.float32, attn_implementation="eager").eval()
    ids = [tokenizer(prompt).input_ids for prompt in TEXT_PROMPTS]
    more = dict(tokenizer=tokenizer, eos_token_id=[tokenizer.eos_token_id], max_new_tokens=24)
    for label, options in TEXTS.items():
        answers = sequences(model, ids, options, **more)[0]
        for seed in range(6):
            noisy = sequences(model, ids, options, logits_processor=[Noise(seed)], **more)[0]
            assert noisy == answers, f"what {options} write hangs on rounding"
        answers = [[token for token in answer if token != tokenizer.pad_token_id] for (answer,) in answers]
        texts = []
        for prompt, answer in zip(ids, answers):
            text = tokenizer.decode(prompt + answer, skip_special_tokens=True)[len(tokenizer.decode(prompt)) :]
            starts = [text.find(stop) for stop in options.get("stop_strings", []) if stop in text]
            texts.append(text[: min(starts)] if starts else text)
        case = dict(name=f"text.{label}", model="tiny-base", kind="text", options=options, max_new_tokens=24)
        yield case | dict(prompts=TEXT_PROMPTS, answers=[[answer] for answer in answers], texts=texts)


def write(folder, root):
    """Writes the case; `root` is the folder of the cases whose models it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    cases, tensors = [], {}
    for seed, name in enumerate(MODELS):
        generator = torch.Generator().manual_seed(100 + seed)
        auto = AutoModelForSeq2SeqLM if name in ENCODER_DECODERS else AutoModelForCausalLM
        model = auto.from_pretrained(root / name / "model", dtype=torch.float32, attn_implementation="eager").eval()
        vocab_size = model.config.vocab_size
        eos = end_tokens(model, generator)
        for kind, options_by_name in (("greedy", GREEDY), ("beam", BEAMS), ("sample", SAMPLES)):
            for label, options in options_by_name.items():
                options = with_eos(options, eos)
                case = dict(name=f"{name}.{kind}.{label}", model=name, kind=kind, options=options)
                if kind == "sample":
                    few = torch.randperm(vocab_size - 3, generator=generator)[:6] + 3
                    prompts = [few[torch.randint(6, (n,), generator=generator)].tolist() for n in PROMPT_LENGTHS]
                    case["prompts"] = prompts
                    tensors[case["name"]] = distributions(model, prompts, options)
                else:
                    case["prompts"], case["answers"], scores = clear_prompts(model, vocab_size, options, generator)
                    case["max_new_tokens"] = NEW_TOKENS
                    if scores is not None:
                        tensors[case["name"]] = scores.view(len(case["prompts"]), -1)
                cases.append(case)
    cases.extend(text_cases(root))
    lines = ",\n".join(json.dumps(case) for case in cases)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "reference.safetensors")
