"""Models and conversations."""

import json
from enum import Enum
from typing import Annotated

from checks import Checks
from openai_shared import RIVERS, Shared, joined
from pydantic import BaseModel, Field


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class River(BaseModel):
    # A small model writes long names: the limits make sure that its answer has an end.
    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]
    size: Size


class Rivers(BaseModel):
    rivers: Annotated[list[River], Field(max_length=2)]
    complete: bool


ASK_FOR_JSON = [{"role": "user", "content": "Describe the river Rhine as JSON."}]


def register(checks: Checks) -> None:
    """Adds the checks of this file."""
    for group, check in CHECKS:
        checks.group(group)(check)


def list_and_retrieve_models(shared: Shared):
    models = shared.client.models.list()
    assert [model.id for model in models] == [shared.model]
    assert shared.client.models.retrieve(shared.model).id == shared.model


def whole_answer_and_usage(shared: Shared):
    answer = shared.chat()
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == shared.model
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and answer.usage.completion_tokens == 24
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def stream_equals_whole_answer(shared: Shared):
    whole = shared.chat()
    chunks = list(shared.chat(stream=True, stream_options={"include_usage": True}))
    assert joined(chunks) == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 10
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def stream_without_usage(shared: Shared):
    chunks = list(shared.chat(stream=True, max_completion_tokens=4))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def drawn_stream_equals_drawn_answer(shared: Shared):
    fields = {"temperature": 1.0, "top_p": 0.9, "seed": 7}
    whole = shared.chat(**fields).choices[0].message.content
    assert joined(list(shared.chat(stream=True, **fields))) == whole


async def asynchronous_answer_and_stream(shared: Shared):
    fields = {"model": shared.model, "messages": RIVERS, "temperature": 0, "max_tokens": 16}
    async with shared.asynchronous() as client:
        whole = await client.chat.completions.create(**fields)
        stream = await client.chat.completions.create(
            **fields, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert joined(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 16


def streaming_helper(shared: Shared):
    # The package takes an answer that reached its limit of tokens for an error: this one ends.
    pattern = {"structured_outputs": {"regex": "[A-Za-z ]{20,40}"}}
    fields = {"messages": RIVERS, "temperature": 0, "extra_body": pattern}
    fields["max_completion_tokens"] = 100
    with shared.client.chat.completions.stream(model=shared.model, **fields) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content
    assert final.choices[0].message.content == shared.chat(**fields).choices[0].message.content


def seed_makes_answers_repeatable(shared: Shared):
    texts = [
        shared.chat(temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2], texts


def three_answers(shared: Shared):
    answer = shared.chat(n=3, temperature=1.2, seed=3, max_completion_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3, texts
    assert answer.usage.completion_tokens == 36
    streamed = [""] * 3
    fields = {"n": 3, "temperature": 1.2, "seed": 3, "max_completion_tokens": 12}
    for chunk in shared.chat(stream=True, **fields):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def logprobs_and_alternatives(shared: Shared):
    answer = shared.chat(logprobs=True, top_logprobs=3, max_completion_tokens=8)
    content = answer.choices[0].logprobs.content
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry in content:
        top = [other.logprob for other in entry.top_logprobs]
        assert len(top) == 3 and top == sorted(top, reverse=True)
        assert entry.logprob == top[0] <= 0 and bytes(entry.bytes).decode() == entry.token
    chunks = list(shared.chat(logprobs=True, top_logprobs=3, max_completion_tokens=8, stream=True))
    with_logprobs = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    assert [entry for logprobs in with_logprobs for entry in logprobs.content] == content


def stop_text_ends_the_answer(shared: Shared):
    free = shared.chat().choices[0].message.content
    stop = free[8:12]
    answer = shared.chat(stop=[stop]).choices[0]
    assert answer.message.content == free[: free.index(stop)]
    assert answer.finish_reason == "stop"


def logit_bias_forbids_and_forces(shared: Shared):
    forced = shared.complete(logit_bias={"7042": 100}, max_tokens=3)
    assert forced.choices[0].text == " Paris" * 3, forced.choices[0].text
    free = shared.complete(max_tokens=1).choices[0].text
    other = shared.complete(logit_bias={"7042": -100}, max_tokens=1).choices[0].text
    assert free == " Paris" != other


def messages_in_parts_and_roles(shared: Shared):
    parts = [{"type": "text", "text": "Name three "}, {"type": "text", "text": "rivers."}]
    in_parts = shared.chat(messages=[{"role": "user", "content": parts}])
    assert in_parts.choices[0].message.content == shared.chat().choices[0].message.content
    developer, system = (
        shared.chat(messages=[{"role": role, "content": "Be brief."}, *RIVERS])
        for role in ("developer", "system")
    )
    assert developer.choices[0].message.content == system.choices[0].message.content


def parse_gives_an_object(shared: Shared):
    answer = shared.client.chat.completions.parse(
        model=shared.model,
        messages=ASK_FOR_JSON,
        response_format=River,
        temperature=0,
        max_completion_tokens=200,
    )
    assert isinstance(answer.choices[0].message.parsed, River)


def parse_nested_by_the_streaming_helper(shared: Shared):
    with shared.client.chat.completions.stream(
        model=shared.model,
        messages=ASK_FOR_JSON,
        response_format=Rivers,
        seed=1,
        temperature=0.7,
        max_completion_tokens=400,
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Rivers)


def json_object_and_described_schema(shared: Shared):
    fields = {"messages": ASK_FOR_JSON, "max_completion_tokens": 200}
    plain = shared.chat(response_format={"type": "json_object"}, **fields).choices[0]
    if plain.finish_reason == "stop":
        assert isinstance(json.loads(plain.message.content), dict)
    assert plain.message.content.lstrip().startswith("{")
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    schema["additionalProperties"] = False
    form = {"name": "decision", "description": "Yes or no.", "schema": schema, "strict": True}
    choice = shared.chat(response_format={"type": "json_schema", "json_schema": form}, **fields)
    assert isinstance(json.loads(choice.choices[0].message.content)["yes"], bool)


def extension_fields(shared: Shared):
    greedy = shared.chat().choices[0].message.content
    one = shared.chat(temperature=1.0, seed=5, extra_body={"top_k": 1})
    assert one.choices[0].message.content == greedy
    narrow = shared.chat(temperature=1.0, seed=5, extra_body={"min_p": 1.0})
    assert narrow.choices[0].message.content == greedy
    pattern = {"structured_outputs": {"regex": "[A-Z]{3}-[0-9]{4}"}}
    plate = shared.chat(extra_body=pattern).choices[0].message.content
    assert len(plate) == 8 and plate[3] == "-" and plate[4:].isdigit(), plate
    choice = {"structured_outputs": {"choice": ["Nile", "Rhine"]}}
    assert shared.chat(extra_body=choice).choices[0].message.content in ("Nile", "Rhine")
    search = {"use_beam_search": True, "best_of": 3}
    beams = shared.chat(n=2, max_completion_tokens=8, extra_body=search)
    assert len({choice.message.content for choice in beams.choices}) == 2


def raw_response_has_a_request_id(shared: Shared):
    raw = shared.client.chat.completions.with_raw_response.create(
        model=shared.model,
        messages=RIVERS,
        max_tokens=1,
        extra_headers={"x-request-id": "check-1"},
    )
    assert raw.headers["x-request-id"] == "check-1"
    assert raw.parse().choices[0].finish_reason == "length"


CHECKS = [
    ("models", list_and_retrieve_models),
    ("chat", whole_answer_and_usage),
    ("chat", stream_equals_whole_answer),
    ("chat", stream_without_usage),
    ("chat", drawn_stream_equals_drawn_answer),
    ("chat", asynchronous_answer_and_stream),
    ("chat", streaming_helper),
    ("chat", seed_makes_answers_repeatable),
    ("chat", three_answers),
    ("chat", logprobs_and_alternatives),
    ("chat", stop_text_ends_the_answer),
    ("chat", logit_bias_forbids_and_forces),
    ("chat", messages_in_parts_and_roles),
    ("chat", raw_response_has_a_request_id),
    ("structured", parse_gives_an_object),
    ("structured", parse_nested_by_the_streaming_helper),
    ("structured", json_object_and_described_schema),
    ("extensions", extension_fields),
]
