"""Golden renderings of Jinja, as the chat templates of transformers 4.57.6 (jinja2 3.1.6) are rendered.

    python tools/golden/jinja.py

`crates/text/tests/data/jinja.json`:

    context     the variables that every source below sees
    cases       one `source` each, with the `text` it renders to, or the `error` it ends in
    strftime    for each form of `strftime_now`, what it makes of the moment `strftime_at`

Every filter, test, global and tag of jinja2 is in the list (`every_name_is_tried` checks it), and every
method of Python's str, list, tuple and dict that changes nothing.
"""

import datetime
import json
import re
import warnings
from pathlib import Path

import transformers.utils.chat_template_utils as chat_templates
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import FILTERS
from jinja2.tests import TESTS

from jinja_sources import CONTEXT, EXPRESSIONS, STRFTIME, TEMPLATES

OUTPUT = Path(__file__).resolve().parents[2] / "crates/text/tests/data/jinja.json"
STRFTIME_AT = datetime.datetime(2025, 3, 7, 9, 5, 3, 42)

# What depends on chance, and what only documents ask for; both are refused when a template is loaded.
NOT_TRIED = {"random", "lipsum"}


def every_name_is_tried(sources: list[str]) -> None:
    text = "\n".join(sources)
    for filter_name in set(FILTERS) - NOT_TRIED:
        assert re.search(rf"\|\s*{filter_name}\b|filter {filter_name}\b|'{filter_name}'", text), filter_name
    for test in TESTS:
        word = re.escape(test)
        assert re.search(rf"is (not )?{word}(\W|$)|select\w*\([^)]*'{word}'", text), test
    for name in set(DEFAULT_NAMESPACE) - NOT_TRIED:
        assert f"{name}(" in text, name
    changing = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", "popitem",
                "setdefault", "update", "encode", "fromkeys", "format_map"}
    for kind in (str, list, tuple, dict):
        for method in dir(kind):
            if not method.startswith("_") and method not in changing:
                assert f".{method}(" in text, f"{kind.__name__}.{method}"


def rendered(source: str) -> dict:
    try:
        template = chat_templates._compile_jinja_template(source)
        text = template.render(**CONTEXT)
        # The address of an object is no text to be equal to.
        return {"source": source} if " at 0x" in text else {"source": source, "text": text}
    except Exception as error:  # every kind of error counts
        return {"source": source, "error": f"{type(error).__name__}: {error}".splitlines()[0][:160]}


def main() -> None:
    warnings.simplefilter("ignore")
    sources = [f"{{{{ {expression} }}}}" for expression in EXPRESSIONS] + TEMPLATES
    assert len(set(sources)) == len(sources), [s for s in sources if sources.count(s) > 1]
    every_name_is_tried(sources)
    golden = {
        "context": CONTEXT,
        "cases": [case for case in map(rendered, sources) if len(case) > 1],
        "strftime_at": int(STRFTIME_AT.replace(tzinfo=datetime.timezone.utc).timestamp()),
        "strftime": {form: STRFTIME_AT.strftime(form) for form in STRFTIME},
    }
    OUTPUT.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")
    print(f"{len(golden['cases'])} sources, {sum('error' in case for case in golden['cases'])} of them end in an error")


if __name__ == "__main__":
    main()
