"""The `openai-agents` package: agents over `/v1/responses`, which is its default."""

import asyncio
from typing import Annotated

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from suite import QUESTION, RIVERS, Server, Suite

set_tracing_disabled(True)
suite = Suite("openai-agents", "openai")
ASKED = []


class River(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


@function_tool
def get_weather(city: str) -> str:
    """Looks up the weather of a city."""
    ASKED.append(city)
    return "18 degrees, sunny"


def agent(server: Server, kind=OpenAIResponsesModel, **fields) -> Agent:
    api = AsyncOpenAI(base_url=server.openai, api_key=server.key, timeout=300, max_retries=0)
    settings = {"temperature": 0, "max_tokens": 48, **fields.pop("settings", {})}
    return Agent(
        name="Helper",
        instructions="Be brief.",
        model=kind(model=fields.pop("model", server.model), openai_client=api),
        model_settings=ModelSettings(**settings),
        **fields,
    )


@suite.check("text")
async def a_text_by_both_apis(server: Server):
    texts = [
        (await Runner.run(agent(server, kind), RIVERS)).final_output
        for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel)
    ]
    assert texts[0] and texts[0] == texts[1]


@suite.check("text")
async def turns_by_history_and_by_name(server: Server):
    first = await Runner.run(agent(server), RIVERS)
    history = first.to_input_list() + [{"role": "user", "content": "And a fourth?"}]
    by_history = await Runner.run(agent(server), history)
    by_name = await Runner.run(
        agent(server), "And a fourth?", previous_response_id=first.last_response_id
    )
    assert by_history.final_output == by_name.final_output != ""


@suite.check("stream")
async def a_stream(server: Server):
    result = Runner.run_streamed(agent(server), RIVERS)
    deltas = []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas.append(event.data.delta)
    assert "".join(deltas) == result.final_output and len(deltas) > 3


@suite.check("tools")
async def a_tool_is_called_and_its_result_read(server: Server):
    settings = {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 100}
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        ASKED.clear()
        result = await Runner.run(
            agent(server, kind, tools=[get_weather], settings=settings), QUESTION, max_turns=6
        )
        kinds = [item.type for item in result.new_items]
        assert ASKED and "tool_call_output_item" in kinds, kinds


@suite.check("structured")
async def an_output_type(server: Server):
    result = await Runner.run(
        agent(server, output_type=River, settings={"max_tokens": 200}), "Describe the Rhine."
    )
    assert isinstance(result.final_output, River)


@suite.check("structured")
async def an_output_type_beside_tools(server: Server):
    result = await Runner.run(
        agent(server, output_type=River, tools=[get_weather], settings={"max_tokens": 200}),
        "Describe the Rhine.",
        max_turns=6,
    )
    assert isinstance(result.final_output, River)


@suite.check("usage")
async def tokens_are_counted(server: Server):
    result = await Runner.run(agent(server), RIVERS)
    usage = result.context_wrapper.usage
    assert usage.requests == 1 and usage.input_tokens > 0 < usage.output_tokens <= 48
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@suite.check("errors")
async def an_unknown_model_is_not_found(server: Server):
    try:
        await Runner.run(agent(server, model="none"), RIVERS)
    except openai.NotFoundError as error:
        assert server.model in str(error)
    else:
        raise AssertionError("nothing was raised")


@suite.check("cancel")
async def a_run_that_is_cancelled_ends_the_work(server: Server):
    settings = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    result = Runner.run_streamed(agent(server, settings=settings), RIVERS)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            result.cancel()
            break
    await asyncio.to_thread(server.wait_until_idle)


suite.main()
