#!/usr/bin/env python3
"""Drives a running server with Triton's own client library, and with curl.

    python -m venv clients && clients/bin/pip install "tritonclient[all]"
    bantam serve smollm2
    clients/bin/python tools/clients/kserve_check.py --model smollm2

With a server that also speaks gRPC (feature `grpc`, option `--grpc-port`): add `--grpc HOST:PORT`.
Prints a line for each check; the exit code is 0 if all passed.
"""

import argparse
import json
import queue
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

PROMPT = "The capital of France is"
SAMPLING = {"max_tokens": 24, "temperature": 0, "exclude_input_in_output": True}


class Checks:
    """Counts and prints what passed."""

    def __init__(self):
        self.failed = 0

    def __call__(self, name, passed, detail=""):
        self.failed += not passed
        print(f"{'ok  ' if passed else 'FAIL'}  {name:<46}  {detail}")

    def equal(self, name, got, expected):
        self(name, got == expected, "" if got == expected else f"got {got!r}, expected {expected!r}")

    def refused(self, name, call, expected):
        try:
            call()
        except InferenceServerException as error:
            self(name, expected in error.message(), error.message())
        else:
            self(name, False, "nothing was refused")


def texts(result, name="text_output"):
    items = result.as_numpy(name).reshape(-1)
    # The client has bytes for what came as bytes, and text for what came as JSON.
    return [item.decode() if isinstance(item, bytes) else item for item in items]


def prompts(module, shape, items, **form):
    tensor = module.InferInput("text_input", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(items, dtype=object).reshape(shape), **form)
    return tensor


def tensor(module, name, datatype, array, **form):
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **form)
    return made


def over_http(check, address, model):
    client = http.InferenceServerClient(address)
    check("live, ready, model ready", client.is_server_live() and client.is_server_ready()
          and client.is_model_ready(model) and client.is_model_ready(model, "1"))
    check("an unknown model is not ready", not client.is_model_ready("no-such-model"))
    server = client.get_server_metadata()
    check("server metadata", "binary_tensor_data" in server["extensions"], server["version"])
    inputs = {t["name"]: t["datatype"] for t in client.get_model_metadata(model)["inputs"]}
    check("model metadata", inputs.get("text_input") == "BYTES", f"{len(inputs)} inputs")
    config = client.get_model_config(model)
    check("model configuration", config["backend"] == "bantam",
          f"context {config['parameters']['max_model_len']['string_value']}")
    index = client.get_model_repository_index()
    check("repository index", {"name": model, "version": "1", "state": "READY", "reason": ""} in index)
    check.refused("loading is refused", lambda: client.load_model(model), "when the server starts")

    binary = client.infer(model, [prompts(http, [1], [PROMPT])], request_id="r-1", parameters=SAMPLING)
    expected = texts(binary)
    check("infer: bytes in, bytes out", len(expected[0]) > 0, repr(expected[0]))
    check.equal("infer: id and names echoed", [binary.get_response()[k] for k in
                ("id", "model_name", "model_version")], ["r-1", model, "1"])
    outputs = [http.InferRequestedOutput("text_output", binary_data=False)]
    plain = client.infer(model, [prompts(http, [1], [PROMPT], binary_data=False)], outputs=outputs,
                         parameters=SAMPLING)
    check.equal("infer: JSON in, JSON out", texts(plain), expected)
    sampling = [
        tensor(http, "max_tokens", "INT32", np.array([[24]], dtype=np.int32)),
        tensor(http, "temperature", "FP32", np.array([[0]], dtype=np.float32)),
        tensor(http, "exclude_input_in_output", "BOOL", np.array([[True]]), binary_data=False),
    ]
    as_tensors = client.infer(model, [prompts(http, [1, 1], [PROMPT]), *sampling])
    check.equal("infer: parameters as tensors", texts(as_tensors), expected)
    vllm = tensor(http, "sampling_parameters", "BYTES",
                  np.array([json.dumps({"max_tokens": "24", "temperature": "0"})], dtype=object))
    echoed = client.infer(model, [prompts(http, [1], [PROMPT]), vllm])
    check.equal("infer: sampling_parameters, prompt echoed", texts(echoed), [PROMPT + expected[0]])
    batch = client.infer(model, [prompts(http, [2, 1], [PROMPT, "Water boils at"])],
                         parameters=SAMPLING)
    check.equal("infer: a batch of prompts", (list(batch.as_numpy("text_output").shape),
                texts(batch)[0]), ([2, 1], expected[0]))
    named = ["text_output", "finish_reason", "num_output_tokens", "output_log_probs"]
    told = client.infer(model, [prompts(http, [1], [PROMPT])], parameters=SAMPLING,
                        outputs=[http.InferRequestedOutput(name) for name in named])
    count = int(told.as_numpy("num_output_tokens")[0])
    logprobs = told.as_numpy("output_log_probs")
    check("infer: outputs by name", 0 < count <= 24 and logprobs.dtype == np.float32
          and bool((logprobs <= 0).all()) and texts(told, "finish_reason")[0] in ("stop", "length"),
          f"{count} tokens, {texts(told, 'finish_reason')[0]}")
    seeded = [client.infer(model, [prompts(http, [1], [PROMPT])],
                           parameters={"seed": 7, "temperature": 1.5, "exclude_input_in_output": True})
              for _ in range(2)]
    check.equal("infer: same seed, same answer", texts(seeded[0]), texts(seeded[1]))
    pending = [client.async_infer(model, [prompts(http, [1], [PROMPT])], parameters=SAMPLING)
               for _ in range(4)]
    check.equal("infer: four at once", [texts(p.get_result()) for p in pending], [expected] * 4)
    check.refused("an unknown parameter is refused", lambda: client.infer(
        model, [prompts(http, [1], [PROMPT])], parameters={"tempature": 1}), "temperature")
    check.refused("a malformed value is refused", lambda: client.infer(
        model, [prompts(http, [1], [PROMPT])], parameters={"top_p": 7.0}), "top_p")
    stats = client.get_inference_statistics(model)["model_stats"][0]
    check("statistics", stats["inference_stats"]["success"]["count"] >= 12,
          f"{stats['inference_count']} answers in {stats['execution_count']} steps")
    client.close()
    return expected[0]


def by_curl(check, address, model, expected):
    def curl(path, body):
        url = f"http://{address}/v2/models/{model}/{path}"
        command = ["curl", "-sS", "-N", "-X", "POST", url, "-d", json.dumps(body)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    ask = {"text_input": PROMPT, "bad_words": "", "stop_words": "", **SAMPLING}
    whole = json.loads(curl("generate", ask))
    check.equal("curl generate", whole["text_output"], expected)
    nested = {"text_input": PROMPT, "parameters": SAMPLING}
    check.equal("curl generate, nested parameters", json.loads(curl("generate", nested)), whole)
    lines = [line for line in curl("generate_stream", ask).split("\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    check.equal("curl generate_stream", "".join(e["text_output"] for e in events), expected)
    check("it came in pieces", len(events) > 3, f"{len(events)} events")
    error = json.loads(curl("generate", {"text_input": PROMPT, "stream": True}))
    check("curl: an error", "generate_stream" in error["error"], error["error"])


def over_grpc(check, address, model, expected):
    import tritonclient.grpc as grpc

    client = grpc.InferenceServerClient(address)
    check("gRPC live, ready, model ready", client.is_server_live() and client.is_server_ready()
          and client.is_model_ready(model))
    check.equal("gRPC server metadata", client.get_server_metadata().name, "bantam")
    metadata = client.get_model_metadata(model)
    check.equal("gRPC model metadata", metadata.outputs[0].name, "text_output")
    config = client.get_model_config(model).config
    check("gRPC model configuration", config.model_transaction_policy.decoupled,
          f"{len(config.input)} inputs")
    check.equal("gRPC repository index", client.get_model_repository_index().models[0].state, "READY")
    answer = client.infer(model, [prompts(grpc, [1], [PROMPT])], request_id="g-1",
                          parameters=SAMPLING)
    check.equal("gRPC infer", (texts(answer), answer.get_response().id), ([expected], "g-1"))
    check.refused("gRPC: an unknown model is refused", lambda: client.infer(
        "no-such-model", [prompts(grpc, [1], [PROMPT])]), "not served here")

    responses = queue.Queue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    flag = tensor(grpc, "stream", "BOOL", np.array([True]))
    for request in ("s-1", "s-2"):
        client.async_stream_infer(model, [prompts(grpc, [1], [PROMPT]), flag], request_id=request,
                                  parameters=SAMPLING, enable_empty_final_response=True)
    pieces, open_requests = {"s-1": [], "s-2": []}, 2
    while open_requests:
        result, error = responses.get(timeout=60)
        if error:
            check("gRPC stream", False, error.message())
            break
        response = result.get_response()
        pieces[response.id].extend(texts(result))
        open_requests -= response.parameters["triton_final_response"].bool_param
    client.stop_stream()
    check.equal("gRPC stream, two requests mixed", ["".join(p) for p in pieces.values()],
                [expected] * 2)
    check("it came in pieces", min(map(len, pieces.values())) > 3, f"{len(pieces['s-1'])} responses")
    stats = client.get_inference_statistics(model).model_stats[0]
    check("gRPC statistics", stats.inference_count > 0, f"{stats.inference_count} answers")
    client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--grpc", metavar="HOST:PORT")
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    print(f"tritonclient {version('tritonclient')}, numpy {version('numpy')}, "
          f"Python {sys.version.split()[0]}")
    check = Checks()
    expected = over_http(check, options.http, options.model)
    by_curl(check, options.http, options.model, expected)
    if options.grpc:
        over_grpc(check, options.grpc, options.model, expected)
    print("all passed" if not check.failed else f"{check.failed} failed")
    sys.exit(min(check.failed, 1))


if __name__ == "__main__":
    main()
