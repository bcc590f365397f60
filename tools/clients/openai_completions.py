"""Completions: texts, token ids, echoes, log-probabilities."""

from checks import Checks
from openai import BadRequestError
from openai_shared import Shared, refused

# "The capital of France is" in SmolLM2's tokens.
CAPITAL_IDS = [504, 3575, 282, 4649, 314]
CAPITAL = "The capital of France is"
# What follows is the end of the turn, which is never shown.
ENDS_AT_ONCE = "<|im_start|>user\nSay only yes<|im_end|>\n<|im_start|>assistant\nYes."


def register(checks: Checks) -> None:
    """Adds the checks of this file."""
    for check in CHECKS:
        checks.group("completions")(check)


def text_and_token_ids_are_the_same(shared: Shared):
    text = shared.complete()
    ids = shared.complete(prompt=CAPITAL_IDS)
    assert text.object == "text_completion" and text.choices[0].text == ids.choices[0].text
    assert text.usage.prompt_tokens == ids.usage.prompt_tokens == len(CAPITAL_IDS)


def stream_equals_whole_text(shared: Shared):
    whole = shared.complete().choices[0].text
    chunks = list(shared.complete(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole
    assert chunks[-1].usage.completion_tokens == 8


async def asynchronous_stream(shared: Shared):
    fields = {"model": shared.model, "prompt": CAPITAL, "max_tokens": 8, "temperature": 0}
    async with shared.asynchronous() as client:
        stream = await client.completions.create(**fields, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == (await client.completions.create(**fields)).choices[0].text


def max_tokens_defaults_to_16(shared: Shared):
    answer = shared.client.completions.create(model=shared.model, prompt=CAPITAL, temperature=0)
    assert answer.usage.completion_tokens <= 16


def batch_of_prompts(shared: Shared):
    prompts = [CAPITAL, "One two three", "The sea is"]
    answer = shared.complete(prompt=prompts)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    alone = [shared.complete(prompt=prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in answer.choices] == alone
    ids = shared.complete(prompt=[CAPITAL_IDS, CAPITAL_IDS[:3]], n=2, temperature=1, seed=1)
    assert [choice.index for choice in ids.choices] == [0, 1, 2, 3]
    assert ids.choices[0].text != ids.choices[1].text


def echo_with_logprobs(shared: Shared):
    choice = shared.complete(echo=True, logprobs=2).choices[0]
    logprobs = choice.logprobs
    assert choice.text.startswith(CAPITAL) and "".join(logprobs.tokens) == choice.text
    assert len(logprobs.tokens) == len(CAPITAL_IDS) + 8
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    for token, value, top, offset in zip(
        logprobs.tokens[1:],
        logprobs.token_logprobs[1:],
        logprobs.top_logprobs[1:],
        logprobs.text_offset[1:],
        strict=True,
    ):
        assert top[token] == value <= 0 and 2 <= len(top) <= 3
        assert choice.text[offset : offset + len(token)] == token
    chosen = zip(
        logprobs.token_logprobs[len(CAPITAL_IDS) :],
        logprobs.top_logprobs[len(CAPITAL_IDS) :],
        strict=True,
    )
    assert all(value == max(top.values()) for value, top in chosen)


def echo_without_answer_scores_the_prompt(shared: Shared):
    scored = shared.complete(echo=True, logprobs=1, max_tokens=0).choices[0]
    longer = shared.complete(echo=True, logprobs=1, max_tokens=1).choices[0]
    assert scored.text == CAPITAL and scored.finish_reason == "length"
    pairs = zip(
        scored.logprobs.token_logprobs[1:], longer.logprobs.token_logprobs[1:], strict=False
    )
    assert all(abs(one - other) < 1e-4 for one, other in pairs)


def every_token_has_its_logprob_at_the_end_of_a_turn(shared: Shared):
    answer = shared.complete(prompt=ENDS_AT_ONCE, echo=True, logprobs=1, max_tokens=1)
    usage, logprobs = answer.usage, answer.choices[0].logprobs
    assert answer.choices[0].finish_reason == "stop", answer.choices[0]
    assert answer.choices[0].text == ENDS_AT_ONCE
    # Tools that score texts leave out the last entry, which they take for the generated token.
    assert len(logprobs.token_logprobs) == usage.prompt_tokens + 1, logprobs.tokens
    assert logprobs.text_offset[-1] == len(ENDS_AT_ONCE)


def best_of_draws_and_chooses(shared: Shared):
    fields = {"temperature": 1.0, "seed": 4, "logprobs": 0, "max_tokens": 6}
    every = shared.complete(n=4, **fields).choices
    means = {
        choice.text: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
        for choice in every
    }
    answer = shared.complete(best_of=4, **fields)
    assert len(answer.choices) == 1 and answer.usage.completion_tokens > 6
    assert answer.choices[0].text == max(means, key=means.get), means


def stop_texts_and_penalties(shared: Shared):
    stopped = shared.complete(stop=["."], max_tokens=16).choices[0]
    assert "." not in stopped.text and stopped.finish_reason == "stop"
    free = shared.complete(prompt="na na na na", max_tokens=12).choices[0].text
    other = shared.complete(
        prompt="na na na na", max_tokens=12, frequency_penalty=2, presence_penalty=2
    )
    assert other.choices[0].text != free


def beam_search(shared: Shared):
    answer = shared.complete(n=2, extra_body={"use_beam_search": True, "best_of": 4})
    texts = [choice.text for choice in answer.choices]
    assert len(set(texts)) == 2, texts


def ids_out_of_the_vocabulary_are_refused(shared: Shared):
    refused(BadRequestError, lambda: shared.complete(prompt=[1, 10**6]), "1000000")
    refused(BadRequestError, lambda: shared.complete(prompt=[]), "prompt")


CHECKS = [
    text_and_token_ids_are_the_same,
    stream_equals_whole_text,
    asynchronous_stream,
    max_tokens_defaults_to_16,
    batch_of_prompts,
    echo_with_logprobs,
    echo_without_answer_scores_the_prompt,
    every_token_has_its_logprob_at_the_end_of_a_turn,
    best_of_draws_and_chooses,
    stop_texts_and_penalties,
    beam_search,
    ids_out_of_the_vocabulary_are_refused,
]
