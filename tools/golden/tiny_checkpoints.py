"""Tiny random checkpoints with the logits and greedy tokens that transformers computes for them.

Each folder `crates/model/tests/data/tiny/NAME` gets `config.json` and the safetensors file(s) as
`save_pretrained` writes them, and `golden.json`:

    prompt     token ids [T]
    positions  which positions of the prompt `logits` holds
    logits     float32 [positions, V], row after row
    greedy     the next tokens, chosen greedily
"""

import copy
import itertools
import shutil
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM

from common import (
    Greedy,
    float32_list,
    forward_logits,
    greedy_continuation,
    greedy_with_cache,
    write_json,
)
from tiny_cases import TINY_CASES, TinyCase

PROMPT_TOKENS = 40
GREEDY_TOKENS = 12
POSITIONS = [0, 1, 17, PROMPT_TOKENS - 1]
# A greedy step closer than this could flip under another summation order or 16-bit activations.
SMALLEST_MARGIN = 0.1


def tiny_prompt(vocabulary_size: int) -> list[int]:
    """Fixed pseudo-random token ids, the same for every case of one vocabulary size."""
    generator = torch.Generator().manual_seed(vocabulary_size)
    return torch.randint(0, vocabulary_size, (PROMPT_TOKENS,), generator=generator).tolist()


def _parameter_values(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Random values for one parameter, scaled so that every part of the model shapes the logits."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1.0 + 0.3 * noise
    if name.endswith(".bias"):
        return 0.3 * noise
    if "embed_tokens" in name or "lm_head" in name:
        return 0.6 * noise
    return 2.0 * noise / shape[-1] ** 0.5


def random_model(case: TinyCase, seed: int):
    """The case's model in float32, each parameter rounded to the type it will be stored in."""
    model = AutoModelForCausalLM.from_config(
        copy.deepcopy(case.config), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = _parameter_values(name, parameter.shape, generator)
            parameter.copy_(values.to(case.stored_as).float())
    return model


def is_clear(greedy: Greedy) -> bool:
    """Whether the continuation has no near tie and does not just repeat itself."""
    return min(greedy.margins) > SMALLEST_MARGIN and len(set(greedy.tokens)) > GREEDY_TOKENS // 2


def _rounded_to_q8_0(model):
    """A copy of `model` with every matrix as it would come back from Q8_0."""
    rounded = copy.deepcopy(model)
    kind = gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for parameter in rounded.parameters():
            if parameter.dim() == 2:
                blocks = gguf.quantize(parameter.detach().numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.dequantize(blocks, kind)))
    return rounded


def _first_clear_model(case: TinyCase):
    """The model of the first seed whose greedy path is clear, also as Q8_0 if that is needed."""
    prompt = tiny_prompt(case.config.vocab_size)
    for seed in itertools.count():
        model = random_model(case, seed)
        if not is_clear(greedy_continuation(model, prompt, GREEDY_TOKENS)):
            continue
        if not case.also_as_q8_0 or is_clear(
            greedy_continuation(_rounded_to_q8_0(model), prompt, GREEDY_TOKENS)
        ):
            return model


def _save(model, case: TinyCase, folder: Path) -> None:
    """Write the checkpoint as a model author would, config and weights only."""
    shutil.rmtree(folder, ignore_errors=True)
    model.to(case.stored_as).save_pretrained(folder, max_shard_size=case.max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)


def load_float32(folder: Path, **config_overrides):
    """Load a checkpoint for float32 arithmetic and eager attention."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **config_overrides
    )
    return model.eval()


def golden_fields(model, prompt: list[int]) -> dict:
    """The contents of `golden.json`; fails if logits are out of scale or greedy paths disagree."""
    logits = forward_logits(model, prompt)
    assert 1.0 < logits.std() < 10.0, f"logits have standard deviation {logits.std():.3f}"
    greedy = greedy_continuation(model, prompt, GREEDY_TOKENS)
    assert is_clear(greedy), f"greedy path {greedy} is unclear"
    assert greedy.tokens == greedy_with_cache(model, prompt, GREEDY_TOKENS)
    return {
        "prompt": prompt,
        "positions": POSITIONS,
        "logits": float32_list(logits[POSITIONS]),
        "greedy": greedy.tokens,
    }


def _check_sensitivity(case: TinyCase, folder: Path, prompt: list[int]) -> None:
    """Golden values are worth storing only if ignoring the feature under test would change them."""
    logits = forward_logits(load_float32(folder), prompt)
    for change, should_matter in ((case.matters, True), (case.ignored, False)):
        if change:
            changed = forward_logits(load_float32(folder, **change), prompt)
            difference = float((changed[-1] - logits[-1]).abs().max())
            assert (difference > 0.5) == should_matter, f"{case.name} {change}: {difference}"
            assert should_matter or difference == 0.0


def write_tiny_checkpoints(tiny_folder: Path) -> None:
    """Write every case of the table below `tiny_folder`."""
    for case in TINY_CASES:
        folder = tiny_folder / case.name
        prompt = tiny_prompt(case.config.vocab_size)
        _save(_first_clear_model(case), case, folder)
        _check_sensitivity(case, folder, prompt)
        write_json(folder / "golden.json", golden_fields(load_float32(folder), prompt))
        print(f"wrote {folder.name}")
