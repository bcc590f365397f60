"""Loads folders that Bantam wrote in transformers with compressed-tensors, and compares logits.

    python tools/interchange/read_back.py source FOLDER        # makes the tiny model to quantize
    cargo run -p bantam-model --example write_quantized -- FOLDER OUT
    python tools/interchange/read_back.py OUT                  # largest relative error of each folder
"""

import json
import sys
from pathlib import Path

import torch
from common import logits, tiny_llama
from transformers import AutoModelForCausalLM, CompressedTensorsConfig


def main():
    if sys.argv[1] == "source":
        tiny_llama(torch.bfloat16).save_pretrained(sys.argv[2])
        return
    worst = 0.0
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        want = torch.tensor(json.loads((folder / "golden.json").read_text())["logits"])
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            quantization_config=CompressedTensorsConfig(run_compressed=False),
        ).eval()
        torch.nn.Module.float(model)
        for module in model.modules():
            if getattr(module, "quantization_scheme", None):
                module.quantization_scheme.weights = None
        error = ((logits(model) - want).abs().max() / want.abs().max()).item()
        worst = max(worst, error)
        print(f"{folder.name:20} {error:.2e}")
    assert worst <= 1e-3, worst


if __name__ == "__main__":
    main()
