"""Loads folders that Bantam wrote in transformers with compressed-tensors, and compares logits.

    python tools/interchange/read_back.py FOLDER

Quantizes the tiny model in FOLDER, by the recipes of `bantam quantize` and to nearest in formats that no
recipe has, and prints the largest difference of a logit in units of the largest logit: the median of
several sequences, and the worst. Ours are those of the reference back end in float32. A number that lies
within a millionth of the border between two codes may get either, by the order of a sum, and moves the
logits of its sequence by a percent; so only the median is held to 1e-3.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from common import REPOSITORY, VOCABULARY, logits, processor, tiny_llama
from loader import load

# Groups of 64 and 128 beside each other, and more than one decoder layer.
SIZES = {"hidden": 192, "inner": 256, "layers": 2, "kv_heads": 2}
# Whole blocks of 128×128: the tool takes no others.
BLOCKS = {"hidden": 256, "inner": 384, "layers": 2, "kv_heads": 2}

RECIPES = {
    "int8_wo": [],
    "int8_sq": [],
    "int8_sq-kv-int8": ["--kv", "int8"],
    "int4_wo": [],
    "int4_awq": [],
    "int4_gptq": [],
    "w4a8_int8": [],
    "fp8": [],
    "fp8-kv-fp8": ["--kv", "fp8"],
    "fp8_pc_pt": [],
    "fp8_block": [],
    "kv_only": [],
}


SEQUENCES = torch.randint(0, VOCABULARY, (9, 4), generator=torch.Generator().manual_seed(4)).tolist()


def binary(name, *arguments):
    """What a program of the workspace prints."""
    command = [REPOSITORY / "target/debug" / name, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def sources(folder):
    """The models to quantize, and the text to calibrate with."""
    for name, sizes in (("grouped", SIZES), ("blocks", BLOCKS)):
        tiny_llama(torch.bfloat16, **sizes).save_pretrained(folder / name)
        processor().save_pretrained(folder / name)
    generator = torch.Generator().manual_seed(22)
    words = torch.randint(0, VOCABULARY, (1024,), generator=generator).tolist()
    text = folder / "text.txt"
    text.write_text(" ".join(map(str, words)))
    return folder / "grouped", folder / "blocks", text


def write(folder):
    """Every folder that is to be read back."""
    grouped, blocks, text = sources(folder)
    formats = folder / "formats"
    binary("examples/write_quantized", grouped, formats)
    yield from sorted(formats.iterdir())
    for name, options in RECIPES.items():
        recipe = name.split("-")[0]
        source = blocks if recipe == "fp8_block" else grouped
        out = folder / name
        calibration = ["--calibration", text, "--seq-len", "32", "--samples", "32"]
        options = ["--recipe", recipe, "--output", out, "--no-eval", *calibration, *options]
        binary("bantam", "quantize", source, *options)
        yield out


def main():
    packages = ["-p", "bantam-cli", "-p", "bantam-model"]
    subprocess.run(
        ["cargo", "build", "-q", *packages, "--bins", "--examples"], cwd=REPOSITORY, check=True
    )
    medians = {}
    for folder in write(Path(sys.argv[1])):
        model, errors = load(folder), []
        for tokens in SEQUENCES:
            ours = torch.tensor(json.loads(binary("examples/logits", folder, *tokens)))
            theirs = logits(model, tokens)
            errors.append(((ours - theirs).abs().max() / theirs.abs().max()).item())
        medians[folder.name] = statistics.median(errors)
        print(f"{folder.name:20} {medians[folder.name]:.1e} {max(errors):.1e}", flush=True)
    assert max(medians.values()) <= 1e-3, medians


if __name__ == "__main__":
    main()
