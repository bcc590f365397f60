"""Holds Bantam's MMLU answers against those of lm-eval, item by item.

Run by hand; it makes no golden data. Versions: lm-eval 0.4.13 besides `requirements.txt`.

    bantam eval smollm2@f32 --task mmlu --data MMLU --limit 100 --results DIR
    pip install "lm-eval[hf]==0.4.13"
    python tools/golden/lm_eval_mmlu.py MODEL.gguf MMLU DIR/mmlu-letters-5.smollm2@f32.jsonl

MMLU is a folder with test.jsonl and dev.jsonl; MODEL.gguf is the file that `smollm2` means. lm-eval
runs the items of the results file with its own MMLU template, a task for each subject, in float32.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import lm_eval
import transformers
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from gguf_reading import model_from_gguf
from smollm2 import tokenizer_from_gguf

TEMPLATE = Path(lm_eval.__file__).parent / "tasks/mmlu/default/_default_template_yaml"
HEADING = "The following are multiple choice questions (with answers) about {}.\n\n"


def _read(path: Path) -> list[dict]:
    # Not splitlines: texts may hold other line separators.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _write(path: Path, items: list[dict]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


def _write_task(folder: Path, subject: str, items: list[dict], examples: list[dict]) -> str:
    """A task of lm-eval over these items; its name."""
    files = {"test": folder / f"{subject}_test.jsonl", "dev": folder / f"{subject}_dev.jsonl"}
    _write(files["test"], items)
    _write(files["dev"], examples)
    template = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    task = {
        **template,
        "task": f"local_mmlu_{subject}",
        "description": HEADING.format(subject.replace("_", " ")),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
    }
    (folder / f"{subject}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return task["task"]


def lm_eval_answers(gguf_file: Path, mmlu: Path, asked: list[int], shots: int) -> dict:
    """Log-likelihoods of the four letters by lm-eval, for each item."""
    items, examples = _read(mmlu / "test.jsonl"), _read(mmlu / "dev.jsonl")
    by_subject = defaultdict(list)
    for item in asked:
        by_subject[items[item]["subject"]].append(item)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_from_gguf(gguf_file),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    model = HFLM(
        pretrained=model_from_gguf(gguf_file),
        tokenizer=tokenizer,
        batch_size=1,
        dtype="float32",
        device="cpu",
    )
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for subject, places in by_subject.items():
            shown = [example for example in examples if example["subject"] == subject]
            asked_items = [items[place] for place in places]
            names[_write_task(Path(folder), subject, asked_items, shown)] = places
        manager = TaskManager(include_path=folder, include_defaults=False)
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=list(names),
            num_fewshot=shots,
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
        )
        for name, places in names.items():
            for sample in results["samples"][name]:
                values = [float(response[0]) for response in sample["filtered_resps"]]
                answers[places[sample["doc_id"]]] = values
    return answers


def compare(mmlu: Path, ours: dict, theirs: dict) -> None:
    """Prints how far the two are apart."""
    items = _read(mmlu / "test.jsonl")
    deltas = [abs(a - b) for item in ours for a, b in zip(ours[item], theirs[item])]

    def chosen(values: list[float]) -> int:
        return max(range(len(values)), key=values.__getitem__)

    right = [
        sum(chosen(values[item]) == items[item]["answer"] for item in ours)
        for values in (ours, theirs)
    ]
    same = sum(chosen(ours[item]) == chosen(theirs[item]) for item in ours)
    print(f"{len(ours)} items: bantam {right[0]} right, lm-eval {right[1]}, same choice {same}")
    mean = sum(deltas) / len(deltas)
    print(f"log-likelihoods: largest difference {max(deltas):.2e}, mean {mean:.2e}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare MMLU answers with lm-eval's.")
    parser.add_argument("gguf_file", type=Path)
    parser.add_argument("mmlu", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    header, *lines = _read(arguments.results)
    ours = {line["item"]: line["log_likelihoods"] for line in lines}
    theirs = lm_eval_answers(
        arguments.gguf_file, arguments.mmlu, sorted(ours), header["shots"]
    )
    compare(arguments.mmlu, ours, theirs)


if __name__ == "__main__":
    main()
