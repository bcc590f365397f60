"""The table of tiny checkpoints: one row per architecture feature the loader must get right.

Sizes are small on purpose, and unequal where it can be had (hidden, feed-forward, vocabulary,
heads x head_dim), so that a swapped axis cannot pass by luck.
"""

from dataclasses import dataclass, field

import torch
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

# The cases that are also written as GGUF carry a byte-level tokenizer: see tiny_gguf.py.
GGUF_VOCABULARY_SIZE = 288


@dataclass
class TinyCase:
    """One tiny checkpoint: its config, how it is stored, and what its golden values must notice."""

    name: str
    config: PretrainedConfig
    stored_as: torch.dtype = torch.float32
    max_shard_size: str = "5GB"
    # Whether tiny_gguf.py also writes it as Q8_0, where its greedy path must be clear too.
    also_as_q8_0: bool = False
    # Config fields that, put back to these values, must change the logits.
    matters: dict = field(default_factory=dict)
    # Config fields that, put back to these values, must leave the logits alone.
    ignored: dict = field(default_factory=dict)


def _shape(**overrides) -> dict:
    """The common shape, with `overrides`."""
    shape = dict(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return shape | overrides


def _rope_shape(**overrides) -> dict:
    """The shape of the rotary cases: head_dim 16 gives 8 frequencies, enough to see a ramp."""
    return _shape(num_attention_heads=2, num_key_value_heads=1) | overrides


def _llama_cases() -> list[TinyCase]:
    return [
        TinyCase(
            "llama-mha",
            LlamaConfig(**_shape(num_key_value_heads=4, tie_word_embeddings=False)),
            stored_as=torch.bfloat16,
        ),
        TinyCase(
            "llama-gqa",
            LlamaConfig(**_shape(vocab_size=GGUF_VOCABULARY_SIZE)),
            also_as_q8_0=True,
        ),
        TinyCase(
            "llama-attention-bias",
            LlamaConfig(**_shape(attention_bias=True, mlp_bias=True)),
        ),
        TinyCase(
            "smollm2-like",
            LlamaConfig(
                **_shape(
                    hidden_size=48,
                    num_attention_heads=3,
                    num_key_value_heads=1,
                    rope_theta=100000.0,
                    rms_norm_eps=1e-5,
                )
            ),
            stored_as=torch.bfloat16,
            matters={"rope_theta": 10000.0},
        ),
        TinyCase(
            "llama-odd-dimensions",
            LlamaConfig(
                **_shape(
                    vocab_size=83,
                    hidden_size=36,
                    intermediate_size=52,
                    num_attention_heads=3,
                    num_key_value_heads=1,
                )
            ),
        ),
    ]


def _rope_cases() -> list[TinyCase]:
    """Rotary scaling. The originals are short, so that a 40-token prompt lies beyond most."""
    unscaled = {"rope_scaling": None}
    return [
        TinyCase(
            # Wavelengths 6, 20, 63 ... against bounds 8 and 32: one kept, one blended, six divided.
            "llama3-rope",
            LlamaConfig(
                **_rope_shape(max_position_embeddings=256),
                rope_scaling={
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            ),
            matters=unscaled,
        ),
        TinyCase(
            # Written with the old key "type": transformers then stores "type" and "rope_type".
            "llama-linear-rope",
            LlamaConfig(**_rope_shape(), rope_scaling={"type": "linear", "factor": 4.0}),
            stored_as=torch.bfloat16,
            matters=unscaled,
        ),
        TinyCase(
            # theta 100 puts the ramp of the default beta_fast 32, beta_slow 1 at 0, 1/2, 1.
            "llama-yarn",
            LlamaConfig(
                **_rope_shape(max_position_embeddings=64, rope_theta=100.0),
                rope_scaling={
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 16,
                },
            ),
            matters=unscaled,
        ),
        TinyCase(
            # Up to max_position_embeddings tokens dynamic NTK is plain rotary; beyond is not shown.
            "llama-dynamic",
            LlamaConfig(
                **_rope_shape(max_position_embeddings=64),
                rope_scaling={"rope_type": "dynamic", "factor": 2.0},
            ),
            stored_as=torch.bfloat16,
            ignored=unscaled,
        ),
    ]


def _mistral_cases() -> list[TinyCase]:
    return [
        TinyCase(
            "mistral",
            MistralConfig(
                **_shape(tie_word_embeddings=False, head_dim=16, sliding_window=None)
            ),
            stored_as=torch.bfloat16,
        ),
        TinyCase(
            "mistral-window",
            MistralConfig(**_shape(head_dim=8, sliding_window=8)),
            matters={"sliding_window": None},
        ),
    ]


def _qwen_cases() -> list[TinyCase]:
    return [
        TinyCase(
            "qwen2",
            Qwen2Config(**_shape(vocab_size=GGUF_VOCABULARY_SIZE, rope_theta=1000000.0)),
            stored_as=torch.float16,
        ),
        TinyCase(
            "qwen2-untied-sharded",
            Qwen2Config(**_shape(tie_word_embeddings=False, rope_theta=1000000.0)),
            stored_as=torch.bfloat16,
            max_shard_size="24KB",
        ),
        TinyCase(
            "qwen3",
            Qwen3Config(
                **_shape(
                    num_attention_heads=3,
                    num_key_value_heads=1,
                    head_dim=16,
                    tie_word_embeddings=False,
                    rope_theta=1000000.0,
                )
            ),
        ),
    ]


TINY_CASES = _llama_cases() + _rope_cases() + _mistral_cases() + _qwen_cases()
