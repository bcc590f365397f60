"""Tiny checkpoints once more as complete GGUF files, with a byte-level BPE tokenizer inside.

    llama-gqa.gguf       F32: bit for bit the weights of llama-gqa/, q and k rows reordered
    llama-gqa-q8_0.gguf  matrices and embedding Q8_0, norms F32
    qwen2.gguf           F16: bit for bit the weights of qwen2/; norms and biases F32, no reordering

The golden values of the first and the last are those of the folders. Q8_0 has its own,
computed from the dequantized weights: `llama-gqa-q8_0.golden.json`.
"""

from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from gguf.vocab import bytes_to_unicode

from common import forward_logits, write_json
from gguf_names import gguf_tensor_name, rotary_heads, to_neighbours
from gguf_reading import model_from_gguf
from tiny_cases import GGUF_VOCABULARY_SIZE
from tiny_checkpoints import golden_fields, load_float32, tiny_prompt

FILE_TYPES = {
    GGMLQuantizationType.F32: LlamaFileType.ALL_F32,
    GGMLQuantizationType.F16: LlamaFileType.MOSTLY_F16,
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
}
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# 29 merges fill the vocabulary: 3 special tokens + 256 bytes + 29 = 288. Each merge may use the
# results of earlier ones. "Ġ" is how byte-level BPE writes a space.
MERGES = (
    "t h|th e|Ġ the|i n|a n|e r|Ġ a|an d|Ġ and|in g|o n|o r|e n|a t|i s|i t|Ġ t|Ġ o|o f|Ġ of"
    "|h e|r e|l l|o u|s t|e s|e d|Ġ w|Ġ s"
).split("|")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """GPT-2 style byte-level BPE: special tokens, one token per byte, then the merges."""
    tokens = SPECIAL_TOKENS + list(bytes_to_unicode().values())
    tokens += [merge.replace(" ", "") for merge in MERGES]
    assert len(set(tokens)) == len(tokens) == GGUF_VOCABULARY_SIZE
    normal_count = len(tokens) - len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL] * len(SPECIAL_TOKENS) + [TokenType.NORMAL] * normal_count
    )
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_hyperparameters(writer: gguf.GGUFWriter, config) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)


def _add_tensors(writer: gguf.GGUFWriter, model, matrix_type: GGMLQuantizationType) -> None:
    """All tensors: matrices as `matrix_type`, vectors as F32."""
    config = model.config
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        heads = rotary_heads(
            name, config.model_type, config.num_attention_heads, config.num_key_value_heads
        )
        if heads is not None:
            values = to_neighbours(values, heads)
        kind = matrix_type if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(
            gguf_tensor_name(name, config.num_hidden_layers),
            gguf.quantize(values, kind),
            raw_dtype=kind,
        )


def write_gguf(model, path: Path, matrix_type: GGMLQuantizationType) -> None:
    """Write `model` (llama or qwen2) as one GGUF file."""
    writer = gguf.GGUFWriter(path, arch=model.config.model_type)
    writer.add_name(path.stem)
    _add_hyperparameters(writer, model.config)
    writer.add_file_type(FILE_TYPES[matrix_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer)
    _add_tensors(writer, model, matrix_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_same_logits(path: Path, folder: Path) -> None:
    """The GGUF file read back gives exactly the logits of the folder it was made from."""
    prompt = tiny_prompt(GGUF_VOCABULARY_SIZE)
    from_file = forward_logits(model_from_gguf(path), prompt)
    assert torch.equal(from_file, forward_logits(load_float32(folder), prompt)), path.name


def write_tiny_gguf(tiny_folder: Path) -> None:
    """Write the three files; `tiny_folder` must already hold the folders they are made from."""
    for source, target, matrix_type in [
        ("llama-gqa", "llama-gqa.gguf", GGMLQuantizationType.F32),
        ("llama-gqa", "llama-gqa-q8_0.gguf", GGMLQuantizationType.Q8_0),
        ("qwen2", "qwen2.gguf", GGMLQuantizationType.F16),
    ]:
        folder, path = tiny_folder / source, tiny_folder / target
        write_gguf(load_float32(folder), path, matrix_type)
        if matrix_type is GGMLQuantizationType.Q8_0:
            golden = golden_fields(model_from_gguf(path), tiny_prompt(GGUF_VOCABULARY_SIZE))
            write_json(path.with_suffix(".golden.json"), golden)
        else:
            _check_same_logits(path, folder)
        print(f"wrote {path.name}")
