"""Log-likelihoods of multiple-choice answers under a tiny checkpoint, by lm-eval's rules.

`crates/eval/tests/data/choices_golden.json`: for each case

    form, shots  as `bantam eval --form` and `--shots` have them
    items        log_likelihoods (nats, one a choice), and truncated: the longest input of the item
                 is longer than the context and lost its beginning

The model is `llama-gqa` (128 tokens of context), the tokenizer that of `llama-gqa.gguf`. Of the
everyday questions the last two are the examples, the others are asked.

Rules: context and continuation are tokenized together and divided where the context alone would
end; all but the last token are the input, of which the last 128 are kept.
"""

import json
from pathlib import Path

import torch
from gguf.vocab import bytes_to_unicode
from tokenizers import Tokenizer, models, pre_tokenizers

from common import REPOSITORY, forward_logits, write_json
from tiny_checkpoints import load_float32
from tiny_gguf import MERGES, SPECIAL_TOKENS

EXAMPLES = 2
CASES = [("texts", 0), ("texts", 1), ("letters", 0), ("letters", 2)]
HEADING = "The following are multiple choice questions (with answers).\n\n"


def tiny_tokenizer() -> Tokenizer:
    """The byte-level BPE tokenizer that the tiny GGUF files hold."""
    tokens = SPECIAL_TOKENS + list(bytes_to_unicode().values())
    tokens += [merge.replace(" ", "") for merge in MERGES]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return tokenizer


def _asked(item: dict, form: str) -> str:
    if form == "texts":
        return f"Question: {item['question']}\nAnswer:"
    listed = [f"{letter}. {choice}\n" for letter, choice in zip("ABCD", item["choices"])]
    return f"{item['question']}\n{''.join(listed)}Answer:"


def _answers(item: dict, form: str) -> list[str]:
    return [f" {choice}" for choice in (item["choices"] if form == "texts" else "ABCD")]


def _context(item: dict, shots: list[dict], form: str) -> str:
    text = HEADING if form == "letters" else ""
    for shot in shots:
        text += _asked(shot, form) + _answers(shot, form)[shot["answer"]] + "\n\n"
    return text + _asked(item, form)


def _score(model, tokenizer: Tokenizer, context: str, continuation: str) -> tuple[float, bool]:
    """Log-likelihood of the continuation, and whether the context was cut."""
    limit = model.config.max_position_embeddings
    whole = tokenizer.encode(context + continuation).ids
    scored = whole[len(tokenizer.encode(context).ids) :]
    inputs = whole[:-1][-limit:]
    log_probabilities = torch.log_softmax(forward_logits(model, inputs).double(), dim=-1)
    rows = log_probabilities[len(inputs) - len(scored) :]
    return float(sum(row[token] for row, token in zip(rows, scored))), len(whole) - 1 > limit


def write_choices_golden(tiny_folder: Path, evaluation: Path) -> None:
    """Write the golden file; `tiny_folder` must hold the checkpoints already."""
    model, tokenizer = load_float32(tiny_folder / "llama-gqa"), tiny_tokenizer()
    lines = (evaluation / "data/everyday.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    items, examples = items[:-EXAMPLES], items[-EXAMPLES:]
    golden = {}
    for form, shots in CASES:
        results = []
        for item in items:
            context = _context(item, examples[:shots], form)
            scores = [_score(model, tokenizer, context, text) for text in _answers(item, form)]
            results.append(
                {
                    "log_likelihoods": [round(value, 6) for value, _ in scores],
                    "truncated": any(cut for _, cut in scores),
                }
            )
        golden[f"{form}-{shots}"] = {"form": form, "shots": shots, "items": results}
        print(f"{form} {shots}: {sum(result['truncated'] for result in results)} items cut")
    write_json(evaluation / "tests/data/choices_golden.json", golden)


if __name__ == "__main__":
    data = REPOSITORY / "crates/model/tests/data/tiny"
    write_choices_golden(data, REPOSITORY / "crates/eval")
