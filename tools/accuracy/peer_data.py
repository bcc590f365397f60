"""The calibration text of the peers: what `bantam quantize --samples 32 --seq-len 512` sees."""

import json
import os

SAMPLES, TOKENS = int(os.environ.get("SAMPLES", 32)), 512


def sequences(path, tokenizer):
    """Texts joined and cut."""
    joined = []
    for line in open(path, encoding="utf-8"):
        joined += tokenizer(json.loads(line)["text"])["input_ids"]
    return [joined[i * TOKENS : (i + 1) * TOKENS] for i in range(SAMPLES)]
