"""What every suite of a client shares: a running server, and one form of results.

A suite is a script that declares its checks by feature and ends with `suite.main()`:

    python suite_x.py http://127.0.0.1:8000 smollm2 KEY      # prints JSON
"""

import sys
import time
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version

from checks import Checks, report

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}
QUESTION = "How is the weather in Paris?"
RIVERS = "Name three rivers."


@dataclass(frozen=True)
class Server:
    """Where the server is and how it is asked."""

    address: str
    model: str
    key: str

    @property
    def openai(self) -> str:
        """The base address of OpenAI clients."""
        return f"{self.address}/v1"

    def running(self) -> int:
        """Requests that the engine works on or that wait, by the server's metrics."""
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"{self.address}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
        names = ("bantam_requests_running{", "bantam_requests_waiting{")
        return sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith(names))

    def wait_until_idle(self, seconds: float = 20) -> None:
        """Fails if requests still run after this time."""
        end = time.monotonic() + seconds
        while (running := self.running()) > 0:
            assert time.monotonic() < end, f"{running} requests still run after {seconds} s"
            time.sleep(0.1)


class Suite(Checks):
    """Checks of one client."""

    def __init__(self, *packages: str) -> None:
        super().__init__()
        self.packages = packages

    def check(self, feature: str):
        """Decorates a check of a feature: `text`, `stream`, `tools`, `structured`, `usage`,
        `errors` or `cancel`."""
        return self.group(feature)

    def main(self) -> None:
        """Runs all checks against the server that the command line names."""
        server = Server(*sys.argv[1:4])
        results = self.run(server, quiet=True)
        sys.exit(report(results, {name: version(name) for name in self.packages}, as_json=True))


def raised(kinds, ask, *parts: str) -> Exception:
    """Asks, and checks that an error of these kinds is raised with these parts in its message."""
    try:
        ask()
    except kinds as error:
        missing = [part for part in parts if part not in str(error)]
        assert not missing, f"{missing} is not in: {error}"
        return error
    raise AssertionError("nothing was raised")
