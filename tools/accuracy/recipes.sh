#!/bin/sh
# Everything that docs/reference/accuracy.md says of the recipes: quantizes a model by each, then prints
# perplexity and KL divergence against the original, answers to MMLU, speed, size and time.
#
#   tools/accuracy/recipes.sh MODEL CALIBRATION TEXT FOLDER [RECIPE…]
#
# Environment: BANTAM, the binary (default target/release/bantam); SAMPLES, calibration sequences of 512
# tokens (default 32); LIMIT, tokens of the text (default 8192); MMLU, the folder of that benchmark, and
# QUESTIONS, how many of it (default 200): without it there is no such table; SPEED=no leaves that out.
# Folders that exist are kept, so a run that was stopped goes on.
set -eu
model=$1 calibration=$2 text=$3 folder=$4
shift 4
bantam=${BANTAM:-target/release/bantam}
mkdir -p "$folder"
[ $# -gt 0 ] || set -- int8_wo int8_sq fp8 fp8_pc_pt fp8_block int4_wo int4_awq int4_gptq w4a8_awq \
    w4a8_int8 auto
made=
for recipe in "$@"; do
    case $recipe in w4a8_awq) format=modelopt ;; *) format=compressed-tensors ;; esac
    if [ ! -d "$folder/$recipe" ]; then
        "$bantam" quantize "$model" --recipe "$recipe" --output "$folder/$recipe" --no-eval --resume \
            --format $format --calibration "$calibration" --samples "${SAMPLES:-32}" >/dev/null
    fi
    made="$made $folder/$recipe"
done

# shellcheck disable=SC2086 # the folders of recipes have no spaces
"$bantam" eval $made --against "$model" --text "$text" --window 2048 --limit "${LIMIT:-8192}"
if [ -n "${MMLU:-}" ]; then
    # shellcheck disable=SC2086
    "$bantam" eval $made --against "$model" --task mmlu --data "$MMLU" --shots 0 \
        --limit "${QUESTIONS:-200}" --results "$folder/mmlu"
fi
if [ "${SPEED:-yes}" != no ]; then
    for recipe in "$@"; do
        "$bantam" bench model "$folder/$recipe@bf16" --prompt-tokens 512 --decode-tokens 64 --batch 1,16
    done
fi
for recipe in "$@"; do
    python3 - "$recipe" "$folder/$recipe/report.json" <<'PYTHON'
import json, sys
name, path = sys.argv[1:]
report = json.load(open(path))
choosing = (report.get("formats") or {}).get("seconds", 0.0)
size = report["quantized_bytes"] / 2**20
print(f"{name:<10} {size:7.1f} MiB {report['seconds']:7.1f} s, choosing formats {choosing:.1f} s")
PYTHON
done
