"""The `llama-index-llms-openai-like` package."""

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from suite import QUESTION, RIVERS, Server, Suite, raised

suite = Suite("llama-index-llms-openai-like", "llama-index-core")
ASK = [ChatMessage(role="user", content=RIVERS)]


def get_weather(city: str) -> str:
    """Looks up the weather of a city."""
    return "18 degrees, sunny"


def model(server: Server, name: str | None = None, tokens: int = 24) -> OpenAILike:
    return OpenAILike(
        model=name or server.model,
        api_base=server.openai,
        api_key=server.key,
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        max_tokens=tokens,
        max_retries=0,
        timeout=300,
    )


@suite.check("text")
def a_text(server: Server):
    assert model(server).chat(ASK).message.content
    assert model(server).complete("The capital of France is").text


@suite.check("stream")
def a_stream(server: Server):
    pieces = [chunk.delta or "" for chunk in model(server).stream_chat(ASK)]
    assert "".join(pieces) == model(server).chat(ASK).message.content and len(pieces) > 3


@suite.check("tools")
def a_call(server: Server):
    tool = FunctionTool.from_defaults(get_weather)
    asked = model(server, tokens=120)
    answer = asked.chat_with_tools(
        [tool], user_msg=QUESTION, tool_choice="required", allow_parallel_tool_calls=False
    )
    (call,) = asked.get_tool_calls_from_response(answer)
    assert call.tool_name == "get_weather" and list(call.tool_kwargs) == ["city"]


@suite.check("usage")
def tokens_are_counted(server: Server):
    assert model(server).chat(ASK).raw.usage.completion_tokens == 24


@suite.check("errors")
def an_unknown_model_is_not_found(server: Server):
    raised(Exception, lambda: model(server, "none").chat(ASK), server.model)


suite.main()
