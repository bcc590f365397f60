"""Golden values of SmolLM2-135M-Instruct, from the weights of its GGUF file in float32.

`crates/model/tests/data/smollm2_golden.json`:

    probe_ids  512 fixed pseudo-random vocabulary ids at which logits are stored
    prompts    for each: text, ids [T], mean_nll (nats a token over ids[1:], each given all before),
               greedy (24 tokens) with greedy_margins (lead over the runner-up logit), and
               positions: position, logits at probe_ids, top_ids and top_logits (20, best first),
               logsumexp over the whole vocabulary
"""

from pathlib import Path

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from common import float32_list, forward_logits, greedy_continuation, token_nll, write_json

GREEDY_TOKENS = 24
PROBE_COUNT = 512
TOP_COUNT = 20

CAPITAL_PROMPT = "The capital of France is"
CAPITAL_IDS = [504, 3575, 282, 4649, 314]
CAPITAL_GREEDY = [7042, 30, 198, 198, 504, 2988, 314, 42, 216, 34, 32, 33]

MIXED_TEXT = """<|im_start|>user
Sort the list [12, 7, 2048] in Rust, please!<|im_end|>
<|im_start|>assistant
```rust
fn main() {
    let mut sizes = vec![12, 7, 2048];
    sizes.sort_unstable();
    println!("{sizes:?}"); // [7, 12, 2048]
}
```
It's O(n log n). Grüße aus Köln, 谢谢 🦀<|im_end|>
<|im_start|>user
And why is the sky blue?<|im_end|>
<|im_start|>assistant
"""


def tokenizer_from_gguf(path: Path) -> Tokenizer:
    """The file's tokenizer: byte-level BPE behind a split into single digits (`pre` = smollm)."""
    fields = gguf.GGUFReader(path).fields
    kind = [fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre")]
    assert kind == ["gpt2", "smollm"], f"tokenizer kind {kind}"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"].contents()
    control = [token for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens(control)
    assert tokenizer.encode(CAPITAL_PROMPT).ids == CAPITAL_IDS
    return tokenizer


def probe_ids(vocabulary_size: int) -> list[int]:
    """The vocabulary ids at which logits are stored: distinct, sorted, always the same."""
    generator = torch.Generator().manual_seed(0)
    return sorted(torch.randperm(vocabulary_size, generator=generator)[:PROBE_COUNT].tolist())


def _position_fields(logits: torch.Tensor, position: int) -> dict:
    """What is stored of one row `[V]` of the logits."""
    row = logits[position]
    top = torch.topk(row, TOP_COUNT)
    return {
        "position": position,
        "probe_logits": float32_list(row[probe_ids(len(row))]),
        "top_ids": top.indices.tolist(),
        "top_logits": float32_list(top.values),
        "logsumexp": float32_list(torch.logsumexp(row.double(), 0))[0],
    }


def _prompt_fields(model, text: str, ids: list[int], positions: list[int]) -> dict:
    logits = forward_logits(model, ids)
    greedy = greedy_continuation(model, ids, GREEDY_TOKENS)
    return {
        "text": text,
        "ids": ids,
        "mean_nll": float(token_nll(logits, ids).mean()),
        "greedy": greedy.tokens,
        "greedy_margins": [round(margin, 4) for margin in greedy.margins],
        "positions": [_position_fields(logits, position) for position in positions],
    }


def write_smollm2_golden(model, tokenizer: Tokenizer, output: Path) -> None:
    """Write the golden file; fails if the known continuation of the first prompt is not found."""
    mixed_ids = tokenizer.encode(MIXED_TEXT).ids
    assert tokenizer.decode(mixed_ids, skip_special_tokens=False) == MIXED_TEXT
    last = len(mixed_ids) - 1
    prompts = [
        _prompt_fields(model, CAPITAL_PROMPT, CAPITAL_IDS, [0, 1, 3, 4]),
        _prompt_fields(model, MIXED_TEXT, mixed_ids, [1, 33, 80, last]),
    ]
    assert prompts[0]["greedy"][: len(CAPITAL_GREEDY)] == CAPITAL_GREEDY
    write_json(output, {"probe_ids": probe_ids(model.config.vocab_size), "prompts": prompts})
    print(f"wrote {output.name}: {len(mixed_ids)} tokens in the mixed text")
