"""Folders of NVIDIA's Model Optimizer.

    python tools/interchange/modelopt_cases.py [NAME ...]

`golden.json` is the tool's own simulated forward pass in float32 (its input quantizers, smoothing factors
and cache quantizers) with the weights that it exported. Its simulated weights differ from those by codes
on the edge of rounding. For W4A8 the second rounding of the weight, to FP8, is left out: Bantam keeps the
INT4 weight.
"""

import copy
import importlib.metadata
import sys

import modelopt.torch.quantization as mtq
import torch
from common import BLOCKS, calibration, fresh, logits, save_golden, tiny_llama
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers
from safetensors.torch import load_file

TOOL = f"nvidia-modelopt {importlib.metadata.version('nvidia-modelopt')}"

CASES = {
    "modelopt-fp8": mtq.FP8_DEFAULT_CFG,
    "modelopt-fp8-pc-pt": mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG,
    "modelopt-fp8-pb-wo": mtq.FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG,
    "modelopt-int8-sq": mtq.INT8_SMOOTHQUANT_CFG,
    "modelopt-int8-wo": mtq.INT8_WEIGHT_ONLY_CFG,
    "modelopt-int4-awq": mtq.INT4_AWQ_CFG,
    "modelopt-w4a8-awq": mtq.W4A8_AWQ_BETA_CFG,
}


def group_of(config, size):
    """The same configuration with smaller groups."""
    text = copy.deepcopy(config)

    def visit(value):
        if isinstance(value, dict):
            sizes = value.get("block_sizes")
            if isinstance(sizes, dict) and sizes.get(-1) == 128 and -2 not in sizes:
                sizes[-1] = size
            for inner in value.values():
                visit(inner)
        elif isinstance(value, list):
            for inner in value:
                visit(inner)

    visit(text)
    return text


def take_weights(model, stored):
    """Gives the linear layers what the exported weights stand for."""
    for name, module in model.named_modules():
        scale = stored.get(f"{name}.weight_scale")
        if scale is None:
            continue
        codes = stored[f"{name}.weight"]
        if codes.dtype == torch.uint8:  # two rows in a byte
            pair = torch.stack([codes & 15, codes >> 4], dim=1).flatten(0, 1).to(torch.int8)
            codes = torch.where(pair > 7, pair - 16, pair)
        weight = codes.float()
        if scale.dim() == 4:
            scale = scale.squeeze(3).squeeze(1)
            scale = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
        elif scale.dim() == 2:
            scale = scale.repeat_interleave(weight.shape[1] // scale.shape[1], 1)
        elif scale.dim() == 1:
            scale = scale[:, None]
        before, after = module.weight, weight * scale
        # The export rounded the very weights that the tool simulates.
        assert (before - after).abs().max() <= 0.2 * before.abs().max(), name
        module.weight.data = after


def main():
    wanted = sys.argv[1:]
    for name, config in CASES.items():
        if wanted and name not in wanted:
            continue
        block = name == "modelopt-fp8-pb-wo"
        model = tiny_llama(**BLOCKS) if block else tiny_llama()
        if "awq" in name:
            config = group_of(config, 32)
        if name == "modelopt-fp8":
            config = mtq.update_quant_cfg_with_kv_cache_quant(config, mtq.FP8_KV_CFG["quant_cfg"])
        model = mtq.quantize(model, config, lambda m: [m(ids) for ids in calibration()])
        with torch.no_grad():
            requantize_resmooth_fused_llm_layers(model)
            for module in model.modules():
                for cache in ("k_bmm_quantizer", "v_bmm_quantizer"):
                    quantizer = getattr(module, cache, None)
                    if quantizer is not None and quantizer.is_enabled and quantizer.amax is not None:
                        # A scale that f16 holds: that is what Bantam's cache keeps.
                        quantizer.amax = (quantizer.amax / 448).half().float() * 448
            folder = fresh(name)
            simulated = copy.deepcopy(model)
            export_hf_checkpoint(model, export_dir=folder)
            mtq.disable_quantizer(simulated, "*weight_quantizer")
            take_weights(simulated, load_file(folder / "model.safetensors"))
            golden = logits(simulated)
        save_golden(folder, golden, TOOL)


if __name__ == "__main__":
    main()
