"""Rotary frequencies as transformers 4.57.6 computes them, for a table of configurations.

    python tools/golden/rope.py

Writes `crates/model/tests/data/rope.json`: for each `config.json`, the frequencies (`inv_freq`) and the
factor on cosines and sines that `ROPE_INIT_FUNCTIONS` gives in contexts of several lengths. The rows
whose name begins with `written` are what Bantam writes for GGUF files with frequency divisors; beside
them stand those `divisors`.
"""

import json
import logging
import math
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

DATA = Path(__file__).resolve().parents[2] / "crates/model/tests/data"
BASE = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
        "intermediate_size": 64, "vocab_size": 32, "max_position_embeddings": 128,
        "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
OTHER_DIVISORS = [1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]


def cases():
    def of(scaling, **changes):
        return {**BASE, **changes, "rope_scaling": scaling}

    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    long = {"rope_type": "longrope", "short_factor": [1.0 + 0.01 * i for i in range(8)],
            "long_factor": [1.0 + 0.5 * i for i in range(8)]}
    yield "default", of(None)
    yield "default by name", of({"rope_type": "default"})
    yield "theta", of(None, rope_theta=500000.0)
    yield "head_dim", of(None, head_dim=32)
    yield "linear", of({"type": "linear", "factor": 4.0})
    yield "linear by its new name", of({"rope_type": "linear", "factor": 2.5})
    yield "dynamic", of({"type": "dynamic", "factor": 2.0})
    yield "dynamic 4, theta", of({"rope_type": "dynamic", "factor": 4.0}, rope_theta=1e6)
    yield "yarn", of(yarn)
    yield "yarn without original", of({"rope_type": "yarn", "factor": 4.0})
    yield "yarn attention_factor", of({**yarn, "attention_factor": 1.5})
    yield "yarn mscale", of({**yarn, "mscale": 0.707, "mscale_all_dim": 1.0})
    yield "yarn mscale alone", of({**yarn, "mscale": 0.707})
    yield "yarn betas", of({**yarn, "beta_fast": 16.0, "beta_slow": 2.0})
    yield "yarn truncate", of({**yarn, "truncate": False})
    yield "yarn factor 1", of({**yarn, "factor": 1.0})
    yield "llama3", of(LLAMA3)
    yield "llama3 of Meta", of({**LLAMA3, "original_max_position_embeddings": 8192}, head_dim=128,
                               rope_theta=500000.0, max_position_embeddings=131072)
    yield "longrope", of(long, original_max_position_embeddings=32)
    yield "longrope attention_factor", of({**long, "attention_factor": 1.25},
                                          original_max_position_embeddings=32)
    yield "longrope factor", of({**long, "factor": 4.0})
    yield "longrope mscale 1", of({**long, "factor": 1.0})
    yield "written llama3", of(LLAMA3)
    yield "written longrope", of({
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0,
        "original_max_position_embeddings": 128, "short_factor": OTHER_DIVISORS,
        "long_factor": OTHER_DIVISORS})
    linear = [2.0 * divisor for divisor in OTHER_DIVISORS]
    yield "written longrope with linear", of({
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0,
        "original_max_position_embeddings": 128, "short_factor": linear, "long_factor": linear})


def frequencies(config, length):
    scaling = config.rope_scaling or {}
    rule = scaling.get("rope_type", scaling.get("type", "default"))
    frequency, factor = ROPE_INIT_FUNCTIONS[rule](config, "cpu", seq_len=length)
    return {"context": length, "inv_freq": frequency.to(torch.float32).tolist(),
            "attention": float(factor)}


def divisors(name, config):
    if name == "written llama3":
        plain = AutoConfig.for_model(**{**config, "rope_scaling": None})
        stretched = AutoConfig.for_model(**config)
        pairs = zip(frequencies(plain, 1)["inv_freq"], frequencies(stretched, 1)["inv_freq"])
        return [a / b for a, b in pairs]
    return OTHER_DIVISORS


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows = []
    for name, config in cases():
        parsed = AutoConfig.for_model(**config)
        lengths = sorted({16, parsed.max_position_embeddings, 2 * parsed.max_position_embeddings})
        row = {"name": name, "config": config,
               "contexts": [frequencies(parsed, length) for length in lengths]}
        if name.startswith("written"):
            row["divisors"] = divisors(name, config)
        rows.append(row)
        assert all(math.isfinite(f) for c in row["contexts"] for f in c["inv_freq"]), name
    text = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (DATA / "rope.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    print(f"{len(rows)} configurations")


if __name__ == "__main__":
    main()
