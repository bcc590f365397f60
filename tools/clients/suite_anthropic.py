"""The `anthropic` package and `/v1/messages`."""

import asyncio
from typing import Annotated

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel, Field
from suite import QUESTION, RIVERS, WEATHER, Server, Suite, raised

suite = Suite("anthropic", "pydantic")
TOOL = {"name": "get_weather", "description": "Looks up the weather.", "input_schema": WEATHER}
ONE_CALL = {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
ASK = [{"role": "user", "content": RIVERS}]
# Newer versions of the package have no parameters for these.
GREEDY = {"extra_body": {"temperature": 0}}


class River(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


def options(server: Server) -> dict:
    return {"base_url": server.address, "api_key": server.key, "timeout": 300, "max_retries": 0}


def client(server: Server) -> Anthropic:
    return Anthropic(**options(server))


def ask(server: Server, **fields):
    defaults = {"messages": ASK, "max_tokens": 24, **GREEDY}
    return client(server).messages.create(model=server.model, **{**defaults, **fields})


@suite.check("text")
def a_text(server: Server):
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    message = ask(server, system=system, metadata={"user_id": "u"})
    assert message.type == "message" and message.role == "assistant"
    assert message.content[0].text and message.stop_reason in ("max_tokens", "end_turn")
    assert message.content[0].text == ask(server, system="Be brief.").content[0].text
    assert message._request_id


@suite.check("text")
def a_stop_sequence_ends_the_answer(server: Server):
    free = ask(server).content[0].text
    stop = free[8:12]
    message = ask(server, stop_sequences=["\0", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == free[: free.index(stop)]


@suite.check("text")
def an_answer_goes_on_with_what_is_put_into_its_mouth(server: Server):
    begun = [*ASK, {"role": "assistant", "content": "The Nile, the"}]
    assert ask(server, messages=begun).content[0].text != ask(server).content[0].text


@suite.check("stream")
def events_add_up(server: Server):
    whole = ask(server)
    fields = {"model": server.model, "messages": ASK, "max_tokens": 24, **GREEDY}
    with client(server).messages.stream(**fields) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    events = [event.type for event in ask(server, stream=True)]
    kinds = list(dict.fromkeys(events))
    assert kinds[:1] == ["message_start"] and kinds[-2:] == ["message_delta", "message_stop"]


@suite.check("tools")
def a_call_and_its_result(server: Server):
    question = [{"role": "user", "content": QUESTION}]
    message = ask(server, messages=question, max_tokens=120, **ONE_CALL)
    (block,) = message.content
    assert message.stop_reason == "tool_use" and block.name == "get_weather"
    assert list(block.input) == ["city"]
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "18 degrees, sunny"}
    history = [
        *question,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    answer = ask(server, messages=history, tools=[TOOL], tool_choice={"type": "none"})
    assert answer.content[0].text


@suite.check("tools")
def a_call_in_a_stream(server: Server):
    fields = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 120, **ONE_CALL}
    whole = ask(server, **fields)
    with client(server).messages.stream(model=server.model, **GREEDY, **fields) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert len(pieces) > 1 and final.stop_reason == "tool_use"
    assert final.content[0].input == whole.content[0].input


@suite.check("tools")
def a_named_tool(server: Server):
    tools = [TOOL, {**TOOL, "name": "get_news"}]
    choice = {"type": "tool", "name": "get_news"}
    question = [{"role": "user", "content": QUESTION}]
    message = ask(server, messages=question, max_tokens=120, tools=tools, tool_choice=choice)
    assert [block.name for block in message.content] == ["get_news"]


@suite.check("structured")
def parse_gives_an_object(server: Server):
    message = client(server).messages.parse(
        model=server.model,
        messages=[{"role": "user", "content": "Describe the river Rhine."}],
        output_format=River,
        max_tokens=200,
        **GREEDY,
    )
    assert isinstance(message.parsed_output, River)


@suite.check("usage")
def tokens_are_counted(server: Server):
    usage = ask(server).usage
    again = ask(server).usage
    assert usage.output_tokens == 24 == again.output_tokens
    assert again.cache_read_input_tokens > 0
    total = again.input_tokens + again.cache_read_input_tokens
    counted = client(server).messages.count_tokens(model=server.model, messages=ASK)
    assert counted.input_tokens == total


@suite.check("errors")
def refusals_have_their_types(server: Server):
    image = {"type": "image", "source": {"type": "url", "url": "x"}}
    for fields, part in [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [image]}]}, "image"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"extra_body": {"tempature": 1}}, "temperature"),
    ]:
        error = raised(anthropic.BadRequestError, lambda: ask(server, **fields), part)
        assert error.body["error"]["type"] == "invalid_request_error"
        assert error.request_id
    none = lambda: client(server).messages.create(model="none", messages=ASK, max_tokens=1)  # noqa: E731
    assert raised(anthropic.NotFoundError, none).body["error"]["type"] == "not_found_error"
    stranger = Anthropic(**{**options(server), "api_key": "wrong"})
    ask_as = lambda: stranger.messages.create(model=server.model, messages=ASK, max_tokens=1)  # noqa: E731
    raised(anthropic.AuthenticationError, ask_as, "key")


@suite.check("cancel")
async def closing_a_stream_ends_the_work(server: Server):
    async with AsyncAnthropic(**options(server)) as api:
        stream = await api.messages.create(
            model=server.model,
            messages=ASK,
            max_tokens=4000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for event in stream:
            if event.type == "content_block_delta":
                break
        assert server.running() == 1
        await stream.close()
        await asyncio.to_thread(server.wait_until_idle)


suite.main()
