"""Folders of llm-compressor and compressed-tensors.

    python tools/interchange/compressed_tensors_cases.py [NAME ...]

`golden.json` is the forward pass of the folder loaded by transformers with compressed-tensors, weights
decompressed to float32: quantized inputs are fake-quantized by the tool itself.
"""

import importlib.metadata
import sys

import torch
from common import BLOCKS, VOCABULARY, calibration, fresh, logits, save_golden, tiny_llama
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize, fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedTokenizerFast

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
    if weights.strategy == "block" or weights.actorder == "group":
        loaded = decompressed(folder, weights, inputs, **sizes)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            torch_dtype=torch.float32,
            quantization_config=CompressedTensorsConfig(run_compressed=False),
        ).eval()
        torch.nn.Module.float(loaded)
        # The weights are decompressed; fake-quantizing them again fails on packed zero points.
        for scheme in {id(s): s for s in schemes(loaded)}.values():
            scheme.weights = None
            if scheme.input_activations == INT8_TOKEN:
                scheme.input_activations = None
        if inputs == INT8_TOKEN:
            for module in linears(loaded):
                module.register_forward_pre_hook(per_token_as_vllm)
    save_golden(folder, logits(loaded), TOOL)


def schemes(model):
    found = (getattr(module, "quantization_scheme", None) for module in model.modules())
    return [scheme for scheme in found if scheme]


def linears(model):
    return [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]


def decompressed(folder, weights, inputs, **sizes):
    """The model with weights by the tool's own functions, for folders that its loader fails on (0.13)."""
    model, stored = tiny_llama(**sizes), load_file(folder / "model.safetensors")
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


def per_token_as_vllm(module, inputs):
    """Rounds as the kernels that run these folders: by amax/127, where the tool simulates amax/127.5."""
    x = inputs[0]
    scale = x.abs().amax(-1, keepdim=True) / 127
    return ((x / scale).round().clamp(-128, 127) * scale,)


def dataset():
    from datasets import Dataset

    rows = [ids[0].tolist() for ids in calibration()]
    return Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})


def processor():
    """A tokenizer, which calibration asks for and does not use."""
    words = {str(i): i for i in range(VOCABULARY)}
    inner = Tokenizer(WordLevel(words, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="0")


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
