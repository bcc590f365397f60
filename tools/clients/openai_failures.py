"""What clients see when something does not work, and what the server does when they leave."""

import asyncio
import time

import openai
from checks import Checks
from openai import (
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai_shared import RIVERS, Shared, refused

ENDLESS = {"max_completion_tokens": 4000, "extra_body": {"ignore_eos": True}}
CROWD = 30


def register(checks: Checks) -> None:
    """Adds the checks of this file."""
    for check in CHECKS:
        checks.group("failures")(check)


def bad_values_are_bad_requests(shared: Shared):
    for field, value in [
        ("temperature", -1),
        ("top_p", 0),
        ("n", 0),
        ("top_logprobs", 50),
        ("max_tokens", 10**9),
        ("stop", ["x"] * 99),
        ("logit_bias", {"x": 1}),
    ]:
        fields = {"max_completion_tokens": None, field: value}
        error = refused(BadRequestError, lambda: shared.chat(**fields), field)
        assert error.type == "invalid_request_error" and error.status_code == 400
    error = refused(BadRequestError, lambda: shared.chat(messages=[]), "messages")
    assert error.param == "messages"


def unknown_field_is_named(shared: Shared):
    ask = lambda: shared.chat(extra_body={"temprature": 1})  # noqa: E731
    error = refused(BadRequestError, ask, "temprature", "temperature")
    assert (error.param, error.code) == ("temprature", "unknown_parameter")


def unsupported_field_says_what_to_use(shared: Shared):
    ask = lambda: shared.chat(extra_body={"guided_regex": "a"})  # noqa: E731
    assert refused(BadRequestError, ask, "structured_outputs").code == "unsupported_parameter"


def too_long_prompts_have_their_code(shared: Shared):
    ask = lambda: shared.complete(prompt="word " * 10000)  # noqa: E731
    assert refused(BadRequestError, ask).code == "context_length_exceeded"


def unknown_model_is_not_found(shared: Shared):
    error = refused(NotFoundError, lambda: shared.client.models.retrieve("no-such"), "no-such")
    assert error.status_code == 404
    ask = lambda: shared.client.chat.completions.create(model="no-such", messages=RIVERS)  # noqa: E731
    refused(NotFoundError, ask, "no-such", shared.model)


def wrong_key_is_an_authentication_error(shared: Shared):
    client = OpenAI(**{**shared.options(), "api_key": "wrong"})
    refused(AuthenticationError, client.models.list, "key")


def embeddings_are_refused_with_a_reason(shared: Shared):
    ask = lambda: shared.client.embeddings.create(model=shared.model, input="text")  # noqa: E731
    refused(BadRequestError, ask, "decoder", "embeddings")


def other_endpoints_are_not_found(shared: Shared):
    ask = lambda: shared.client.moderations.create(model=shared.model, input="Hi")  # noqa: E731
    refused(NotFoundError, ask)


def a_time_out_of_the_client_ends_the_work(shared: Shared):
    client = shared.client.with_options(timeout=1.0)
    fields = {"model": shared.model, "messages": RIVERS}
    refused(APITimeoutError, lambda: client.chat.completions.create(**fields, **ENDLESS))
    shared.wait_until_idle()


def closing_a_stream_ends_the_work(shared: Shared):
    stream = shared.chat(stream=True, **ENDLESS)
    said = (chunk for chunk in stream if chunk.choices[0].delta.content)
    assert next(said) and shared.running() == 1
    stream.close()
    shared.wait_until_idle()


async def cancelling_a_task_ends_the_work(shared: Shared):
    async with shared.asynchronous() as client:
        fields = {"model": shared.model, "messages": RIVERS}
        task = asyncio.create_task(client.chat.completions.create(**fields, **ENDLESS))
        await asyncio.sleep(1)
        task.cancel()
        assert (await asyncio.gather(task, return_exceptions=True))[0] is not None
        await asyncio.to_thread(shared.wait_until_idle)


def a_time_out_of_the_request_is_told(shared: Shared):
    fields = {"max_completion_tokens": 4000, "extra_body": {"ignore_eos": True, "timeout": 0.5}}
    error = refused(openai.APIStatusError, lambda: shared.chat(**fields))
    assert error.status_code == 408 and error.type == "timeout_error"
    shared.wait_until_idle()


async def a_crowd_is_refused_in_time(shared: Shared):
    async with shared.asynchronous() as client:
        results = await asyncio.gather(*_crowd(shared, client), return_exceptions=True)
    refused_ones = [result for result in results if isinstance(result, RateLimitError)]
    answers = [result for result in results if not isinstance(result, Exception)]
    assert refused_ones and answers and len(refused_ones) + len(answers) == CROWD, results
    for error in refused_ones:
        assert error.code in ("queue_full", "too_many_requests")
        assert int(error.response.headers["retry-after"]) >= 1


async def a_crowd_that_tries_again_is_served(shared: Shared):
    begin = time.monotonic()
    async with shared.asynchronous() as client:
        patient = client.with_options(max_retries=20)
        answers = await asyncio.gather(*_crowd(shared, patient))
    assert len(answers) == CROWD and time.monotonic() - begin < 280
    assert len({answer.choices[0].message.content for answer in answers}) == 1


def _crowd(shared: Shared, client):
    """More requests at once than run and wait."""
    fields = {"model": shared.model, "messages": RIVERS, "max_tokens": 8, "temperature": 0}
    return [client.chat.completions.create(**fields) for _ in range(CROWD)]


CHECKS = [
    bad_values_are_bad_requests,
    unknown_field_is_named,
    unsupported_field_says_what_to_use,
    too_long_prompts_have_their_code,
    unknown_model_is_not_found,
    wrong_key_is_an_authentication_error,
    embeddings_are_refused_with_a_reason,
    other_endpoints_are_not_found,
    a_time_out_of_the_client_ends_the_work,
    closing_a_stream_ends_the_work,
    cancelling_a_task_ends_the_work,
    a_time_out_of_the_request_is_told,
    a_crowd_is_refused_in_time,
    a_crowd_that_tries_again_is_served,
]
