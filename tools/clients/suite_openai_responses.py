"""The `openai` package and `/v1/responses`."""

import asyncio
import json
from typing import Annotated

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field
from suite import QUESTION, RIVERS, WEATHER, Server, Suite, raised

suite = Suite("openai", "pydantic")
TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
ONE_CALL = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}


class River(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.openai, api_key=server.key, timeout=300, max_retries=0)


def ask(server: Server, **fields):
    defaults = {"input": RIVERS, "max_output_tokens": 24, "temperature": 0}
    return client(server).responses.create(model=server.model, **{**defaults, **fields})


@suite.check("text")
def a_text(server: Server):
    response = ask(server, instructions="Be brief.", metadata={"a": "b"})
    assert response.output_text and response.status in ("completed", "incomplete")
    assert response.metadata == {"a": "b"} and response.instructions == "Be brief."
    chat = client(server).chat.completions.create(
        model=server.model,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": RIVERS},
        ],
        max_completion_tokens=24,
        temperature=0,
    )
    assert response.output_text == chat.choices[0].message.content


@suite.check("text")
def an_answer_that_is_cut_is_incomplete(server: Server):
    response = ask(server, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


@suite.check("text")
def a_conversation_goes_on_by_the_name_of_a_response(server: Server):
    first = ask(server)
    second = ask(server, input="And a fourth?", previous_response_id=first.id)
    history = [{"role": "user", "content": RIVERS}]
    history += [item.model_dump() for item in first.output]
    whole = ask(server, input=[*history, {"role": "user", "content": "And a fourth?"}])
    assert second.output_text == whole.output_text
    api = client(server).responses
    assert api.retrieve(second.id).output_text == second.output_text
    assert [item.role for item in api.input_items.list(second.id, order="asc")] == [
        "user",
        "assistant",
        "user",
    ]
    api.delete(second.id)
    raised(openai.NotFoundError, lambda: api.retrieve(second.id))


@suite.check("stream")
def events_are_typed_and_add_up(server: Server):
    events = list(ask(server, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ], kinds
    # Each event is of its own type of the package, not of a type that takes anything.
    names = {type(event).__name__ for event in events}
    assert "ResponseTextDeltaEvent" in names and "ResponseIncompleteEvent" in names, names
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == ask(server).output_text == events[-1].response.output_text


@suite.check("stream")
def the_streaming_helper_gathers_the_response(server: Server):
    schema = {"type": "json_schema", "name": "r", "schema": River.model_json_schema()}
    fields = {"input": RIVERS, "temperature": 0, "max_output_tokens": 200}
    api = client(server).responses
    with api.stream(model=server.model, text={"format": schema}, **fields) as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text and final.status == "completed"


@suite.check("tools")
def a_call_and_its_result(server: Server):
    response = ask(server, input=QUESTION, max_output_tokens=120, **ONE_CALL)
    (call,) = response.output
    assert call.type == "function_call" and call.name == "get_weather"
    assert list(json.loads(call.arguments)) == ["city"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    history = [{"role": "user", "content": QUESTION}, call.model_dump(), result]
    by_items = ask(server, input=history, tools=[TOOL], tool_choice="none")
    by_name = ask(
        server, input=[result], previous_response_id=response.id, tools=[TOOL], tool_choice="none"
    )
    assert by_items.output_text == by_name.output_text != ""


@suite.check("tools")
def a_call_in_a_stream(server: Server):
    fields = {"input": QUESTION, "max_output_tokens": 120, **ONE_CALL}
    events = list(ask(server, stream=True, **fields))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    whole = ask(server, **fields).output[0]
    assert "".join(deltas) == whole.arguments
    assert events[-1].response.output[0].name == "get_weather"


@suite.check("tools")
def a_named_and_an_allowed_tool(server: Server):
    other = {**TOOL, "name": "get_news"}
    named = {"type": "function", "name": "get_news"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [named]}
    for choice in (named, allowed):
        fields = {**ONE_CALL, "tools": [TOOL, other], "tool_choice": choice}
        response = ask(server, input=QUESTION, max_output_tokens=120, **fields)
        assert [call.name for call in response.output] == ["get_news"]


@suite.check("structured")
def parse_gives_an_object(server: Server):
    response = client(server).responses.parse(
        model=server.model,
        input="Describe the river Rhine.",
        text_format=River,
        temperature=0,
        max_output_tokens=200,
    )
    assert isinstance(response.output_parsed, River)


@suite.check("usage")
def tokens_are_counted(server: Server):
    response = ask(server)
    usage = response.usage
    assert usage.output_tokens == 24 and usage.output_tokens_details.reasoning_tokens == 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    again = ask(server).usage
    assert again.input_tokens == usage.input_tokens
    assert again.input_tokens_details.cached_tokens > 0
    counted = client(server).responses.input_tokens.count(model=server.model, input=RIVERS)
    assert counted.input_tokens == usage.input_tokens


@suite.check("usage")
def log_probabilities(server: Server):
    include = ["message.output_text.logprobs"]
    content = ask(server, include=include, top_logprobs=2).output[0].content[0]
    assert len(content.logprobs) == 24 and len(content.logprobs[0].top_logprobs) == 2
    assert "".join(entry.token for entry in content.logprobs) == content.text


@suite.check("errors")
def refusals_name_the_field(server: Server):
    for fields, part in [
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"temperature": -1}, "temperature"),
        ({"extra_body": {"tempature": 1}}, "temperature"),
    ]:
        raised(openai.BadRequestError, lambda: ask(server, **fields), part)
    gone = lambda: ask(server, previous_response_id="resp_none")  # noqa: E731
    assert raised(openai.NotFoundError, gone).code == "previous_response_not_found"
    nobody = lambda: client(server).responses.create(model="none", input="x")  # noqa: E731
    raised(openai.NotFoundError, nobody, server.model)


@suite.check("cancel")
async def closing_a_stream_ends_the_work(server: Server):
    options = {"base_url": server.openai, "api_key": server.key, "timeout": 300}
    async with AsyncOpenAI(**options) as api:
        stream = await api.responses.create(
            model=server.model,
            input=RIVERS,
            stream=True,
            max_output_tokens=4000,
            extra_body={"ignore_eos": True},
        )
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        assert server.running() == 1
        await stream.close()
        await asyncio.to_thread(server.wait_until_idle)


suite.main()
