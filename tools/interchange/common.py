"""The tiny Llama of the interchange fixtures, and what each tool's script shares.

Every fixture is a folder as the tool wrote it (configuration and weights, nothing else) with
`golden.json`: `tokens`, and `logits` of all positions, `[T, V]`, of the tool's own forward pass in
float32, quantized activations included.
"""

import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = REPOSITORY / "crates/model/tests/fixtures/interchange"
TOKENS = [3, 14, 15, 92, 65, 35, 89, 79]
VOCABULARY = 128


def tiny_llama(
    dtype=torch.float32, layers=2, hidden=64, inner=128, kv_heads=2
) -> LlamaForCausalLM:
    """The same random weights for every tool, with a few large channels, as real models have."""
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.2,
        architectures=["LlamaForCausalLM"],
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.copy_(1 + 0.3 * torch.randn(hidden))
                norm.weight[::17] *= 4
        # Weights that bf16 holds exactly, so that storing them in it changes nothing.
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16))
            weight.data = weight.data.to(dtype)
    return model


# What tools that take whole blocks of 128 only can quantize.
BLOCKS = {"layers": 1, "hidden": 128, "inner": 256, "kv_heads": 4}


def calibration() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(21)
    return [torch.randint(0, VOCABULARY, (1, 32), generator=generator) for _ in range(8)]


def processor():
    """A tokenizer, of the words `0`, `1`, …."""
    inner = Tokenizer(WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="0")


@torch.no_grad()
def logits(model, tokens=TOKENS) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0].float()


def save_golden(folder: Path, values: torch.Tensor, tool: str) -> None:
    rows = [[float(f"{v:.7g}") for v in row] for row in values.tolist()]
    golden = {"tool": tool, "tokens": TOKENS, "logits": rows}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    keep = {"config.json", "hf_quant_config.json", "quantize_config.json", "quant_config.json"}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".safetensors" and path.name not in keep | {"golden.json"}:
            path.unlink()
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder.name:36} {size // 1024:4} kB")


def fresh(name: str) -> Path:
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
