"""The `semantic-kernel` package: its OpenAI chat service, with a plugin."""

from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function
from suite import QUESTION, RIVERS, Server, Suite

suite = Suite("semantic-kernel")
ASKED = []


class Weather:
    """A plugin."""

    @kernel_function(description="Looks up the weather of a city.")
    def get_weather(self, city: str) -> str:
        ASKED.append(city)
        return "18 degrees, sunny"


def service(server: Server, name: str | None = None) -> OpenAIChatCompletion:
    api = AsyncOpenAI(base_url=server.openai, api_key=server.key, timeout=300, max_retries=0)
    return OpenAIChatCompletion(ai_model_id=name or server.model, async_client=api)


def history(text: str) -> ChatHistory:
    chat = ChatHistory()
    chat.add_user_message(text)
    return chat


def settings(**fields) -> OpenAIChatPromptExecutionSettings:
    return OpenAIChatPromptExecutionSettings(**{"max_tokens": 24, "temperature": 0, **fields})


@suite.check("text")
async def a_text(server: Server):
    message = await service(server).get_chat_message_content(history(RIVERS), settings())
    assert str(message)


@suite.check("stream")
async def a_stream(server: Server):
    stream = service(server).get_streaming_chat_message_content(history(RIVERS), settings())
    pieces = [str(piece) async for piece in stream]
    whole = await service(server).get_chat_message_content(history(RIVERS), settings())
    assert "".join(pieces) == str(whole) and len(pieces) > 3


@suite.check("tools")
async def a_plugin_is_called(server: Server):
    ASKED.clear()
    kernel = Kernel()
    kernel.add_plugin(Weather(), "weather")
    required = FunctionChoiceBehavior.Required(auto_invoke=True)
    asked = settings(max_tokens=120, function_choice_behavior=required, parallel_tool_calls=False)
    await service(server).get_chat_message_content(history(QUESTION), asked, kernel=kernel)
    assert ASKED


@suite.check("usage")
async def tokens_are_counted(server: Server):
    message = await service(server).get_chat_message_content(history(RIVERS), settings())
    assert message.metadata["usage"].completion_tokens == 24


@suite.check("errors")
async def an_unknown_model_is_not_found(server: Server):
    try:
        await service(server, "none").get_chat_message_content(history(RIVERS), settings())
    except Exception as error:  # whatever the package makes of it
        assert server.model in f"{error} {error.__cause__}"
    else:
        raise AssertionError("nothing was raised")


suite.main()
