"""Asks a server for answers to all schemas of schemas.json, and counts those that end and are valid.

python measure.py http://127.0.0.1:8000 [--room 512], with the packages jsonschema and httpx.
"""

import argparse
import concurrent.futures
import json
import time
from collections import Counter
from pathlib import Path

import httpx
import jsonschema

PROMPTS = [
    "Give me an example.",
    "Invent data for a shop in Oslo.",
    "Describe the weather in Paris as JSON.",
    "List everything you know about cats.",
    "Count from 1 to 1000.",
    "Repeat the word hello for ever.",
]


def ask(client, arguments, name, schema, prompt, sampling):
    body = {
        "model": arguments.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": arguments.room,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        **sampling,
    }
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        return "refused", answer.text[:200], 0
    answer = answer.json()
    choice = answer["choices"][0]
    text, tokens = choice["message"]["content"], answer["usage"]["completion_tokens"]
    if choice["finish_reason"] != "stop":
        return "cut", text[-80:], tokens
    try:
        validator = jsonschema.validators.validator_for(schema)
        validator(schema).validate(json.loads(text))
    except Exception as error:
        return "invalid", f"{str(error)[:120]} in {text[:120]}", tokens
    return "valid", "", tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--room", type=int, default=512)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--every", type=int, default=1, help="only each so many of the schemas")
    arguments = parser.parse_args()
    schemas = json.loads(Path(__file__).with_name("schemas.json").read_text())
    schemas = dict(list(schemas.items())[:: arguments.every])
    client = httpx.Client(base_url=arguments.server, timeout=1200)
    print("| sampling | answers | valid | cut | invalid | refused | tokens, median | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for label, sampling in [("temperature 0", {"temperature": 0}), ("drawn, seed 1", {"temperature": 1, "seed": 1})]:
        begun, jobs = time.time(), []
        with concurrent.futures.ThreadPoolExecutor(arguments.at_once) as pool:
            for name, schema in schemas.items():
                for prompt in PROMPTS:
                    jobs.append((name, prompt, pool.submit(ask, client, arguments, name, schema, prompt, sampling)))
        counts, tokens, wrong = Counter(), [], []
        for name, prompt, job in jobs:
            outcome, why, used = job.result()
            counts[outcome] += 1
            tokens.append(used)
            if outcome != "valid":
                wrong.append(f"{outcome} {name} {prompt!r}: {why}")
        row = [label, len(jobs), *(counts[kind] for kind in ("valid", "cut", "invalid", "refused")),
               sorted(tokens)[len(tokens) // 2], round(time.time() - begun)]
        print("|", " | ".join(map(str, row)), "|", flush=True)
        print("\n".join(f"<!-- {line} -->" for line in wrong), flush=True)


if __name__ == "__main__":
    main()
