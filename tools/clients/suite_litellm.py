"""The `litellm` package: its OpenAI, Responses and Anthropic ways."""

import json

import litellm
from suite import QUESTION, RIVERS, WEATHER, Server, Suite, raised

suite = Suite("litellm", "openai")
litellm.telemetry = False
FUNCTION = {"name": "get_weather", "description": "Looks up the weather.", "parameters": WEATHER}
TOOL = {"type": "function", "function": FUNCTION}
ASK = [{"role": "user", "content": RIVERS}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}},
    "required": ["name"],
    "additionalProperties": False,
}


def openai(server: Server, **fields):
    defaults = {"messages": ASK, "max_tokens": 24, "temperature": 0}
    address = {"api_base": server.openai, "api_key": server.key, "num_retries": 0}
    name = fields.pop("model", server.model)
    return litellm.completion(f"openai/{name}", **{**defaults, **fields}, **address)


def anthropic(server: Server, **fields):
    defaults = {"messages": ASK, "max_tokens": 24, "temperature": 0}
    address = {"api_base": server.address, "api_key": server.key, "num_retries": 0}
    return litellm.completion(f"anthropic/{server.model}", **{**defaults, **fields}, **address)


@suite.check("text")
def a_text_by_chat_and_messages(server: Server):
    texts = [ask(server).choices[0].message.content for ask in (openai, anthropic)]
    assert texts[0] and texts[0] == texts[1]


@suite.check("text")
def a_text_by_responses(server: Server):
    response = litellm.responses(
        model=f"openai/{server.model}",
        input=RIVERS,
        max_output_tokens=24,
        temperature=0,
        api_base=server.openai,
        api_key=server.key,
    )
    assert response.output[0].content[0].text == openai(server).choices[0].message.content


@suite.check("stream")
def a_stream_by_chat_and_messages(server: Server):
    for ask in (openai, anthropic):
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(server, stream=True)]
        assert "".join(pieces) == ask(server).choices[0].message.content and len(pieces) > 3


@suite.check("tools")
def a_call_and_its_result(server: Server):
    question = [{"role": "user", "content": QUESTION}]
    for ask in (openai, anthropic):
        fields = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
        message = ask(server, messages=question, max_tokens=120, **fields).choices[0].message
        (call,) = message.tool_calls
        assert list(json.loads(call.function.arguments)) == ["city"]
        result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"}
        history = [*question, message.model_dump(), result]
        answer = ask(server, messages=history, tools=[TOOL], tool_choice="none")
        assert answer.choices[0].message.content


@suite.check("structured")
def a_schema(server: Server):
    form = {"name": "river", "schema": SCHEMA, "strict": True}
    format = {"type": "json_schema", "json_schema": form}
    answer = openai(server, response_format=format, max_tokens=100)
    assert list(json.loads(answer.choices[0].message.content)) == ["name"]


@suite.check("usage")
def tokens_are_counted(server: Server):
    for ask in (openai, anthropic):
        usage = ask(server).usage
        assert usage.completion_tokens == 24
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    chunks = list(openai(server, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 24


@suite.check("errors")
def errors_have_their_kinds(server: Server):
    raised(litellm.NotFoundError, lambda: openai(server, model="none"), server.model)
    long = [{"role": "user", "content": "word " * 20000}]
    raised(litellm.ContextWindowExceededError, lambda: openai(server, messages=long))


@suite.check("cancel")
def leaving_a_stream_ends_the_work(server: Server):
    stream = openai(server, stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.completion_stream.response.close()
    server.wait_until_idle()


suite.main()
