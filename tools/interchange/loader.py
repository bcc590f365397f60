"""The forward pass of a compressed-tensors folder, weights decompressed to float32: quantized inputs and
caches are fake-quantized by the tool itself.

`load(FOLDER)` takes transformers with compressed-tensors as they are, but where their simulation is not
what the kernels compute that run these folders, or their loader fails (0.13).
"""

import json

import torch
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, CompressedTensorsConfig


def load(folder):
    """The model, ready to run."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    groups = [QuantizationScheme(**group) for group in config["config_groups"].values()]
    if any(g.weights.strategy == "block" or g.weights.actorder == "group" for g in groups):
        (group,) = groups
        return decompressed(folder, group.weights, group.input_activations)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        torch_dtype=torch.float32,
        quantization_config=CompressedTensorsConfig(run_compressed=False),
    ).eval()
    torch.nn.Module.float(model)
    # The weights are decompressed; fake-quantizing them again fails on packed zero points.
    by_token = []
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None:
            scheme.weights = None
            if is_by_token(scheme.input_activations):
                by_token.append(module)
    for module in by_token:
        module.quantization_scheme.input_activations = None
        module.register_forward_pre_hook(per_token_as_vllm)
    return model


def is_by_token(inputs):
    return inputs is not None and inputs.type == "int" and inputs.strategy == "token"


def per_token_as_vllm(module, inputs):
    """Rounds as the kernels that run these folders: by amax/127, where the tool simulates amax/127.5."""
    x = inputs[0]
    scale = x.abs().amax(-1, keepdim=True) / 127
    return ((x / scale).round().clamp(-128, 127) * scale,)


def decompressed(folder, weights, inputs):
    """The model with weights by the tool's own functions."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float().eval()
    stored = load_file(folder / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, strict=False)
    for name, module in model.named_modules():
        scale = stored.get(f"{name}.weight_scale")
        if scale is None:
            continue
        if f"{name}.weight_packed" in stored:
            shape = torch.Size(stored[f"{name}.weight_shape"])
            codes = unpack_from_int32(stored[f"{name}.weight_packed"], 4, shape)
        else:
            codes = stored[f"{name}.weight"]
        g_idx = stored.get(f"{name}.weight_g_idx")
        module.weight.data = dequantize(codes, scale.float(), args=weights, g_idx=g_idx).float()
        if inputs is not None:

            def quantized(module, x):
                scale, zero = compute_dynamic_scales_and_zp(x[0], inputs, module)
                return (fake_quantize(x[0], scale, zero, inputs),)

            module.register_forward_pre_hook(quantized)
    return model
