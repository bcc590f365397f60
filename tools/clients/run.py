#!/usr/bin/env python3
"""Runs every client against one server, and writes the table of what works.

    python tools/clients/run.py                      # all clients; table on standard output
    python tools/clients/run.py --only anthropic     # those with this word in their name
    python tools/clients/run.py --write              # docs/reference/clients.md anew

Needs Python 3.10 or later, Node.js 20 or later with npm, and a built `bantam`. Packages are those of
requirements*.txt and js/package-lock.json; they are installed under target/clients.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from server import running_server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "clients"
PAGE = ROOT / "docs" / "reference" / "clients.md"
KEY = "key-of-the-checks"
SERVER = ["--api-key", KEY, "--memory", "2GiB"]

FEATURES = ("text", "stream", "tools", "structured", "usage", "errors", "cancel")

# The checks of openai_check.py have groups of their own; their names say what they are about.
WORDS = [
    ("ends the work", "cancel"),
    ("stream", "stream"),
    ("usage", "usage"),
]
GROUPS = {"failures": "errors", "structured": "structured", "tools": "tools"}


@dataclass(frozen=True)
class Client:
    """A client: where it is installed, what runs its checks, and what it asks."""

    name: str
    apis: str
    home: str
    script: str
    arguments: tuple[str, ...] = ()
    # Checks that start a server of their own are told the program, others the address.
    own_server: bool = False
    minutes: float = 5


CLIENTS = [
    Client("openai", "chat, completions", "official", "openai_check.py", ("--json",), True, 15),
    Client("openai", "responses", "official", "suite_openai_responses.py"),
    Client("openai-agents", "responses, chat", "frameworks", "suite_openai_agents.py"),
    Client("anthropic", "messages", "official", "suite_anthropic.py"),
    Client("litellm", "chat, responses, messages", "frameworks", "suite_litellm.py"),
    Client("langchain", "chat, responses, messages", "frameworks", "suite_langchain.py"),
    Client("instructor", "chat, messages", "instructor", "suite_instructor.py"),
    Client("pydantic-ai", "chat, responses, messages", "frameworks", "suite_pydantic_ai.py"),
    Client("llama-index", "chat", "llama-index", "suite_llama_index.py"),
    Client("autogen", "chat", "microsoft", "suite_autogen.py"),
    Client("semantic-kernel", "chat", "microsoft", "suite_semantic_kernel.py"),
    Client("openai (Node.js)", "responses, chat", "node", "openai.mjs"),
    Client("@anthropic-ai/sdk", "messages", "node", "anthropic.mjs"),
    Client("@ai-sdk/openai", "responses", "node", "ai_sdk.mjs", ("openai-responses",)),
    Client("@ai-sdk/openai", "chat", "node", "ai_sdk.mjs", ("openai-chat",)),
    Client("@ai-sdk/openai-compatible", "chat", "node", "ai_sdk.mjs", ("openai-compatible",)),
    Client("@ai-sdk/anthropic", "messages", "node", "ai_sdk.mjs", ("anthropic",)),
]


@dataclass
class Outcome:
    """What became of a client's checks."""

    client: Client
    versions: dict[str, str] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0

    def add(self, check: dict) -> None:
        """Counts a check."""
        feature = feature_of(check)
        if check["problem"]:
            self.failed.setdefault(feature, []).append(f"{check['name']}: {check['problem']}")
        else:
            self.passed[feature] = self.passed.get(feature, 0) + 1

    def cell(self, feature: str) -> str:
        """What the table says."""
        failed, passed = len(self.failed.get(feature, [])), self.passed.get(feature, 0)
        if failed:
            return f"**{passed} of {passed + failed}**"
        return "yes" if passed else "–"


def feature_of(check: dict) -> str:
    """The column of a check."""
    if check["group"] in FEATURES:
        return check["group"]
    by_name = (feature for word, feature in WORDS if word in check["name"])
    return next(by_name, GROUPS.get(check["group"], "text"))


def python_home(name: str, requirements: Path) -> Path:
    """A virtual environment with these packages; its Python."""
    home = WORK / name
    python = home / "bin" / "python"
    if stale(home, requirements):
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--requirement", requirements]
        subprocess.run(install, check=True)
        settle(home, requirements)
    return python


def node_home() -> Path:
    """A folder with the scripts and their packages."""
    home, lock = WORK / "node", HERE / "js" / "package-lock.json"
    if stale(home, lock):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(HERE / "js", home)
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=home, check=True)
        settle(home, lock)
    for script in (HERE / "js").glob("*.mjs"):
        shutil.copy(script, home)
    return home


def stale(home: Path, source: Path) -> bool:
    """Whether a home was not made from this list of packages."""
    stamp = home / "made-from"
    return not stamp.exists() or stamp.read_text() != digest(source)


def settle(home: Path, source: Path) -> None:
    """Notes from which list of packages a home was made."""
    (home / "made-from").write_text(digest(source))


def digest(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()


def command(client: Client, address: str, arguments: argparse.Namespace) -> list[str]:
    """What runs a client's checks."""
    if client.own_server:
        asked = ["--bantam", arguments.bantam, "--model", arguments.model]
    else:
        asked = [address, arguments.model, KEY]
    if client.home == "node":
        return ["node", str(node_home() / client.script), *asked, *client.arguments]
    suffix = "" if client.home == "official" else f"-{client.home}"
    python = python_home(client.home, HERE / f"requirements{suffix}.txt")
    return [str(python), str(HERE / client.script), *asked, *client.arguments]


def run(client: Client, address: str, arguments: argparse.Namespace) -> Outcome:
    """Runs a client's checks."""
    outcome = Outcome(client)
    asked = command(client, address, arguments)
    begin = time.monotonic()
    # What clients tell their makers about their use is nobody's business here.
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1", "ANONYMIZED_TELEMETRY": "0"}
    try:
        done = subprocess.run(
            asked,
            capture_output=True,
            text=True,
            timeout=client.minutes * 60,
            env={**os.environ, **quiet},
        )
        output = done.stdout[done.stdout.index("{\n") :]
        report = json.loads(output)
        outcome.versions = report["versions"]
        for check in report["checks"]:
            outcome.add(check)
    except subprocess.TimeoutExpired:
        outcome.failed["text"] = [f"no end within {client.minutes} minutes"]
    except ValueError:
        outcome.failed["text"] = [f"no result: {done.stderr.strip()[-500:]}"]
    outcome.seconds = time.monotonic() - begin
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The table, and what failed."""
    lines = [
        f"| client | APIs | {' | '.join(FEATURES)} | checks |",
        "|---|---|" + "---|" * (len(FEATURES) + 1),
    ]
    for outcome in outcomes:
        cells = " | ".join(outcome.cell(feature) for feature in FEATURES)
        versions = ", ".join(
            f"{name} {version}"
            for name, version in outcome.versions.items()
            if name not in ("official", "pydantic")
        )
        checks = sum(outcome.passed.values()) + sum(map(len, outcome.failed.values()))
        name = versions or outcome.client.name
        lines.append(f"| {name} | {outcome.client.apis} | {cells} | {checks} |")
    failures = [
        f"- {outcome.client.name} ({outcome.client.apis}): {problem}"
        for outcome in outcomes
        for problems in outcome.failed.values()
        for problem in problems
    ]
    if failures:
        lines += ["", "What failed:", "", *failures]
    return "\n".join(lines) + "\n"


HEAD = """\
# Clients that were tried

Made by `python tools/clients/run.py --write`, which runs the real packages against `bantam serve
{model}`. A cell says `yes` if every check of that feature passed, how many did if not, and `–` if the
package has no such thing or it is not tried. What the checks are is in `tools/clients`.

| column | what is tried |
|---|---|
| text | an answer, the same as by another API where there is one; conversations go on |
| stream | the pieces of a streamed answer are those of the whole one |
| tools | a required call follows its schema; its result goes back and is answered |
| structured | an answer that must satisfy a schema is an object of the client's own type |
| usage | tokens of prompt and answer, in streams too |
| errors | an unknown model, bad values and the like raise the client's own exceptions |
| cancel | leaving a stream ends the work on the server |

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bantam", default=str(ROOT / "target" / "release" / "bantam"))
    parser.add_argument("--model", default="smollm2", help="the model to serve")
    parser.add_argument("--only", default="", help="clients with this word in name or APIs")
    parser.add_argument("--port", default="0", help="port of the server")
    parser.add_argument("--write", action="store_true", help="writes docs/reference/clients.md")
    arguments = parser.parse_args()
    chosen = [c for c in CLIENTS if arguments.only in f"{c.name} {c.apis} {c.script}"]
    outcomes = []
    with running_server(arguments.bantam, arguments.model, *SERVER, port=arguments.port) as address:
        for client in chosen:
            outcome = run(client, address, arguments)
            outcomes.append(outcome)
            verdict = "ok" if not outcome.failed else "FAILED"
            print(
                f"{client.name:<26} {client.apis:<28} {verdict:<7} {outcome.seconds:6.1f} s",
                file=sys.stderr,
                flush=True,
            )
    made = table(outcomes)
    print(made)
    if arguments.write:
        PAGE.write_text(HEAD.format(model=arguments.model) + made)
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
