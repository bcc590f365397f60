"""Folders in the formats of AutoAWQ and GPTQ, packed by AutoAWQ and GPTQModel themselves.

    python tools/interchange/awq_gptq_cases.py

Weights are rounded to nearest here; the tools' layers pack them, and their own functions dequantize what
was packed for `golden.json`. (Neither tool runs its whole search without a GPU.)
"""

import importlib.metadata
import json
import os

os.cpu_count = lambda: 8  # GPTQModel plans its threads on import and fails with few cores

import torch
import transformers.activations

transformers.activations.PytorchGELUTanh = transformers.activations.GELUTanh  # AutoAWQ's name for it

from awq.modules.linear.gemm import WQLinear_GEMM
from awq.utils.packing_utils import dequantize_gemm
from common import fresh, logits, save_golden, tiny_llama
from gptqmodel.nn_modules.qlinear.torch import TorchQuantLinear
from gptqmodel.quantization import QuantizeConfig
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from safetensors.torch import save_file

GROUP = 32


def tool(name):
    return f"{name} {importlib.metadata.version(name)}"


def rounded(weight, g_idx, bits, sym):
    """Scales and zero points `[N, G]` of groups along K."""
    groups = int(g_idx.max()) + 1
    scales, zeros = [], []
    for group in range(groups):
        part = weight[:, g_idx == group]
        if sym:
            scales.append(part.abs().amax(1) * 2 / (2**bits - 1))
            zeros.append(torch.full((weight.shape[0],), 2 ** (bits - 1)))
        else:
            low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            scales.append((high - low) / (2**bits - 1))
            zeros.append((-low / scales[-1]).round().clamp(0, 2**bits - 1))
    scales = torch.stack(scales, 1).half().float()
    return scales, torch.stack(zeros, 1).int()


def awq(linear):
    g_idx = torch.arange(linear.in_features) // GROUP
    scales, zeros = rounded(linear.weight.data, g_idx, 4, False)
    # AutoAWQ packs weights that are on the grid already.
    s, z = scales[:, g_idx], zeros[:, g_idx]
    linear.weight.data = ((linear.weight / s).round() + z).clamp(0, 15).sub(z).mul(s)
    layer = WQLinear_GEMM.from_linear(
        linear, 4, GROUP, scales=scales.t().contiguous(), zeros=zeros.t().contiguous()
    )
    # In float32: the tool's own product would round each weight to f16.
    weight = dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, GROUP)
    tensors = {"qweight": layer.qweight, "qzeros": layer.qzeros, "scales": layer.scales}
    return tensors, weight.t()


def gptq(linear, bits, sym, desc_act, version, seed):
    k, n = linear.in_features, linear.out_features
    g_idx = torch.arange(k) // GROUP
    if desc_act:
        g_idx = g_idx[torch.randperm(k, generator=torch.Generator().manual_seed(seed))]
    scales, zeros = rounded(linear.weight.data, g_idx, bits, sym)
    layer = TorchQuantLinear(bits, GROUP, sym, desc_act, k, n)
    layer.pack(linear, scales, zeros, g_idx)
    layer.post_init()
    layer.scales = layer.scales.float()
    layer.dequant_dtype = torch.int32
    weight = layer.dequantize_weight().float().t()
    if version == "gptq":
        convert_gptq_v2_to_v1_format_module(
            layer, QuantizeConfig(bits=bits, group_size=GROUP, sym=sym, desc_act=desc_act)
        )
    names = ("qweight", "qzeros", "g_idx")
    tensors = {name: getattr(layer, name).clone() for name in names} | {"scales": layer.scales.half()}
    return tensors, weight


def make(name, config, pack, version):
    model, tensors = tiny_llama(), {}
    for seed, (module_name, module) in enumerate(list(model.named_modules())):
        if isinstance(module, torch.nn.Linear) and module_name != "lm_head":
            # What reads one input shares its order.
            shared = {"k_proj": -1, "v_proj": -2, "up_proj": -1}.get(module_name.split(".")[-1], 0)
            stored, weight = pack(module, seed + shared)
            module.weight.data = weight.contiguous()
            tensors |= {f"{module_name}.{part}": t.contiguous() for part, t in stored.items()}
    skipped = {f"{name.rsplit('.', 1)[0]}.weight" for name in tensors}
    tensors |= {k: v.bfloat16() for k, v in model.state_dict().items() if k not in skipped}
    folder = fresh(name)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = model.config.to_dict() | {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(settings, indent=2, default=str) + "\n")
    save_golden(folder, logits(model), version)


@torch.no_grad()
def main():
    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}
    config |= {"zero_point": True, "modules_to_not_convert": None}
    make("awq-gemm", config, lambda linear, _: awq(linear), tool("autoawq"))
    for name, bits, sym, desc_act, version in (
        ("gptq-v1", 4, True, False, "gptq"),
        ("gptq-v1-asym", 4, False, False, "gptq"),
        ("gptq-v1-desc-act", 4, True, True, "gptq"),
        ("gptq-v2-asym-desc-act", 4, False, True, "gptq_v2"),
        ("gptq-v1-8bit", 8, True, False, "gptq"),
    ):
        config = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": sym}
        config |= {"desc_act": desc_act, "checkpoint_format": version, "lm_head": False}

        def pack(linear, seed):
            return gptq(linear, bits, sym, desc_act, version, seed)

        make(name, config, pack, tool("GPTQModel"))


if __name__ == "__main__":
    main()
