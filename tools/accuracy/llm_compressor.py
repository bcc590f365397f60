"""The same recipes through llm-compressor: same model, same calibration tokens, same evaluation.

    python tools/accuracy/llm_compressor.py MODEL.gguf TOKENIZER.json CALIBRATION.jsonl FOLDER [RECIPE ...]

TOKENIZER.json is that of a folder `bantam quantize` wrote from the same model. Each folder is then
measured like our own: `bantam eval FOLDER/NAME … --against MODEL`. Prints the
seconds of each run. llmcompressor 0.9.0.1, torch 2.8.0, CPU. Groups are those that Bantam chooses:
128 where they divide K, else 64.
"""

import os
import sys
import time

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.awq import AWQModifier
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.smoothquant import SmoothQuantModifier
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from peer_data import SAMPLES, TOKENS, sequences


def arguments(bits, kind, **others):
    return QuantizationArgs(num_bits=bits, type=kind, **others)


def groups(symmetric):
    """INT4 with the groups that divide each layer."""

    def scheme(targets, size):
        weights = arguments(4, "int", strategy="group", group_size=size, symmetric=symmetric)
        return QuantizationScheme(targets=targets, weights=weights)

    wide = ["re:.*down_proj$"]
    narrow = ["re:.*(q|k|v|o|gate|up)_proj$"]
    return {"narrow": scheme(narrow, 64), "wide": scheme(wide, 128)}


def linear(weights, inputs):
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    return {"group_0": scheme}


INT8_BY_TOKEN = linear(
    arguments(8, "int", strategy="channel"), arguments(8, "int", strategy="token", dynamic=True)
)
RECIPES = {
    "int8_sq": lambda: [
        SmoothQuantModifier(smoothing_strength=0.5),
        QuantizationModifier(config_groups=INT8_BY_TOKEN, ignore=["lm_head"]),
    ],
    "int4_wo": lambda: [QuantizationModifier(config_groups=groups(False), ignore=["lm_head"])],
    "int4_awq": lambda: [AWQModifier(config_groups=groups(False), ignore=["lm_head"])],
    "int4_gptq": lambda: [
        GPTQModifier(config_groups=groups(False), ignore=["lm_head"], actorder="static")
    ],
    "fp8": lambda: [
        QuantizationModifier(
            config_groups=linear(
                arguments(8, "float", strategy="tensor"), arguments(8, "float", strategy="tensor")
            ),
            ignore=["lm_head"],
        )
    ],
    "fp8_pc_pt": lambda: [
        QuantizationModifier(
            config_groups=linear(
                arguments(8, "float", strategy="channel"),
                arguments(8, "float", strategy="token", dynamic=True),
            ),
            ignore=["lm_head"],
        )
    ],
}


def main():
    model_path, tokenizer_path, data_path, folder, *names = sys.argv[1:]
    where, name = os.path.split(os.path.abspath(model_path))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_path)
    rows = sequences(data_path, tokenizer)
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * TOKENS] * SAMPLES})
    for name_of_recipe in names or RECIPES:
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        started = time.time()
        oneshot(
            model=model,
            recipe=RECIPES[name_of_recipe](),
            dataset=data,
            processor=tokenizer,
            max_seq_length=TOKENS,
            num_calibration_samples=SAMPLES,
        )
        seconds = time.time() - started
        with torch.no_grad():
            row = torch.tensor([rows[0]])
            loss = model(row, labels=row).loss.item()
        print(f"{name_of_recipe:<10} {seconds:7.1f} s, loss {loss:.3f} before it is saved", flush=True)
        target = os.path.join(folder, name_of_recipe)
        model.save_pretrained(target, save_compressed=True)
        tokenizer.save_pretrained(target)


if __name__ == "__main__":
    main()
