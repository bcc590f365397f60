"""How a GGUF file names and orders the tensors of a Hugging Face decoder.

Names follow the GGUF specification. For architecture `llama` (alone of those used here) the rows
of q and k are reordered inside each head, from rotating halves (i, i + D/2) to rotating
neighbours (2i, 2i + 1):

    Hugging Face row  h*D + a*D/2 + i   is   GGUF row  h*D + 2*i + a,   a in {0, 1}
"""

import gguf
import numpy as np


def gguf_tensor_name(hf_name: str, block_count: int) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `blk.0.attn_q.weight`."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, block_count)
    name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
    assert name is not None, f"no GGUF name for tensor {hf_name}"
    return name


def rotary_heads(hf_name: str, architecture: str, heads: int, kv_heads: int) -> int | None:
    """Number of heads in a tensor whose rows GGUF reorders; None for one kept as it is."""
    if architecture != "llama":
        return None
    if ".q_proj." in hf_name:
        return heads
    return kv_heads if ".k_proj." in hf_name else None


def to_neighbours(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or a bias) from Hugging Face order to GGUF llama order."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def to_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or a bias) from GGUF llama order back to Hugging Face order."""
    neighbours = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(neighbours.swapaxes(1, 2)).reshape(values.shape)
