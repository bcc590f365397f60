"""Checks: named functions that fail by an exception, run in a row, told as a table or as JSON."""

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Result:
    """What became of a check."""

    group: str
    name: str
    seconds: float
    problem: str | None


class Checks:
    """Checks in the order in which they are written."""

    def __init__(self) -> None:
        self._checks: list[tuple[str, Callable]] = []

    def group(self, group: str) -> Callable:
        """Decorates a check; its name is its function's, its argument what all checks share."""

        def add(check: Callable) -> Callable:
            self._checks.append((group, check))
            return check

        return add

    def run(self, shared: object, only: str = "", quiet: bool = False) -> list[Result]:
        """Runs those whose group or name contains `only`, and prints each as it ends."""
        results = []
        for group, check in self._checks:
            name = check.__name__.replace("_", " ")
            if only not in group and only not in name:
                continue
            result = _run(group, name, check, shared)
            results.append(result)
            if not quiet:
                print(_line(result), flush=True)
        return results


def _run(group: str, name: str, check: Callable, shared: object) -> Result:
    begin = time.monotonic()
    problem = None
    try:
        done = check(shared)
        if inspect.iscoroutine(done):
            asyncio.run(done)
    except Exception as error:  # a check may fail in any way; the others still run
        place = traceback.extract_tb(error.__traceback__)
        here = [frame for frame in place if frame.name == check.__name__] or place
        problem = f"line {here[-1].lineno}: {type(error).__name__}: {error or here[-1].line}"
    return Result(group, name, time.monotonic() - begin, problem)


def _line(result: Result) -> str:
    verdict = "FAILED" if result.problem else "ok"
    line = f"{result.group:<12} {result.name:<62} {verdict:<6} {result.seconds:7.2f} s"
    return line if result.problem is None else f"{line}\n    {result.problem}"


def report(results: list[Result], versions: dict[str, str], as_json: bool) -> int:
    """Prints the sum, or everything as JSON; the exit code of the process."""
    failed = [result for result in results if result.problem]
    if as_json:
        rows = [asdict(result) for result in results]
        print(json.dumps({"versions": versions, "failed": len(failed), "checks": rows}, indent=2))
    else:
        seconds = sum(result.seconds for result in results)
        with_versions = ", ".join(f"{name} {version}" for name, version in versions.items())
        print(f"\n{len(results) - len(failed)} of {len(results)} passed in {seconds:.1f} s")
        print(with_versions)
    return 1 if failed or not results else 0
