#!/bin/sh
# Quantizes a model by every recipe that bantam ships and prints what each cost: one table of
# perplexity and KL divergence against the original on one text, and one of size and time.
#
#   tools/accuracy/recipes.sh MODEL CALIBRATION TEXT FOLDER [RECIPE…]
#
# BANTAM is the binary (default target/release/bantam), SAMPLES the number of calibration sequences
# of 512 tokens (default 32), LIMIT the tokens of the text (default 8192). Folders that exist are kept.
set -eu
model=$1 calibration=$2 text=$3 folder=$4
shift 4
bantam=${BANTAM:-target/release/bantam}
mkdir -p "$folder"
[ $# -gt 0 ] || set -- fp8 fp8_pc_pt fp8_block int8_sq int8_wo int4_wo int4_awq int4_gptq w4a8_awq w4a8_int8
made=
for recipe in "$@"; do
    case $recipe in w4a8_awq) format=modelopt ;; *) format=compressed-tensors ;; esac
    if [ ! -d "$folder/$recipe" ]; then
        "$bantam" quantize "$model" --recipe "$recipe" --output "$folder/$recipe" --no-eval \
            --format $format --calibration "$calibration" --samples "${SAMPLES:-32}" >/dev/null
    fi
    made="$made $folder/$recipe"
done
# shellcheck disable=SC2086 # the folders of recipes have no spaces
"$bantam" eval $made --against "$model" --text "$text" --window 2048 --limit "${LIMIT:-8192}"
for recipe in "$@"; do
    python3 - "$recipe" "$folder/$recipe/report.json" <<'PYTHON'
import json, sys
name, path = sys.argv[1:]
report = json.load(open(path))
print(f"{name:<10} {report['quantized_bytes'] / 2**20:7.1f} MiB {report['seconds']:7.1f} s")
PYTHON
done
