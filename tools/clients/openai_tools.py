"""Tools and calls."""

import json

from checks import Checks
from openai import BadRequestError, pydantic_function_tool
from openai_shared import Shared, refused
from pydantic import BaseModel


def function(name: str, parameter: str, kind: str) -> dict:
    """A tool of one parameter."""
    parameters = {
        "type": "object",
        "properties": {parameter: {"type": kind}},
        "required": [parameter],
        "additionalProperties": False,
    }
    described = {"name": name, "description": f"Looks up by {parameter}.", "parameters": parameters}
    return {"type": "function", "function": described}


TOOLS = [function("get_weather", "city", "string"), function("add_days", "days", "integer")]
KINDS = {"get_weather": ("city", str), "add_days": ("days", int)}
ASK = {"messages": [{"role": "user", "content": "How is the weather in Paris?"}], "tools": TOOLS}
# A small model that may call again and again does so until it has no room.
ONE = {"max_completion_tokens": 120, "parallel_tool_calls": False}
ROOM = {"max_completion_tokens": 120}


class GetWeather(BaseModel):
    """Looks up the weather of a city."""

    city: str


def register(checks: Checks) -> None:
    """Adds the checks of this file."""
    for check in CHECKS:
        checks.group("tools")(check)


def calls_of(message) -> list[tuple[str, str]]:
    """Names and arguments, without the ids, which are drawn."""
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


def streamed(shared: Shared, **fields) -> tuple[str, list[tuple[str, str]], str]:
    """The text, the calls and the reason of the end, as a client adds them up."""
    text, calls, reason = "", {}, None
    for chunk in shared.chat(stream=True, **fields):
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for delta in choice.delta.tool_calls or []:
            call = calls.setdefault(delta.index, {"id": delta.id, "name": "", "arguments": ""})
            call["name"] += delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""
    assert all(call["id"] for call in calls.values())
    return text, [(call["name"], call["arguments"]) for _, call in sorted(calls.items())], reason


def check_valid(calls: list[tuple[str, str]]) -> None:
    """Checks that calls are of the tools, with arguments as their schemas have them."""
    for name, arguments in calls:
        parameter, kind = KINDS[name]
        parsed = json.loads(arguments)
        assert list(parsed) == [parameter] and isinstance(parsed[parameter], kind), arguments


def required_call_whole_and_streamed(shared: Shared):
    fields = {**ASK, **ONE, "tool_choice": "required"}
    choice = shared.chat(**fields).choices[0]
    calls = calls_of(choice.message)
    assert choice.finish_reason == "tool_calls" and calls and choice.message.content is None
    check_valid(calls)
    assert streamed(shared, **fields) == ("", calls, "tool_calls")


def named_call_whole_and_streamed(shared: Shared):
    for name in KINDS:
        named = {"type": "function", "function": {"name": name}}
        fields = {**ASK, **ONE, "tool_choice": named}
        calls = calls_of(shared.chat(**fields).choices[0].message)
        assert [called for called, _ in calls] == [name] * len(calls) and calls
        check_valid(calls)
        assert streamed(shared, **fields)[1] == calls


def automatic_choice_streams_the_same(shared: Shared):
    fields = {**ASK, **ROOM, "tool_choice": "auto"}
    choice = shared.chat(**fields).choices[0]
    text, calls, reason = streamed(shared, **fields)
    assert (text or None) == choice.message.content
    assert (calls, reason) == (calls_of(choice.message), choice.finish_reason)


def no_calls_if_the_choice_is_none(shared: Shared):
    choice = shared.chat(**ASK, max_completion_tokens=40, tool_choice="none").choices[0]
    assert choice.message.tool_calls is None and choice.message.content


def one_call_if_not_parallel(shared: Shared):
    several, one = (
        calls_of(shared.chat(**ASK, **room, tool_choice="required").choices[0].message)
        for room in (ROOM, ONE)
    )
    assert len(one) == 1 and several[0] == one[0]
    check_valid(one)


def several_calls_stream_the_same(shared: Shared):
    fields = {**ASK, **ROOM, "tool_choice": "required"}
    choice = shared.chat(**fields).choices[0]
    assert streamed(shared, **fields) == ("", calls_of(choice.message), choice.finish_reason)


def results_go_back(shared: Shared):
    message = shared.chat(**ASK, **ONE, tool_choice="required").choices[0].message
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"}
    history = [*ASK["messages"], message.model_dump(exclude_none=True), result]
    answer = shared.chat(messages=history, tools=TOOLS, max_completion_tokens=16)
    assert answer.usage.prompt_tokens > 50


def parsed_arguments_of_a_pydantic_tool(shared: Shared):
    answer = shared.client.chat.completions.parse(
        model=shared.model,
        messages=ASK["messages"],
        tools=[pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_completion_tokens=120,
    )
    call = answer.choices[0].message.tool_calls[0]
    assert isinstance(call.function.parsed_arguments, GetWeather)


def strict_tool_with_automatic_choice_follows_its_schema(shared: Shared):
    tools = [pydantic_function_tool(GetWeather)]
    fields = {"messages": ASK["messages"], "tools": tools, **ROOM}
    for seed in range(4):
        choice = shared.chat(**fields, seed=seed, temperature=1).choices[0]
        text, calls, reason = streamed(shared, **fields, seed=seed, temperature=1)
        assert (text or None, reason) == (choice.message.content, choice.finish_reason)
        assert calls == calls_of(choice.message)
        # The last call of an answer that has no more room may be cut off.
        whole = calls[:-1] if reason == "length" else calls
        for name, arguments in whole:
            assert name == "GetWeather"
            GetWeather.model_validate_json(arguments)


def unknown_name_is_refused(shared: Shared):
    named = {"type": "function", "function": {"name": "no_such"}}
    refused(BadRequestError, lambda: shared.chat(**ASK, tool_choice=named), "no_such")


CHECKS = [
    required_call_whole_and_streamed,
    named_call_whole_and_streamed,
    automatic_choice_streams_the_same,
    no_calls_if_the_choice_is_none,
    one_call_if_not_parallel,
    several_calls_stream_the_same,
    results_go_back,
    parsed_arguments_of_a_pydantic_tool,
    strict_tool_with_automatic_choice_follows_its_schema,
    unknown_name_is_refused,
]
