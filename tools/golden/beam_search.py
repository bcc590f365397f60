"""Golden answers of beam search and scores of prompts, on the tiny checkpoint `llama-gqa`.

    python tools/golden/beam_search.py

writes crates/engine/tests/data/beam_search_golden.json. Every search is run in float32 and again in
float64: both must find the same answers, so no rounding decides which hypothesis survives.
"""

import json

import torch
from common import REPOSITORY
from transformers import AutoModelForCausalLM

CHECKPOINT = REPOSITORY / "crates/model/tests/data/tiny/llama-gqa"
OUTPUT = REPOSITORY / "crates/engine/tests/data/beam_search_golden.json"
VOCABULARY = 288
MAX_TOKENS = 12
# Ends answers in the tensors of `generate`; no case stops at it.
PADDING = VOCABULARY - 1


def case(n: int) -> dict:
    """Widths 1 to 5, four penalties, and 0, 40 or 80 tokens that stop an answer."""
    return {
        "prompt": [(13 * i + 5 * n) % 280 for i in range(5 + n)],
        "width": 1 + n % 5,
        "length_penalty": [1.0, 0.0, 2.0, -0.5][n % 4],
        "stop_tokens": sorted({(7 * i + n) % 280 for i in range(40 * (n % 3))}),
        "max_tokens": MAX_TOKENS,
    }


@torch.no_grad()
def search(model, case: dict) -> list[dict]:
    """The answers of a beam search, the best first; greedy decoding, of width 1, has no scores."""
    prompt = torch.tensor([case["prompt"]])
    stops = {"eos_token_id": case["stop_tokens"]} if case["stop_tokens"] else {}
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        num_beams=case["width"],
        num_return_sequences=case["width"],
        max_new_tokens=case["max_tokens"],
        length_penalty=case["length_penalty"],
        early_stopping=False,
        pad_token_id=PADDING,
        return_dict_in_generate=True,
        output_scores=True,
        **stops,
    )
    answers = []
    for n, sequence in enumerate(found.sequences[:, prompt.shape[1] :].tolist()):
        answer = {"tokens": [token for token in sequence if token != PADDING]}
        if case["width"] > 1:
            answer["score"] = found.sequences_scores[n].item()
        answers.append(answer)
    return answers


@torch.no_grad()
def prompt_logprobs(model, prompt: list[int]) -> list[float]:
    """ln p of every token of the prompt from the second on."""
    logprobs = model(torch.tensor([prompt]), use_cache=False).logits[0].log_softmax(-1)
    return [logprobs[n, token].item() for n, token in enumerate(prompt[1:])]


def load(dtype: torch.dtype):
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def main() -> None:
    single, double = load(torch.float32), load(torch.float64)
    cases = [case(n) for n in range(12)]
    for entry in cases:
        entry["answers"] = search(single, entry)
        again = search(double, entry)
        assert [a["tokens"] for a in entry["answers"]] == [a["tokens"] for a in again]
        assert all(PADDING not in answer["tokens"] for answer in again)
        entry["prompt_logprobs"] = prompt_logprobs(single, entry["prompt"])
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry) for entry in cases)
    OUTPUT.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
