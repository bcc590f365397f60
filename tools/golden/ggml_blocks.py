# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf==0.19.0", "numpy==2.4.6"]
# ///
"""Writes crates/numerics/tests/data/ggml_blocks.bin: random GGML blocks and their values.

For each format, in the order of their GGML type numbers: BLOCKS blocks of random bytes (with
finite scales), then the values gguf-py dequantizes them to, as little-endian f32.

Run from the repository root: python tools/golden/ggml_blocks.py
"""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

BLOCKS = 3
OUTPUT = "crates/numerics/tests/data/ggml_blocks.bin"

# Byte offsets of the binary16 fields of a block; random bytes there could be NaN or infinite.
HALVES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q2_K: [80, 82],
    Type.Q3_K: [108],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.TQ1_0: [52],
    Type.TQ2_0: [64],
    # Any byte is a finite scale of these.
    Type.MXFP4: [],
    Type.NVFP4: [],
}


def main():
    rng = np.random.default_rng(20240229)
    with open(OUTPUT, "wb") as file:
        for kind, halves in HALVES.items():
            _, size = GGML_QUANT_SIZES[kind]
            blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
            for offset in halves:
                scales = rng.normal(0, 0.1, (BLOCKS, 1)).astype("<f2")
                blocks[:, offset : offset + 2] = scales.view(np.uint8)
            file.write(blocks.tobytes())
            file.write(dequantize(blocks, kind).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
