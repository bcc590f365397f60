"""The packages `langchain-openai` (both APIs) and `langchain-anthropic`."""

from typing import Annotated

import anthropic
import openai
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from suite import QUESTION, RIVERS, Server, Suite, raised

suite = Suite("langchain-openai", "langchain-anthropic", "langchain-core")


class River(BaseModel):
    """A river."""

    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


@tool
def get_weather(city: str) -> str:
    """Looks up the weather of a city."""
    return "18 degrees, sunny"


def models(server: Server, tokens: int = 24, **fields):
    common = {"temperature": 0, "max_tokens": tokens, "max_retries": 0, "timeout": 300}
    common = {"model": server.model, "api_key": server.key, **common, **fields}
    yield ChatOpenAI(base_url=server.openai, **common)
    yield ChatOpenAI(base_url=server.openai, use_responses_api=True, **common)
    yield ChatAnthropic(base_url=server.address, **common)


@suite.check("text")
def a_text(server: Server):
    ask = [SystemMessage("Be brief."), HumanMessage(RIVERS)]
    texts = [model.invoke(ask).text for model in models(server)]
    assert texts[0] and len(set(texts)) == 1, texts


@suite.check("stream")
def a_stream(server: Server):
    for model in models(server):
        pieces = [chunk.text for chunk in model.stream(RIVERS)]
        assert "".join(pieces) == model.invoke(RIVERS).text and len(pieces) > 3


@suite.check("tools")
def a_call_and_its_result(server: Server):
    for model in models(server, tokens=120):
        calling = model.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
        message = calling.invoke([HumanMessage(QUESTION)])
        (call,) = message.tool_calls
        assert call["name"] == "get_weather" and list(call["args"]) == ["city"]
        result = ToolMessage("18 degrees, sunny", tool_call_id=call["id"])
        answer = model.bind_tools([get_weather]).invoke([HumanMessage(QUESTION), message, result])
        assert answer.text or answer.tool_calls


@suite.check("structured")
def an_object(server: Server):
    for model in models(server, tokens=200):
        for method in ("json_schema", "function_calling"):
            asked = model.with_structured_output(River, method=method)
            assert isinstance(asked.invoke("Describe the river Rhine."), River), (model, method)


@suite.check("usage")
def tokens_are_counted(server: Server):
    for model in models(server):
        usage = model.invoke(RIVERS).usage_metadata
        assert usage["output_tokens"] == 24
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@suite.check("errors")
def an_unknown_model_is_not_found(server: Server):
    for model in models(server, model="none"):
        raised((openai.NotFoundError, anthropic.NotFoundError), lambda: model.invoke("x"), "none")


@suite.check("cancel")
def leaving_a_stream_ends_the_work(server: Server):
    for model in models(server, tokens=4000):
        stream = model.stream("Tell me everything about rivers.")
        next(stream)
        stream.close()
        server.wait_until_idle()


suite.main()
