"""Everything that docs/reference/accuracy.md says of the recipes, in one command.

    python tools/accuracy/recipes.py MODEL CALIBRATION TEXT MMLU FOLDER

Quantizes MODEL by each recipe into FOLDER, measures perplexity, KL divergence, MMLU and speed beside the
original, and puts the tables between the marks of the page. Python 3.9 with nothing else. What FOLDER
holds is kept, so that a run that was stopped goes on: remove what is to be measured again.
"""

import argparse
import json
import subprocess
from pathlib import Path

RECIPES = (
    "int8_wo int8_sq fp8_block fp8_pc_pt fp8 auto int4_gptq w4a8_int8 int4_awq w4a8_awq int4_wo".split()
)
# Recipes whose words one dialect does not have.
MODELOPT = {"w4a8_awq"}
CACHES = ("int8", "fp8")
WITH_CACHES = ("int8_sq", "int4_gptq")
MIB = 2**20


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("model", "calibration", "text", "mmlu", "folder"):
        parser.add_argument(name)
    parser.add_argument("--bantam", default="target/release/bantam")
    parser.add_argument("--samples", default="32", help="sequences of 512 tokens to calibrate with")
    parser.add_argument("--tokens", default="32768", help="of the text")
    parser.add_argument("--questions", default="200", help="of MMLU")
    parser.add_argument("--page", default="docs/reference/accuracy.md")
    return parser.parse_args()


class Run:
    """A binary, a model, and a folder of results."""

    def __init__(self, options):
        self.options, self.model, self.folder = options, options.model, Path(options.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def bantam(self, *arguments):
        """What a command prints as JSON."""
        command = [self.options.bantam, *map(str, arguments), "--json"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def once(self, name, *arguments):
        """The same, kept in a file."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(self.bantam(*arguments)))
        return json.loads(path.read_text())

    def quantized(self, recipe, name=None, extra=()):
        """The folder of a recipe, made if it must be."""
        folder = self.folder / (name or recipe)
        if not folder.exists():
            dialect = "modelopt" if recipe in MODELOPT else "compressed-tensors"
            calibration = ["--calibration", self.options.calibration, "--samples", self.options.samples]
            options = ["--format", dialect, "--no-eval", "--resume", *calibration, *extra]
            self.bantam("quantize", self.model, "--recipe", recipe, "--output", folder, *options)
        return folder

    def perplexity(self, name, models):
        text = ["--text", self.options.text, "--window", 2048, "--limit", self.options.tokens]
        return self.once(name, "eval", *models, "--against", self.model, *text)

    def mmlu(self, models):
        task = ["--task", "mmlu", "--data", self.options.mmlu, "--shots", 0]
        limits = ["--limit", self.options.questions, "--results", self.folder / "answers"]
        return self.once("mmlu", "eval", *models, "--against", self.model, *task, *limits)

    def speed(self, name, model):
        shape = ["--prompt-tokens", 128, "--decode-tokens", 32, "--batch", "1,16"]
        return self.once(f"speed-{name}", "bench", "model", model, *shape)


def table(columns, rows):
    """Markdown; the first column is text."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent_more(value, than):
    return f"{100 * (value / than - 1):+#.3g}".replace("-", "−")


def quality_cells(name, model, against):
    """Weights, perplexity and divergence of a model beside another."""
    return [
        name,
        f"{model['weight_bytes'] / MIB:.1f}",
        f"{model['perplexity']:.3f}",
        "" if model is against else percent_more(model["perplexity"], against["perplexity"]),
        f"{model['kl_mean']:.3g}",
        f"{100 * model['top1_agreement']:.1f}",
    ]


def mmlu_cells(model, against):
    accuracy, error = 100 * model["accuracy"], 100 * model["accuracy_standard_error"]
    cells = [f"{accuracy:.1f} ± {error:.1f}"]
    if model is against:
        return cells + ["", ""]
    return cells + [f"{model['loss_percent']:.1f}".replace("-", "−"), f"{model['lost']} / {model['gained']}"]


def quality_table(perplexity, mmlu, names, seconds):
    columns = "recipe, weights (MiB), perplexity, Δ %, KL (nats/token), top-1 agreement (%), MMLU (%), " \
        "loss %, lost / gained, quantized in (s)".split(", ")
    against = perplexity["against"]
    rows = [quality_cells("f32", against, against) + mmlu_cells(mmlu["against"], mmlu["against"]) + [""]]
    for name, model, answers in zip(names, perplexity["models"], mmlu["models"]):
        cells = quality_cells(name, model, against) + mmlu_cells(answers, mmlu["against"])
        rows.append(cells + [seconds.get(name, "")])
    return table(columns, rows)


def speed_table(speeds):
    columns = ["recipe", "weights (MiB)", "prefill (tok/s)", "decode, batch 1 (tok/s)", "share of bandwidth",
               "decode, batch 16 (tok/s)"]
    rows = []
    for name, speed in speeds.items():
        one, many = speed["results"]
        rows.append([
            name,
            f"{one['weight_bytes'] / MIB:.1f}",
            f"{one['speed']['prefill_tokens_per_second']:.0f}",
            f"{one['speed']['decode_tokens_per_second']:.0f}",
            f"{100 * one['decode_share']:.0f} %",
            f"{many['speed']['decode_tokens_per_second']:.0f}",
        ])
    return table(columns, rows)


def cache_table(caches, names):
    columns = "weights, cache, perplexity, Δ %, KL (nats/token), top-1 agreement (%)".split(", ")
    against = caches["against"]
    rows = []
    for (weights, cache), model in zip(names, caches["models"]):
        rows.append([weights, cache, *quality_cells("", model, against)[2:]])
    return table(columns, rows)


def seconds_of(folder):
    report = json.loads((folder / "report.json").read_text())
    choosing = (report.get("formats") or {}).get("seconds")
    return (f"{choosing:.0f} + " if choosing else "") + f"{report['seconds']:.0f}"


def put(page, name, text):
    """Puts a table between its marks."""
    start, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, rest = page.split(start)
    return f"{before}{start}{text}\n{end}{rest.split(end, 1)[1]}"


def main():
    options = parse_arguments()
    run = Run(options)
    folders = {recipe: run.quantized(recipe) for recipe in RECIPES}
    models = {"bf16": f"{options.model}@bf16", **folders}
    perplexity, mmlu = run.perplexity("perplexity", models.values()), run.mmlu(models.values())
    seconds = {name: seconds_of(folder) for name, folder in folders.items()}
    tables = {"recipes": quality_table(perplexity, mmlu, models, seconds)}

    caches = {("bf16", "bf16"): models["bf16"]}
    for cache in CACHES:
        calibrated = run.quantized("kv_only", f"kv_only-{cache}", ["--kv", cache])
        caches["bf16", f"{cache}, scales by token"] = f"{options.model}@bf16+{cache}"
        caches["bf16", f"{cache}, calibrated"] = f"{calibrated}@bf16+{cache}"
    for recipe in WITH_CACHES:
        for cache in ("bf16", *CACHES):
            caches[recipe, cache] = f"{folders[recipe]}@bf16+{cache}"
    tables["caches"] = cache_table(run.perplexity("caches", caches.values()), caches)

    tables["speeds"] = speed_table({name: run.speed(name, model) for name, model in models.items()})
    page = Path(options.page).read_text()
    for name, text in tables.items():
        page = put(page, name, text)
    Path(options.page).write_text(page)


if __name__ == "__main__":
    main()
