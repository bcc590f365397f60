#!/usr/bin/env bash
# Asks `bantam serve` with curl: every route, every refusal, and how connections are kept.
#
#     tools/clients/curl_check.sh [BANTAM] [MODEL]
#
# Needs curl and the Python packages of requirements.txt (PYTHON names the interpreter).
set -uo pipefail

bantam=${1:-target/release/bantam}
model=${2:-smollm2}
python=${PYTHON:-python3}
key=key-of-the-checks
folder=$(mktemp -d)
num_ok=0
num_failed=0

"$bantam" serve "$model" --port 0 --log off --memory 2GiB --api-key "$key" --max-body 64KiB \
    >"$folder/server" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$folder"' EXIT
until url=$(grep -o 'http://[0-9.:]*' "$folder/server"); do
    kill -0 $server 2>/dev/null || { cat "$folder/server"; exit 1; }
    sleep 0.2
done

# tell NAME CONDITION…: counts and prints a check.
tell() {
    local name=$1
    shift
    if "$@"; then
        num_ok=$((num_ok + 1))
        printf '%-64s ok\n' "$name"
    else
        num_failed=$((num_failed + 1))
        printf '%-64s FAILED\n    status %s, body %.300s\n' "$name" "$status" "$(cat "$folder/body")"
    fi
}

# ask_as KEY PATH [CURL OPTIONS…]: leaves status, $folder/body and $folder/headers.
ask_as() {
    local shown=$1 path=$2
    shift 2
    status=$(curl -s -m 300 -o "$folder/body" -D "$folder/headers" -w '%{http_code}' \
        ${shown:+-H "Authorization: Bearer $shown"} "$@" "$url$path")
}

ask() { ask_as "$key" "$@"; }

post() {
    local path=$1 body=$2
    shift 2
    ask "$path" -H 'Content-Type: application/json' --data-binary "$body" "$@"
}

# is STATUS TEXT…: the status, and texts of the body.
is() {
    [ "$status" = "$1" ] || return 1
    shift
    local text
    for text in "$@"; do grep -qF -- "$text" "$folder/body" || return 1; done
}

header() { grep -qiE "$1" "$folder/headers"; }
python_says() { "$python" -c "$1" "$folder/body"; }

chat="{\"model\": \"$model\", \"max_tokens\": 8, \"temperature\": 0,
       \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]"

# Operation
ask /health
tell 'GET /health' is 200 '"ready":true'
ask /live
tell 'GET /live' is 200 alive
ask /
tell 'GET / is the page' is 200 '<html'
ask /openapi.json
tell 'GET /openapi.json' is 200 '/v1/chat/completions'
tell 'the description is valid OpenAPI' python_says '
import json, sys
from openapi_spec_validator import validate
validate(json.load(open(sys.argv[1])))'
ask /health -I
tell 'HEAD /health' is 200

# OpenAI
ask /v1/models
tell 'GET /v1/models' is 200 "\"id\":\"$model\""
ask "/v1/models/$model"
tell 'GET /v1/models/{id}' is 200 '"object":"model"'
post /v1/chat/completions "$chat}"
tell 'POST /v1/chat/completions' is 200 '"chat.completion"' '"usage"'
tell 'a request id comes back' header '^x-request-id: req-'
post /v1/chat/completions "$chat, \"stream\": true}" -N
tell 'server-sent events end with [DONE]' is 200 'data: [DONE]'
tell 'they say what they are' header '^content-type: text/event-stream'
tell 'every event is JSON' python_says '
import json, sys
lines = [line for line in open(sys.argv[1]).read().split("\n") if line]
assert len(lines) > 4 and all(line.startswith("data: ") for line in lines), lines
assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in lines[:-1])'
post /v1/completions "{\"model\": \"$model\", \"prompt\": \"One two\", \"max_tokens\": 4}"
tell 'POST /v1/completions' is 200 '"text_completion"'
post /v1/embeddings "{\"model\": \"$model\", \"input\": \"text\"}"
tell 'POST /v1/embeddings is refused' is 400 'no embeddings'
post /tokenize "{\"model\": \"$model\", \"prompt\": \"The capital of France is\"}"
tell 'POST /tokenize' is 200 '504,3575,282,4649,314'
post /detokenize "{\"model\": \"$model\", \"tokens\": [504, 3575]}"
tell 'POST /detokenize' is 200 'The capital'

# After some requests, so that there is something to measure.
ask /metrics
tell 'GET /metrics' is 200 bantam_requests_total
tell 'metrics are read by the parser of Prometheus' python_says '
import math, sys
from prometheus_client.parser import text_string_to_metric_families
families = {f.name: f for f in text_string_to_metric_families(open(sys.argv[1]).read())}
assert len(families) > 20 and all(f.documentation and f.type != "unknown" for f in families.values())
for family in families.values():
    if family.type != "histogram":
        continue
    series = {}
    for sample in family.samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, []).append(sample)
    for samples in series.values():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        count = next(s.value for s in samples if s.name.endswith("_count"))
        assert buckets == sorted(buckets) and buckets[-1] == (math.inf, count), family.name
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
'

# Refusals
post /v1/chat/completions '{"model": '
tell '400: no JSON' is 400 'not JSON' invalid_request_error
post /v1/chat/completions "$chat, \"temprature\": 1}"
tell '400: an unknown field is named' is 400 temprature temperature unknown_parameter
ask_as wrong /v1/models
tell '401: a wrong key' is 401 authentication_error invalid_api_key
tell '401 says how to authenticate' header '^www-authenticate: bearer'
for path in /metrics /openapi.json /v1/models; do
    ask_as '' $path
    tell "401: $path without a key" is 401 authentication_error
done
for path in / /health /live /ping; do
    ask_as '' $path
    tell "200: $path without a key" is 200
done
for name in api-key x-api-key; do
    ask_as '' /v1/models -H "$name: $key"
    tell "200: the key as $name" is 200
done
ask /v1/models/
tell '200: a slash at the end' is 200 '"object":"list"'
ask "/v1/models/$model" --head
tell '200: HEAD' is 200
ask /version
tell 'GET /version' is 200 '"version"'
ask /no/such/path
tell '404: no such path' is 404 invalid_request_error
ask /v1/models/no-such
tell '404: no such model' is 404 no-such
ask /v1/chat/completions
tell '405: GET where POST is meant' is 405 invalid_request_error
tell '405 says what is allowed' header '^allow:.*POST'
ask /health -X DELETE
tell '405: DELETE of what can only be read' is 405 invalid_request_error
head -c 70000 /dev/zero | tr '\0' ' ' >"$folder/large"
post /v1/chat/completions "@$folder/large"
tell '413: a body over the limit' is 413 '65536' '--max-body'
post /v1/chat/completions "@$folder/large" -H 'Transfer-Encoding: chunked'
tell '413: a body over the limit, of unstated length' is 413 '65536'
ask /v1/chat/completions -H 'Content-Type: text/plain' -d "$chat}"
tell '415: another content type' is 415 application/json
gzip -c <<<"$chat}" >"$folder/gzip"
post /v1/chat/completions "@$folder/gzip" -H 'Content-Encoding: gzip'
tell '415: a compressed body is refused, not misread' is 415 'do not compress'
ask "/v2/models/$model/generate" -d '{"text_input": "a"}'
tell '415: a form, which any web page can send' is 415 application/json
ask /v1/models -X OPTIONS -H 'Origin: https://evil.example' -H 'Access-Control-Request-Method: POST'
tell '403: a web page that was not let in' is 403 '--cors-origin' origin_not_allowed

# Connections
ask /v1/models --compressed
tell 'a client that accepts gzip gets what it can read' is 200 '"object":"list"'
connections=$(curl -s -o /dev/null -o /dev/null -o /dev/null -w '%{num_connects}' \
    "$url/health" "$url/live" "$url/no-such")
tell 'three requests take one connection, an error among them' [ "$connections" = 100 ]
ask /health -H 'Connection: close'
tell 'a connection is closed if asked' header '^connection: close'
ask /health --http1.0
tell 'HTTP/1.0' is 200
post /v1/chat/completions "$chat}" -H 'Expect: 100-continue'
tell 'Expect: 100-continue' is 200 '"chat.completion"'

printf '\n%d of %d passed; %s, bantam %s\n' $num_ok $((num_ok + num_failed)) \
    "$(curl --version | head -n 1 | cut -d ' ' -f 1,2)" "$("$bantam" --version | cut -d ' ' -f 2)"
[ $num_failed = 0 ]
