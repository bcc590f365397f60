"""What every golden script shares: the forward pass, the greedy loop and the JSON form.

All arithmetic is float32 on the CPU. Logits come from one forward pass over the whole sequence,
without a cache; greedy tokens from repeated forward passes of that kind.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Greedy:
    """Greedy continuation, and for each token the lead of its logit over the runner-up."""

    tokens: list[int]
    margins: list[float]


@torch.no_grad()
def forward_logits(model, ids: list[int]) -> torch.Tensor:
    """Logits `[T, V]` of `ids` from one forward pass without a cache."""
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy_continuation(model, prompt: list[int], count: int) -> Greedy:
    """The `count` most likely tokens after `prompt`; an end-of-sequence token does not stop it."""
    ids, margins = list(prompt), []
    for _ in range(count):
        best = torch.topk(forward_logits(model, ids)[-1], 2)
        ids.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
    return Greedy(ids[len(prompt) :], margins)


@torch.no_grad()
def greedy_with_cache(model, prompt: list[int], count: int) -> list[int]:
    """The same tokens by the other road: the prompt once, then one token a step over a KV cache."""
    step, cache, tokens = torch.tensor([prompt]), None, []
    for _ in range(count):
        output = model(step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        tokens.append(int(output.logits[0, -1].argmax()))
        step = torch.tensor([[tokens[-1]]])
    return tokens


def token_nll(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """Negative log-likelihood in nats `[T-1]` (float64) of `ids[1:]`, each given all before it."""
    log_probabilities = torch.log_softmax(logits[:-1].double(), dim=-1)
    targets = torch.tensor(ids[1:])
    return -log_probabilities.gather(1, targets[:, None])[:, 0]


def float32_list(values) -> list[float]:
    """Flat list of float32 values as decimals of 9 significant digits, which round-trip exactly."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    return [float(f"{value:.9g}") for value in flat]


def write_json(path: Path, fields: dict) -> None:
    """Write `fields` with one top-level key a line, compact inside."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in fields.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
