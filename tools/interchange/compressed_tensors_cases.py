"""Folders of llm-compressor and compressed-tensors.

    python tools/interchange/compressed_tensors_cases.py [NAME ...]

`golden.json` is the forward pass of the folder loaded by `loader.py`.
"""

import importlib.metadata
import sys

import torch
from common import BLOCKS, calibration, fresh, logits, processor, save_golden, tiny_llama
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from loader import load

TOOL = " ".join(
    f"{name} {importlib.metadata.version(name)}" for name in ("llmcompressor", "compressed-tensors")
)


def ints(bits, **others):
    return QuantizationArgs(num_bits=bits, type="int", **others)


def floats(**others):
    return QuantizationArgs(num_bits=8, type="float", **others)


INT8_TOKEN = ints(8, strategy="token", dynamic=True)
FP8_TOKEN = floats(strategy="token", dynamic=True)
INT4 = {"strategy": "group", "group_size": 32}

CASES = {
    "ct-w4a16": (ints(4, **INT4), None),
    "ct-w4a16-asym": (ints(4, symmetric=False, **INT4), None),
    "ct-w4a16-channel": (ints(4, strategy="channel"), None),
    "ct-w8a16-group": (ints(8, **INT4), None),
    "ct-w8a16": (ints(8, strategy="channel"), None),
    "ct-w8a8": (ints(8, strategy="channel"), INT8_TOKEN),
    "ct-w8a8-static": (ints(8, strategy="channel"), ints(8, strategy="tensor")),
    "ct-w4a8": (ints(4, **INT4), INT8_TOKEN),
    "ct-w4afp8": (ints(4, **INT4), FP8_TOKEN),
    "ct-fp8": (floats(strategy="tensor"), floats(strategy="tensor")),
    "ct-fp8-dynamic": (floats(strategy="channel"), FP8_TOKEN),
    "ct-fp8-naive": (floats(strategy="channel"), None),
    "ct-fp8-block": (
        floats(strategy="block", block_structure=[128, 128]),
        floats(strategy="group", group_size=128, dynamic=True),
    ),
}


def quantize(name, weights, inputs, modifier=QuantizationModifier, kv=None, targets=("Linear",), **sizes):
    model = tiny_llama(torch.bfloat16, **sizes)
    groups = {
        "group_0": QuantizationScheme(
            targets=list(targets), weights=weights, input_activations=inputs
        )
    }
    recipe = modifier(config_groups=groups, ignore=["lm_head"], kv_cache_scheme=kv)
    static = modifier is GPTQModifier or kv or (inputs is not None and not inputs.dynamic)
    if static:
        pipeline = "basic" if modifier is QuantizationModifier else "sequential"
        oneshot(
            model=model, recipe=recipe, dataset=dataset(), processor=processor(), pipeline=pipeline
        )
    else:
        oneshot(model=model, recipe=recipe, pipeline="datafree")
    folder = fresh(name)
    model.save_pretrained(folder, save_compressed=True)
    save_golden(folder, logits(load(folder)), TOOL)


def dataset():
    from datasets import Dataset

    rows = [ids[0].tolist() for ids in calibration()]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})


def main():
    wanted = sys.argv[1:]
    for name, (weights, inputs) in CASES.items():
        if not wanted or name in wanted:
            wide = BLOCKS if name == "ct-fp8-block" else {}
            quantize(name, weights, inputs, **wide)
    for name, actorder in (("ct-gptq", None), ("ct-gptq-actorder-weight", "weight"), ("ct-gptq-actorder-group", "group")):
        if not wanted or name in wanted:
            quantize(name, ints(4, actorder=actorder, **INT4), None, GPTQModifier)
    if not wanted or "ct-w8a16-kv-fp8" in wanted:
        kv = floats(strategy="tensor", dynamic=False)
        quantize("ct-w8a16-kv-fp8", ints(8, strategy="channel"), None, kv=kv)


if __name__ == "__main__":
    main()
