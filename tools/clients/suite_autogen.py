"""The `autogen-ext` package: its OpenAI client, and an agent with a tool."""

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel
from suite import QUESTION, RIVERS, Server, Suite

suite = Suite("autogen-ext", "autogen-agentchat")
ASK = [UserMessage(content=RIVERS, source="user")]
INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}


class Answer(BaseModel):
    yes: bool


async def get_weather(city: str) -> str:
    """Looks up the weather of a city."""
    return "18 degrees, sunny"


def client(server: Server, name: str | None = None, **fields) -> OpenAIChatCompletionClient:
    defaults = {"temperature": 0, "max_tokens": 24, "max_retries": 0, "timeout": 300}
    return OpenAIChatCompletionClient(
        model=name or server.model,
        base_url=server.openai,
        api_key=server.key,
        model_info=INFO,
        **{**defaults, **fields},
    )


@suite.check("text")
async def a_text(server: Server):
    assert (await client(server).create(ASK)).content


@suite.check("stream")
async def a_stream(server: Server):
    pieces = [piece async for piece in client(server).create_stream(ASK)]
    assert "".join(pieces[:-1]) == pieces[-1].content and len(pieces) > 3


@suite.check("tools")
async def an_agent_calls_a_tool(server: Server):
    agent = AssistantAgent(
        "helper",
        client(server, max_tokens=120, parallel_tool_calls=False),
        tools=[get_weather],
        reflect_on_tool_use=True,
    )
    result = await agent.run(task=QUESTION)
    assert result.messages[-1].content


@suite.check("structured")
async def an_object(server: Server):
    ask = [UserMessage(content="Is the Rhine a river?", source="user")]
    result = await client(server).create(ask, json_output=Answer)
    assert isinstance(Answer.model_validate_json(result.content), Answer)


@suite.check("usage")
async def tokens_are_counted(server: Server):
    usage = (await client(server).create(ASK)).usage
    assert usage.completion_tokens == 24 and usage.prompt_tokens > 0


@suite.check("errors")
async def an_unknown_model_is_not_found(server: Server):
    try:
        await client(server, "none").create(ASK)
    except Exception as error:  # whatever the package makes of it
        assert server.model in str(error)
    else:
        raise AssertionError("nothing was raised")


suite.main()
