"""What transformers 4.57.6 makes of the files beside a tokenizer.

    python tools/golden/side_files.py

Writes `crates/text/tests/data/side_files.json`: a list of cases. Each is a folder, made of
`tokenizer.json` of `byte_level/` or `sentencepiece/` with `changes` to its keys, and of the `files`
given (`plain` is left out where it is `added`), and what `AutoTokenizer`, `AutoConfig` and `GenerationConfig` say of it: ids of BOS, EOS and
padding, the ids of texts with special tokens added (`added`) and without (`plain`), the ids left
out of decoded text (`specials`), the ids that end generation, and the chat template with and without tools. Folders that transformers refuses are left out.
"""

import itertools
import json
import logging
import tempfile
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

DATA = Path(__file__).resolve().parents[2] / "crates/text/tests/data"
TEXTS = ["Hello world", " a<|im_end|> b", "x <tool>y</tool> <new>z</s>"]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
ABSENT = "(absent)"


def template(before: list, after: list) -> dict:
    special = {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in before + after}
    single = [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in before]
    single.append({"Sequence": {"id": "A", "type_id": 0}})
    single += [{"SpecialToken": {"id": t, "type_id": 0}} for t, _ in after]
    return {"type": "TemplateProcessing", "single": single,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}


def without_absent(entries: dict) -> dict:
    return {key: value for key, value in entries.items() if value != ABSENT}


SPECIALS = {"byte_level": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            "sentencepiece": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}}


def cases():
    """Name, base, changes of tokenizer.json, and the other files."""
    classes = [ABSENT, "PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast",
               "GPT2Tokenizer", "Qwen2TokenizerFast", "GPTNeoXTokenizerFast", "GemmaTokenizer"]
    flags = [ABSENT, True, False]
    stored = {"none": None, "bos": template([("<|im_start|>", 1)], [])}
    for name, bos, eos, post in itertools.product(classes, flags, flags, stored):
        settings = {"tokenizer_class": name, "add_bos_token": bos, "add_eos_token": eos,
                    **SPECIALS["byte_level"]}
        yield (f"{name} add_bos {bos} add_eos {eos} stored {post}", "byte_level",
               {"post_processor": stored[post]},
               {"tokenizer_config.json": without_absent(settings)})
    for model_type, bos in itertools.product(["llama", "mistral", "qwen2", "qwen3"], flags):
        settings = without_absent({"add_bos_token": bos, **SPECIALS["sentencepiece"]})
        yield (f"{model_type} add_bos {bos}", "sentencepiece", {},
               {"tokenizer_config.json": settings, "config.json": {"model_type": model_type}})
    for name, asked, has in itertools.product(classes, [ABSENT, None, True, False], [True, False]):
        settings = {"tokenizer_class": name, "add_prefix_space": asked, **SPECIALS["byte_level"]}
        byte_level = {"type": "ByteLevel", "add_prefix_space": has, "trim_offsets": True,
                      "use_regex": True}
        yield (f"{name} add_prefix_space {asked} stored {has}", "byte_level",
               {"pre_tokenizer": byte_level}, {"tokenizer_config.json": without_absent(settings)})
    base = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIALS["byte_level"]}
    new = {"content": "<new>", "special": True, "lstrip": False, "rstrip": False,
           "normalized": False, "single_word": False}
    named = {
        "eos only in added_tokens_decoder": {
            "tokenizer_config.json": {**base, "eos_token": "<new>",
                                      "added_tokens_decoder": {"900": new}}},
        "eos nowhere else": {"tokenizer_config.json": {**base, "eos_token": "<new>"}},
        "eos as an object": {"tokenizer_config.json": {
            **base, "eos_token": {"__type": "AddedToken", **new, "lstrip": True}}},
        "eos in the map only": {
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
            "special_tokens_map.json": {"eos_token": "<|im_end|>", "pad_token": new}},
        "the map overrides": {"tokenizer_config.json": base,
                              "special_tokens_map.json": {"eos_token": "<|endoftext|>"}},
        "the map is not read": {
            "tokenizer_config.json": {**base, "added_tokens_decoder": {"900": new}},
            "special_tokens_map.json": {"eos_token": "<|endoftext|>"}},
        "added_tokens.json": {"tokenizer_config.json": base,
                              "added_tokens.json": {"<new>": 900, "<tool>": 901}},
        "added_tokens.json, numbers out of order": {
            "tokenizer_config.json": base, "added_tokens.json": {"z</s>": 950, "<new>": 910}},
        "added_tokens.json, a number that is taken": {
            "tokenizer_config.json": base, "added_tokens.json": {"<new>": 1}},
        "added_tokens.json beside added_tokens_decoder": {
            "tokenizer_config.json": {**base, "added_tokens_decoder": {"900": new}},
            "added_tokens.json": {"x ": 901}},
        "a special token in added_tokens.json": {
            "tokenizer_config.json": {**base, "pad_token": "<new>"},
            "added_tokens.json": {"<new>": 900}},
        "additional_special_tokens": {"tokenizer_config.json": {
            **base, "additional_special_tokens": ["<new>", "<tool>"]}},
        "additional_special_tokens in both": {
            "tokenizer_config.json": {**base, "additional_special_tokens": ["<new>"]},
            "special_tokens_map.json": {"additional_special_tokens": ["</s>", new]}},
        "additional_special_tokens as objects": {"tokenizer_config.json": {
            **base, "additional_special_tokens": [{"__type": "AddedToken", **new}]}},
        "extra_special_tokens": {"tokenizer_config.json": {
            **base, "extra_special_tokens": {"image_token": "<new>"}}},
        "a stored token becomes special": {"tokenizer_config.json": {
            **base, "additional_special_tokens": ["<tool>"]}},
        "a word of the vocabulary becomes special": {"tokenizer_config.json": {
            **base, "additional_special_tokens": ["Hello", "a"]}},
        "flags of a stored token change": {"tokenizer_config.json": {
            **base, "added_tokens_decoder": {
                "2": {**new, "content": "<|im_end|>", "lstrip": True, "rstrip": True}}}},
        "no settings at all": {},
        "padding": {"tokenizer_config.json": {**base, "pad_token": "<|endoftext|>"}},
        "no bos": {"tokenizer_config.json": {**base, "bos_token": None}},
        "NaN in the settings": {"tokenizer_config.json": {**base, "model_max_length": float("inf")}},
    }
    for name, files in named.items():
        yield name, "byte_level", {}, files
    ends = [ABSENT, None, 0, [0, 2], 2]
    for config, generation in itertools.product(ends, ends + ["(no file)"]):
        files = {"tokenizer_config.json": base,
                 "config.json": without_absent({"model_type": "llama", "eos_token_id": config})}
        if generation != "(no file)":
            files["generation_config.json"] = without_absent({"eos_token_id": generation})
        yield f"config ends {config}, generation {generation}", "byte_level", {}, files
    listed = [{"name": "tool_use", "template": "T{{ tools | length }}"},
              {"name": "default", "template": "D{{ bos_token }}{{ eos_token }}"}]
    jinja = {"chat_template.jinja": "J{{ messages | length }}"}
    rest = {"additional_chat_templates/tool_use.jinja": "A{{ tools | length }}",
            "additional_chat_templates/rag.jinja": "R"}
    for name, chat, files in [
        ("text", "S", {}), ("list", listed, {}), ("list with rag", [*listed, {
            "name": "rag", "template": "R"}], {}), ("list without tool_use", listed[1:], {}),
        ("file", "S", jinja), ("file before list", listed, jinja),
        ("file and folder", "S", {**jinja, **rest}), ("none", ABSENT, {}),
    ]:
        settings = without_absent({**base, "chat_template": chat})
        yield f"chat template: {name}", "byte_level", {}, {"tokenizer_config.json": settings, **files}


def as_list(value) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def ends_of(folder: Path) -> list:
    generation = None
    if (folder / "generation_config.json").exists():
        generation = GenerationConfig.from_pretrained(folder).eos_token_id
    # A file that leaves it out leaves it to the configuration.
    stated = as_list(generation)
    given = json.loads((folder / "config.json").read_text())
    if stated or "eos_token_id" not in given:
        return stated  # LlamaConfig() has an end of its own, which no file states
    config = AutoConfig.from_pretrained(folder)
    return as_list(GenerationConfig.from_model_config(config).eos_token_id)


def rendered(tokenizer, tools) -> str | None:
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": "Hi"}]
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)


def main() -> None:
    logging.disable(logging.CRITICAL)
    transformers_logging.set_verbosity_error()
    results, changed, refused = [], [], []
    for name, base, changes, files in cases():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            tokenizer_json = json.loads((DATA / base / "tokenizer.json").read_text("utf-8"))
            (folder / "tokenizer.json").write_text(json.dumps({**tokenizer_json, **changes}))
            for file, content in {"config.json": {"model_type": "llama"}, **files}.items():
                (folder / file).parent.mkdir(exist_ok=True)
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / file).write_text(text)
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
            except Exception as error:  # noqa: BLE001
                refused.append(f"{name}: {type(error).__name__} {str(error)[:70]}")
                continue
            if changes not in changed:
                changed.append(changes)
            plain = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
            result = {
                "name": name, "base": base, "changes": changed.index(changes),
                "files": {file: content if isinstance(content, str) else json.dumps(content)
                          for file, content in files.items()},
                "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id,
                "added": [tokenizer.encode(text) for text in TEXTS],
                "plain": plain,
                "specials": sorted(i for i, t in tokenizer.added_tokens_decoder.items() if t.special),
                "ends": ends_of(folder),
                "chat": rendered(tokenizer, None), "chat_with_tools": rendered(tokenizer, TOOLS),
            }
            if result["added"] == plain:
                del result["plain"]
            results.append({key: value for key, value in result.items() if value is not None})
    def compact(value) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    lines = ",\n".join(map(compact, results))
    head = f'{{"texts":{compact(TEXTS)},\n"changes":{compact(changed)}'
    text = f'{head},\n"cases":[\n{lines}\n]}}\n'
    (DATA / "side_files.json").write_text(text, encoding="utf-8")
    print(f"{len(results)} cases; transformers refuses:", *refused, sep="\n  ")


if __name__ == "__main__":
    main()
