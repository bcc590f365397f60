"""A server for the time of a check."""

import contextlib
import re
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def running_server(bantam: str, model: str, *options: str, port: str = "0") -> Iterator[str]:
    """Runs `bantam serve MODEL`, at a free port if none is given, and yields its address; ends it
    afterwards."""
    command = [bantam, "serve", model, "--port", port, "--log", "off", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"listening at (http://\S+)", line):
                yield found.group(1)
                return
        raise RuntimeError(f"{' '.join(command)} ended:\n{''.join(said)}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
