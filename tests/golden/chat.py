"""Writes chat/cases.json and chat/tokenizer.json: conversations as transformers' apply_chat_template renders them by the
templates in chat/templates, which were written for this project in the style of those that models come with.

    python chat.py            # write
    python chat.py --verify   # compare with what is committed
"""

import datetime
import json
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent / "chat"
TOKENIZER = Path(__file__).parents[2] / "datasets/tiny-base/tokenizer.json"
MARKERS = [
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "[INST]", "[/INST]",
]  # fmt: skip
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is, in <b>°C</b> & \"words\"",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1.5}},
            "required": ["place"],
        },
    },
}
CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"place": "Åre", "days": 2}}}
CONVERSATIONS = {
    "plain": {"messages": [("user", "Hello, who are you?"), ("assistant", "A small model.")]},
    "system": {
        "messages": [
            ("system", " Be kind. "), ("user", "One?"), ("assistant", "1\n"), ("user", "Two?"), ("assistant", " 2 é 日本 "),
        ]
    },
    "question": {"messages": [("user", "Only a question"), ]},
    "tools": {
        "messages": [
            ("user", "Is it cold in Åre?"),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "name": "weather", "tool_call_id": "call12345", "content": "-4.5"},
            ("assistant", "Yes, -4.5 °C."),
        ],
        "tools": [TOOL, {"type": "function", "function": {"name": "stop"}}],
    },
    "thinking": {
        "messages": [
            ("user", "2+2"), {"role": "assistant", "content": "4", "reasoning_content": "\neasy\n"},
            ("user", "3+3"), ("assistant", "<think>\nalso easy\n</think>\n\n6"),
        ]
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": " look "}, {"type": "image"}]}, ("assistant", "seen"),
        ]
    },
    "wrong": {"messages": [("assistant", "I begin"), ("assistant", "and go on")]},
}  # fmt: skip


class Clock(datetime.datetime):
    """A day that does not pass."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 12, 30, 0)


def conversation(entry: dict) -> dict:
    message = lambda m: m if isinstance(m, dict) else {"role": m[0], "content": m[1]}
    return {"messages": [message(m) for m in entry["messages"]], "tools": entry.get("tools")}


def cases(tokenizer: PreTrainedTokenizerFast) -> list[dict]:
    found = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text()
        marked = "generation %}" in template
        for name, entry in CONVERSATIONS.items():
            for prompt in (False, True):
                given = conversation(entry)
                case = {"template": path.stem, "conversation": name, "add_generation_prompt": prompt}
                options = dict(tools=given["tools"], chat_template=template, add_generation_prompt=prompt)
                try:
                    case["text"] = tokenizer.apply_chat_template(given["messages"], tokenize=False, **options)
                    out = tokenizer.apply_chat_template(
                        given["messages"], return_assistant_tokens_mask=marked, return_dict=True, **options
                    )
                    case["ids"] = out["input_ids"]
                    if marked:
                        case["mask"] = out["assistant_masks"]
                except TemplateError as error:
                    case["raised"] = error.message
                except TypeError:
                    # Python's words for a content that is not there; ours are others.
                    case["fails"] = True
                found.append(case)
    return found


def main() -> None:
    chat_template_utils.datetime = Clock
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": MARKERS[2:]})
    conversations = {name: conversation(entry) for name, entry in CONVERSATIONS.items()}
    golden = {"time": "2024-07-26T12:30:00", "conversations": conversations, "cases": cases(tokenizer)}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":")).replace('{"template"', '\n{"template"') + "\n"
    file = HERE / "cases.json"
    if "--verify" in sys.argv:
        sys.exit(None if text == file.read_text() else f"{file} differs")
    file.write_text(text)
    tokenizer.backend_tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    raised = [case for case in golden["cases"] if "text" not in case]
    print(len(golden["cases"]), "cases,", len(raised), "refused")
    for case in raised:
        print(case)


if __name__ == "__main__":
    main()
