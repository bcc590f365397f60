"""Holds `/v1/completions` against lm-eval: the same figures as transformers and as `bantam eval`.

    python tools/clients/lm_eval_check.py --gguf MODEL.gguf --items ITEMS.jsonl [--json]

Serves the model in f32 and asks lm-eval (`local-completions`, prompts as token ids, echo with
logprobs) for

- the log-likelihoods of the answers to multiple-choice items, which are compared with those of
  `bantam eval --task` and with those that transformers computes in f32 from the same file;
- the rolling perplexity of a text, which is compared with `bantam eval`.

An item is a line of JSON: {"question": …, "choices": [four texts], "answer": index}.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import lm_eval
import torch
from server import running_server
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = Path(__file__).parents[2] / "crates/eval/tests/data/perplexity_text.txt"
# lm-eval scores every token after a prefix token, in blocks of `max_length - 2` with one token of
# context. With the text's first token as prefix that is what `bantam eval` does with windows of
# `max_length - 1` tokens that overlap by one. A last block that is shorter gets more context from
# lm-eval, so the text is cut to whole blocks.
WINDOW = 256
# Two f32 computations of one number differ by rounding, summed over the tokens of an answer.
TOLERANCE = 2e-3
RELATIVE_TOLERANCE = 1e-4
# The same computation, whose result the protocol rounds to single precision.
SAME_TOLERANCE = 1e-4

PARTS = ("items", "eval", "rolling")

ITEMS_TASK = {
    "task": "items",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
ROLLING_TASK = {
    "task": "rolling",
    "dataset_path": "json",
    "output_type": "loglikelihood_rolling",
    "test_split": "test",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "byte_perplexity"}],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bantam", default="target/release/bantam", help="the program to test")
    parser.add_argument("--model", default="smollm2", help="what to serve; the same as --gguf")
    parser.add_argument("--gguf", type=Path, required=True, help="the model for transformers")
    parser.add_argument("--items", type=Path, required=True, help="multiple-choice items")
    parser.add_argument("--limit", type=int, default=100, help="items to take, short ones only")
    parser.add_argument("--longest", type=int, default=200, help="characters of an item at most")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()

    model = f"{arguments.model}@f32"
    items = short_items(arguments.items, arguments.limit, arguments.longest)
    text = TEXT.read_text()
    report = {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("lm_eval", "transformers", "torch")},
        "num_items": len(items),
    }
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        load = {"gguf_file": arguments.gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(arguments.gguf.parent, **load)
        tokenizer.save_pretrained(folder / "tokenizer")
        ids = tokenizer.encode(text, add_special_tokens=False)
        options = ("--memory", "3GiB")
        with running_server(arguments.bantam, model, *options) as address:
            same_tokens(address, arguments.model, text, ids)
            ids = ids[: 1 + (len(ids) - 1) // (WINDOW - 1) * (WINDOW - 1)]
            begin = time.monotonic()
            samples = evaluate(address, arguments.model, folder, items, tokenizer, ids)
            report["lm_eval_seconds"] = time.monotonic() - begin
        reference = AutoModelForCausalLM.from_pretrained(
            arguments.gguf.parent, dtype=torch.float32, **load
        )
        report["items"] = compare_items(samples["items"], tokenizer, reference.eval())
        report["eval"] = compare_eval(samples["items"], arguments.bantam, model, items, folder)
        report["rolling"] = compare_rolling(samples["rolling"], arguments.bantam, model, ids)
    problems = [name for part in PARTS for name in report[part].pop("problems")]
    report["problems"] = problems
    print(json.dumps(report, indent=2) if arguments.json else table(report))
    return 1 if problems else 0


def short_items(path: Path, limit: int, longest: int) -> list[dict]:
    """Items spread over the file that are short: the figures are to be had in minutes."""
    with path.open() as lines:
        items = [json.loads(line) for line in lines]
    size = lambda item: len(item["question"]) + sum(map(len, item["choices"]))  # noqa: E731
    short = [item for item in items if size(item) <= longest]
    return short[:: max(1, len(short) // limit)][:limit]


def same_tokens(address: str, model: str, text: str, ids: list[int]) -> None:
    """Without equal tokens nothing else could be equal."""
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    request = urllib.request.Request(
        f"{address}/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    served = json.load(urllib.request.urlopen(request, timeout=120))["tokens"]
    assert served == ids, "the server and transformers split the text into different tokens"


def evaluate(address, model, folder, items, tokenizer, ids) -> dict[str, list[dict]]:
    """lm-eval's samples of both tasks."""
    # The text's first token becomes the prefix, so that no token is scored after a foreign one.
    rest = tokenizer.decode(ids[1:])
    assert tokenizer.encode(rest, add_special_tokens=False) == ids[1:]
    tasks = []
    for task, rows in ((ITEMS_TASK, items), (ROLLING_TASK, [{"text": rest}])):
        data = folder / f"{task['task']}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
        tasks.append(task | {"dataset_kwargs": files})
    arguments = {
        "model": model,
        "base_url": f"{address}/v1/completions",
        "tokenizer": str(folder / "tokenizer"),
        "tokenizer_backend": "huggingface",
        "tokenized_requests": True,
        "custom_prefix_token_id": ids[0],
        "max_length": WINDOW + 1,
        "batch_size": 4,
        "timeout": 600,
    }
    results = lm_eval.simple_evaluate(
        model="local-completions", model_args=arguments, tasks=tasks, bootstrap_iters=0
    )
    return results["samples"]


@torch.inference_mode()
def reference_score(tokenizer, reference, context: str, answer: str) -> tuple[float, bool]:
    """The log-likelihood of an answer, and whether it is what greedy decoding gives."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    whole, num_context = encode(context + answer), len(encode(context))
    logits = reference(torch.tensor([whole])).logits[0, num_context - 1 : -1]
    targets = torch.tensor(whole[num_context:])
    chosen = torch.log_softmax(logits, -1).gather(1, targets[:, None])
    return chosen.sum().item(), bool((logits.argmax(-1) == targets).all())


def compare_items(samples: list[dict], tokenizer, reference) -> dict:
    """lm-eval's log-likelihoods beside those of transformers."""
    differences, same_greedy, same_choice, right, reference_right = [], 0, 0, 0, 0
    num_scores = 0
    for sample in samples:
        served, direct = [], []
        # lm-eval's log writes the requests as {"gen_args_0": {"arg_0": context, "arg_1": answer}}.
        requests = sample["arguments"]
        requests = requests.values() if isinstance(requests, dict) else requests
        for request, [score] in zip(requests, sample["resps"], strict=True):
            context, answer = request.values() if isinstance(request, dict) else request
            value, greedy = float(score[0]), str(score[1]) == "True"
            expected, expected_greedy = reference_score(tokenizer, reference, context, answer)
            served.append(value)
            direct.append(expected)
            same_greedy += greedy == expected_greedy
            num_scores += 1
        differences += [abs(a - b) for a, b in zip(served, direct, strict=True)]
        choice, expected_choice = served.index(max(served)), direct.index(max(direct))
        same_choice += choice == expected_choice
        right += choice == sample["doc"]["answer"]
        reference_right += expected_choice == sample["doc"]["answer"]
    figures = {
        "log_likelihoods": num_scores,
        "max_difference": max(differences),
        "mean_difference": sum(differences) / len(differences),
        "same_is_greedy": same_greedy,
        "same_choice": same_choice,
        "accuracy": right / len(samples),
        "accuracy_of_transformers": reference_right / len(samples),
    }
    problems = []
    if figures["max_difference"] > TOLERANCE:
        problems.append(f"a log-likelihood differs by {figures['max_difference']:.2e} nats")
    if same_greedy < num_scores:
        problems.append(f"is_greedy differs {num_scores - same_greedy} times")
    return figures | {"problems": problems}


def compare_eval(samples: list[dict], bantam: str, model: str, items: list, folder: Path) -> dict:
    """lm-eval's log-likelihoods and accuracy beside those of `bantam eval --task`."""
    task, results = folder / "asked.jsonl", folder / "results"
    task.write_text("".join(json.dumps(item) + "\n" for item in items))
    command = [bantam, "eval", model, "--task", str(task), "--results", str(results)]
    subprocess.run(command, check=True, capture_output=True)
    [file] = results.glob("**/*.jsonl")
    outcomes = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    direct = {outcome["item"]: outcome["log_likelihoods"] for outcome in outcomes}
    served = {s["doc_id"]: [float(score[0]) for [score] in s["resps"]] for s in samples}
    assert direct.keys() == served.keys(), "not the same items"
    choice = lambda scores: scores.index(max(scores))  # noqa: E731
    right = lambda all: sum(choice(all[n]) == items[n]["answer"] for n in all)  # noqa: E731
    differences = [abs(a - b) for n in direct for a, b in zip(served[n], direct[n], strict=True)]
    figures = {
        "items": len(items),
        "max_difference": max(differences),
        "same_choice": sum(choice(served[n]) == choice(direct[n]) for n in direct),
        "right": right(served),
        "right_of_bantam_eval": right(direct),
    }
    problems = []
    if figures["max_difference"] > SAME_TOLERANCE:
        problems.append(f"`bantam eval` differs by {figures['max_difference']:.2e} nats")
    if figures["same_choice"] < len(items):
        problems.append(f"`bantam eval` chooses otherwise {len(items) - figures['same_choice']} times")
    return figures | {"problems": problems}


def compare_rolling(samples: list[dict], bantam: str, model: str, ids: list[int]) -> dict:
    """lm-eval's rolling log-likelihood beside the perplexity of `bantam eval`."""
    served = float(samples[0]["resps"][0][0])
    perplexity = math.exp(-served / (len(ids) - 1))
    windows = ["--window", str(WINDOW), "--stride", str(WINDOW - 1)]
    limit = ["--limit", str(len(ids))]
    command = [bantam, "eval", model, "--text", str(TEXT), *limit, *windows, "--json"]
    direct = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    expected = find(direct, ("perplexity", "ppl"))
    difference = abs(perplexity / expected - 1)
    figures = {
        "tokens": len(ids) - 1,
        "perplexity": perplexity,
        "perplexity_of_bantam_eval": expected,
        "relative_difference": difference,
    }
    too_much = difference > RELATIVE_TOLERANCE
    return figures | {"problems": [f"perplexity differs by {difference:.2e}"] if too_much else []}


def find(value, names: tuple[str, ...]) -> float:
    """The first number under one of these names in a report."""
    if isinstance(value, dict):
        for name in names:
            if isinstance(value.get(name), (int, float)):
                return value[name]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        if isinstance(part, (dict, list)) and (found := find(part, names)) is not None:
            return found
    return None


def table(report: dict) -> str:
    """The figures, one a line."""
    lines = []
    for part in PARTS:
        for name, value in report[part].items():
            shown = f"{value:.3g}" if "difference" in name else f"{value:.10g}"
            lines.append(f"{part:<8} {name.replace('_', ' '):<28} {shown:>14}")
    lines += [f"FAILED   {problem}" for problem in report["problems"]]
    lines.append(", ".join(f"{name} {value}" for name, value in report["versions"].items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
