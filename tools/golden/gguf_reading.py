"""Load a GGUF file's weights into a transformers model in float32."""

from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from gguf_names import gguf_tensor_name, rotary_heads, to_halves

CONFIG_CLASSES = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def _config(reader: gguf.GGUFReader, architecture: str) -> PretrainedConfig:
    """The transformers config that the file's metadata describes."""

    def value(key: str):
        return reader.fields[f"{architecture}.{key}"].contents()

    names = {tensor.name for tensor in reader.tensors}
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    return CONFIG_CLASSES[architecture](
        vocab_size=int(embedding.shape[1]),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base"),
        tie_word_embeddings="output.weight" not in names,
    )


def model_from_gguf(path: Path):
    """The file's model in float32: tensors dequantized, rows back in Hugging Face order."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    config = _config(reader, architecture)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    with torch.no_grad():
        # named_parameters lists a tied output matrix once, under the embedding's name.
        for name, parameter in model.named_parameters():
            stored = tensors.pop(gguf_tensor_name(name, config.num_hidden_layers))
            values = gguf.dequantize(stored.data, stored.tensor_type)
            heads = rotary_heads(
                name, architecture, config.num_attention_heads, config.num_key_value_heads
            )
            if heads is not None:
                values = to_halves(values, heads)
            parameter.copy_(torch.from_numpy(values.copy()))
    assert not tensors, f"tensors of {path.name} without a place: {sorted(tensors)}"
    return model
