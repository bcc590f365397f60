"""What the checks of the `openai` package share."""

import time

import httpx2
from openai import AsyncOpenAI, OpenAI

KEY = "key-of-the-checks"
RIVERS = [{"role": "user", "content": "Name three rivers."}]


class Shared:
    """A server and clients of it."""

    def __init__(self, address: str, model: str) -> None:
        self.address = address
        self.model = model
        self.client = OpenAI(**self.options())

    def options(self) -> dict:
        """How a client is made that waits for a busy machine and never asks twice."""
        base_url = f"{self.address}/v1"
        return {"base_url": base_url, "api_key": KEY, "timeout": 300, "max_retries": 0}

    def asynchronous(self) -> AsyncOpenAI:
        """A client for one event loop."""
        return AsyncOpenAI(**self.options())

    def chat(self, **fields):
        """A short conversation without chance, unless the fields say otherwise."""
        defaults = {"messages": RIVERS, "max_completion_tokens": 24, "temperature": 0}
        return self.client.chat.completions.create(model=self.model, **{**defaults, **fields})

    def complete(self, **fields):
        """A text continued without chance, unless the fields say otherwise."""
        defaults = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        return self.client.completions.create(model=self.model, **{**defaults, **fields})

    def running(self) -> int:
        """Requests that the engine works on or that wait, by the server's metrics."""
        headers = {"Authorization": f"Bearer {KEY}"}
        text = httpx2.get(f"{self.address}/metrics", headers=headers, timeout=60).text
        names = ("bantam_requests_running{", "bantam_requests_waiting{")
        lines = [line for line in text.splitlines() if line.startswith(names)]
        assert len(lines) == 2, lines
        return sum(int(line.split()[-1]) for line in lines)

    def wait_until_idle(self, seconds: float = 20) -> None:
        """Fails if requests still run after this time."""
        end = time.monotonic() + seconds
        while (running := self.running()) > 0:
            assert time.monotonic() < end, f"{running} requests still run after {seconds} s"
            time.sleep(0.1)


def joined(chunks: list) -> str:
    """The text of a streamed answer."""
    deltas = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    return "".join(text for text in deltas if text)


def refused(error: type[Exception], ask, *parts: str):
    """Asks, and checks that the client raises this error with these parts in its message."""
    try:
        ask()
    except error as raised:
        missing = [part for part in parts if part not in str(raised)]
        assert not missing, f"{missing} is not in: {raised}"
        return raised
    raise AssertionError(f"no {error.__name__}")
