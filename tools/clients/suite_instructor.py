"""The `instructor` package: objects by tools, by JSON schema and by Anthropic's tools."""

from typing import Annotated

import instructor
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel, Field
from suite import Server, Suite, raised

suite = Suite("instructor")
ASK = [{"role": "user", "content": "Describe the river Rhine."}]


class River(BaseModel):
    name: Annotated[str, Field(max_length=20)]
    length_km: Annotated[int, Field(ge=0, le=9999)]


def client(server: Server, mode):
    api = OpenAI(base_url=server.openai, api_key=server.key, timeout=300, max_retries=0)
    return instructor.from_openai(api, mode=mode)


def ask(server: Server, api, **fields):
    defaults = {"model": server.model, "response_model": River, "messages": ASK, "max_retries": 1}
    return api.chat.completions.create(**{**defaults, "max_tokens": 200, **fields})


@suite.check("tools")
def an_object_by_a_tool(server: Server):
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        assert isinstance(ask(server, client(server, mode), temperature=0), River)


@suite.check("tools")
def an_object_by_a_tool_of_messages(server: Server):
    api = Anthropic(base_url=server.address, api_key=server.key, timeout=300, max_retries=0)
    api = instructor.from_anthropic(api, mode=instructor.Mode.ANTHROPIC_TOOLS)
    assert isinstance(ask(server, api), River)


@suite.check("structured")
def an_object_by_its_schema(server: Server):
    api = client(server, instructor.Mode.JSON_SCHEMA)
    assert isinstance(ask(server, api, temperature=0), River)


@suite.check("stream")
def an_object_that_grows(server: Server):
    api = client(server, instructor.Mode.JSON_SCHEMA)
    fields = {"model": server.model, "response_model": River, "messages": ASK, "max_tokens": 200}
    partial = list(api.chat.completions.create_partial(temperature=0, **fields))
    assert len(partial) > 3 and partial[-1].name is not None


@suite.check("errors")
def an_unknown_model_is_not_found(server: Server):
    api = client(server, instructor.Mode.JSON_SCHEMA)
    raised(Exception, lambda: ask(server, api, model="none"), server.model)


suite.main()
