"""Holds `bantam serve` against the real `openai` package: what its users do, and what they get.

    python tools/clients/openai_check.py --bantam target/release/bantam [--only GROUP] [--json]

Starts a server of its own, with an API key and a short queue so that refusals can be provoked.
"""

import argparse
import platform
import sys
from importlib.metadata import version

import openai_chat
import openai_completions
import openai_failures
import openai_tools
from checks import Checks, report
from openai_shared import KEY, Shared
from server import running_server

# Few sequences and a short queue: 30 requests at once are too many, and the other checks fit.
LIMITS = ["--api-key", KEY, "--max-num-seqs", "4", "--max-waiting", "8", "--memory", "2GiB"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bantam", default="target/release/bantam", help="the program to test")
    parser.add_argument("--model", default="smollm2", help="the model to serve")
    parser.add_argument("--only", default="", help="only checks whose group or name contains this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()

    checks = Checks()
    for module in (openai_chat, openai_tools, openai_completions, openai_failures):
        module.register(checks)
    with running_server(arguments.bantam, arguments.model, *LIMITS) as address:
        results = checks.run(
            Shared(address, arguments.model), only=arguments.only, quiet=arguments.json
        )
    packages = {name: version(name) for name in ("openai", "pydantic")}
    return report(results, {"python": platform.python_version(), **packages}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
