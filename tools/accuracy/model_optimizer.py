"""The same recipes through NVIDIA's Model Optimizer: same model, same calibration tokens.

    python tools/accuracy/model_optimizer.py MODEL.gguf TOKENIZER.json CALIBRATION.jsonl FOLDER [RECIPE ...]

TOKENIZER.json is that of a folder `bantam quantize` wrote from the same model. Each folder is then
measured like our own: `bantam eval FOLDER/NAME … --against MODEL`. Prints the
seconds of each run, export not counted. nvidia-modelopt 0.47.0, torch 2.8.0, CPU. Groups of INT4 are
of 64 in every layer.
"""

import os
import sys
import time

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from peer_data import sequences

RECIPES = {
    "fp8": "FP8_DEFAULT_CFG",
    "fp8_pc_pt": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "int8_sq": "INT8_SMOOTHQUANT_CFG",
    "int8_wo": "INT8_WEIGHT_ONLY_CFG",
    "int4_awq": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
}


def with_groups_of_64(config):
    """128 does not divide SmolLM2's 576 channels."""
    if isinstance(config, dict):
        return {
            key: 64 if (key, value) == (-1, 128) else with_groups_of_64(value)
            for key, value in config.items()
        }
    return [with_groups_of_64(each) for each in config] if isinstance(config, list) else config


def main():
    model_path, tokenizer_path, data_path, folder, *names = sys.argv[1:]
    where, name = os.path.split(os.path.abspath(model_path))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_path)
    rows = [torch.tensor([row]) for row in sequences(data_path, tokenizer)]
    for recipe in names or RECIPES:
        config = with_groups_of_64(getattr(mtq, RECIPES[recipe]))
        model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
        model.config.architectures = [type(model).__name__]  # a GGUF file does not say; the export asks
        started = time.time()
        with torch.no_grad():
            mtq.quantize(model, config, lambda model: [model(row) for row in rows])
        seconds = time.time() - started
        model.to(torch.bfloat16)
        target = os.path.join(folder, recipe)
        export_hf_checkpoint(model, export_dir=target)
        tokenizer.save_pretrained(target)
        print(f"{recipe:<10} {seconds:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
