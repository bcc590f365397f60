"""The `pydantic-ai` package over all three APIs."""

from typing import Annotated

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from suite import RIVERS, Server, Suite

suite = Suite("pydantic-ai-slim")
BRIEF = {"temperature": 0, "max_tokens": 24}


class River(BaseModel):
    """A river."""

    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


def models(server: Server, name: str | None = None):
    name = name or server.model
    api = AsyncOpenAI(base_url=server.openai, api_key=server.key, timeout=300, max_retries=0)
    openai = OpenAIProvider(openai_client=api)
    other = AsyncAnthropic(
        base_url=server.address, api_key=server.key, timeout=300, max_retries=0
    )
    yield OpenAIChatModel(name, provider=openai)
    yield OpenAIResponsesModel(name, provider=openai)
    yield AnthropicModel(name, provider=AnthropicProvider(anthropic_client=other))


@suite.check("text")
async def a_text(server: Server):
    texts = []
    for model in models(server):
        agent = Agent(model, instructions="Be brief.", model_settings=BRIEF)
        texts.append((await agent.run(RIVERS)).output)
    assert texts[0] and texts[0] == texts[1], texts
    assert texts[2], texts


@suite.check("stream")
async def a_stream(server: Server):
    for model in models(server):
        async with Agent(model, model_settings=BRIEF).run_stream(RIVERS) as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 3


@suite.check("tools")
async def an_object_by_a_tool(server: Server):
    for model in models(server):
        agent = Agent(model, output_type=River, model_settings={"max_tokens": 200})
        assert isinstance((await agent.run("Describe the river Rhine.")).output, River)


@suite.check("structured")
async def an_object_by_its_schema(server: Server):
    for model in list(models(server))[:2]:
        agent = Agent(model, output_type=NativeOutput(River), model_settings={"max_tokens": 200})
        assert isinstance((await agent.run("Describe the river Rhine.")).output, River)


@suite.check("usage")
async def tokens_are_counted(server: Server):
    for model in models(server):
        usage = (await Agent(model, model_settings=BRIEF).run(RIVERS)).usage
        usage = usage() if callable(usage) else usage
        assert usage.output_tokens == 24 and usage.input_tokens > 0


@suite.check("errors")
async def an_unknown_model_is_not_found(server: Server):
    for model in models(server, "none"):
        try:
            await Agent(model).run(RIVERS)
        except ModelHTTPError as error:
            assert error.status_code == 404 and server.model in str(error.body)
        else:
            raise AssertionError("nothing was raised")


suite.main()
