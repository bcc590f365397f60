"""Golden token ids and chat prompts, made with tokenizers 0.22.2 and transformers 4.57.6.

    python tools/golden/tokenizer.py [SMOLLM2_GGUF]

`crates/text/tests/data/`:

    byte_level/            a tiny byte-level BPE trained here, as a Hugging Face folder
    byte_level.json        the same vocabulary as a GGUF file states it
    sentencepiece/         a tiny SentencePiece-like BPE with byte fallback, as a folder
    sentencepiece.json     the same as a GGUF file states it: scores instead of merges
    golden.json            `byte_level` and `sentencepiece`, for each text of the corpus: `ids` with
                           special tokens parsed, `plain_ids` with them taken as text, and `text`
                           decoded without special tokens; `pre_tokenizers`: the ids of the corpus
                           under the rule of each `tokenizer.ggml.pre`
    chat_templates.json    what transformers renders from `templates/*.jinja`

`crates/checkpoint/tests/data/smollm2_tokens.json`, given the GGUF file: the corpus under the tokenizer
built from it by the documented rule (single digits, then GPT-2's pattern). The converter of
transformers is not used for it: it takes the GPT-2 rule for every file and keeps numbers whole.
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import generate_merges
from transformers.utils.chat_template_utils import render_jinja_template

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "crates/text/tests/data"
SMOLLM2_TOKENS = REPOSITORY / "crates/checkpoint/tests/data/smollm2_tokens.json"

VOCABULARY_SIZE = 900
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

CORPUS = [
    "",
    " ",
    "The capital of France is",
    " leading and trailing ",
    "It's what they'll say, isn't it? WE'RE sure: I'VE seen HelloWorld.",
    "def add(a: int, b: int = 10) -> int:\n    return a + b  # sum\n",
    "fn main() {\r\n\tprintln!(\"{:>8.3}\", 3.14159e-10);\r\n}\r\n",
    "{\"key\": [1, 22, 333, 4444, 55555], \"x\": null}",
    "0 12 123 1234 12345678901234567890 1,000,000.50 \u00bd \u00b2 \u2167",
    "中文分词测试，没有空格。日本語のテスト、カタカナ。한국어 시험",
    "Grüße aus Köln, ça va? Ελληνικά, русский, العربية, עברית, हिन्दी, ไทย",
    "cafe\u0301 and caf\u00e9, A\u030angstro\u0308m, \ufb01ne",
    "🦀🎉👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷",
    "zero\u200bwidth \u200djoiner\ufeffbom \u00a0nbsp\u3000wide\u2028line",
    "tab\tbell\u0007 null\u0000 escape\u001b[31m delete\u007f next\u0085line",
    "a" + " " * 40 + "b" + "\n" * 12 + "c" + " \n \t\r\n  \n",
    "...!!!???---===+++***///\\\\\\ $100 <b>&amp;</b> @user #tag 50% ^~`|",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "<s>[INST] Hi [/INST] Hello </s><s> <unk>",
    "<0x41><0x0A> ▁ Ġ Ċ <tool>x</tool> <tool >",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010fffd \ue000 \U0001f9ff",
]

TRAINING_TEXT = """\
The house on the hill was built in 1902, and nobody has lived in it since the winter of 1987.
A model reads tokens, not letters; a token is a word, a part of a word, or a single byte.
When the quick engine starts, the weights are read from the file and written to the memory.
It's not that they didn't know; they'll say that we're late and that I've seen it all before.
for (int i = 0; i < 100; i++) { total += values[i] * weights[i]; }  // the sum of the products
def forward(self, hidden_states):\n    return self.down(self.act(self.gate(hidden_states)))
let mut tokenizer = Tokenizer::load(&source)?; println!("{}", tokenizer.decode(&ids, true));
Über den Wolken muss die Freiheit wohl grenzenlos sein. Die Straße führt nach Köln.
Le modèle répond toujours à la question posée, même si la réponse n'est pas évidente.
今天天气很好，我们去公园散步。模型把文字变成数字，再把数字变成文字。
東京は日本の首都です。これは小さなテストです。
Это простой пример текста, на котором учится маленький словарь.
{"name": "bantam", "size": 135, "layers": 30, "heads": [9, 3], "tied": true, "theta": 1e5}
    indented lines\n        keep their spaces\n\tand their tabs, and so on and so forth.
The answer is that the other one is there, then, and these are the things that were said there.
"""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern: str):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


# For each `tokenizer.ggml.pre`: pre-tokenizer, normal form C first, whole words taken unmerged.
PRE_TOKENIZERS = {
    "smollm": ([pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False)], False, False),
    "gpt-2": ([pre_tokenizers.ByteLevel(add_prefix_space=False)], False, False),
    "llama-bpe": ([split(CL100K % "{1,3}"), BYTES], False, True),
    "qwen2": ([split(CL100K % ""), BYTES], True, False),
    "tekken": ([split(TEKKEN), BYTES], False, True),
    "falcon": ([split(r"[\p{P}\$\+<=>\^~\|`]+"), split(GPT2), split("[0-9][0-9][0-9]"), BYTES],
               False, False),
    "default": ([split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT2), split(r"\p{N}+"),
                 split("[0-9][0-9][0-9]"), BYTES], False, False),
}

CHATML = (DATA / "templates/chatml.jinja").read_text(encoding="utf-8")


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def ids_of(tokenizer: Tokenizer, special: bool) -> list[list[int]]:
    """The ids of the corpus, special tokens parsed or taken as text; nothing added around."""
    tokenizer.encode_special_tokens = not special
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in CORPUS]


def golden(tokenizer: Tokenizer) -> list[dict]:
    rows = zip(CORPUS, ids_of(tokenizer, True), ids_of(tokenizer, False))
    return [
        {"input": text, "ids": ids, "plain_ids": plain_ids, "text": tokenizer.decode(ids)}
        for text, ids, plain_ids in rows
    ]


def use_pre_tokenizer(tokenizer: Tokenizer, name: str) -> None:
    steps, compose, whole_words = PRE_TOKENIZERS[name]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.normalizer = normalizers.NFC() if compose else normalizers.Sequence([])
    tokenizer.model.ignore_merges = whole_words


def byte_level() -> Tokenizer:
    """A byte-level BPE with SmolLM2's rule, three control tokens and one user-defined token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(PRE_TOKENIZERS["smollm"][0])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return tokenizer


def vocabulary(tokenizer: Tokenizer, types: dict[str, int], **fields) -> dict:
    """The vocabulary in the terms of a GGUF file."""
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.get)
    assert [ids[token] for token in tokens] == list(range(len(tokens)))
    return {"tokens": tokens, "token_types": [types.get(t, NORMAL) for t in tokens], **fields}


def merges_of(tokenizer: Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]


def write_byte_level() -> dict:
    tokenizer = byte_level()
    folder = DATA / "byte_level"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {
        "bos_token": "<|im_start|>",
        "eos_token": {"__type": "AddedToken", "content": "<|endoftext|>"},
        "chat_template": [{"name": "other", "template": "x"},
                          {"name": "default", "template": CHATML}],
    })
    types = {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL,
             "<tool>": USER_DEFINED}
    write(DATA / "byte_level.json", vocabulary(
        tokenizer, types, merges=[" ".join(pair) for pair in merges_of(tokenizer)], scores=[]))
    rows = golden(tokenizer)
    rules = {}
    for name in PRE_TOKENIZERS:
        use_pre_tokenizer(tokenizer, name)
        rules[name] = ids_of(tokenizer, True)
    return {"byte_level": rows, "pre_tokenizers": rules}


def write_sentencepiece() -> dict:
    """Pieces are trained here; the merges then come from the scores, as transformers does it."""
    control = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL}
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE - 259, show_progress=False)
    # Chinese and Japanese are left to the byte tokens.
    lines = [line for line in TRAINING_TEXT.splitlines(keepends=True) if max(line) < "\u3000"]
    trained.train_from_iterator(["".join(lines)], trainer)
    pieces = ["".join(pair) for pair in merges_of(trained)]
    pieces = list(dict.fromkeys(pieces))
    letters = [token for token in trained.get_vocab() if len(token) == 1 and token not in "\n\t"]
    tokens = [*control, *byte_tokens, *pieces, *sorted(letters)]
    first = len(control) + len(byte_tokens)
    scores = [0.0] * first + [float(-i) for i in range(len(tokens) - first)]
    ids = {token: i for i, token in enumerate(tokens)}
    assert len(ids) == len(tokens)
    ordinary = {token: scores[i] for token, i in ids.items() if i >= first}
    merges = generate_merges(ids, ordinary)

    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", ids["<s>"])])
    folder = DATA / "sentencepiece"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "</s>"})
    write(folder / "generation_config.json", {"eos_token_id": [2, 0]})
    (folder / "chat_template.jinja").write_text(
        (DATA / "templates/llama2.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    types = control | dict.fromkeys(byte_tokens, BYTE)
    write(DATA / "sentencepiece.json",
          vocabulary(tokenizer, types, merges=[], scores=scores))
    return {"sentencepiece": golden(tokenizer)}


def message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


CONVERSATIONS = [
    [message("user", "Hello")],
    [message("system", " Be brief. "), message("user", "Hi  "), message("assistant", " Yes? "),
     message("user", "What is 2 < 3 & 'x'?\n")],
    [message("user", "a"), message("assistant", "<think>\nhm\n</think>\n\nb"),
     message("user", "c"), message("assistant", "<think>\nlast\n</think>\n\nd")],
    [message("user", "one"), message("user", "two")],
    [message("user", "q"), message("tool", "{\"t\": \"ü<\"}")],
    [message("assistant", "first")],
]


def write_chat_templates() -> None:
    """Each template on each conversation; a refusal is stored as its reason."""
    rows = []
    for path in sorted((DATA / "templates").glob("*.jinja")):
        for conversation in CONVERSATIONS:
            for prompt in (False, True):
                row = {"template": path.stem, "messages": conversation, "prompt": prompt}
                try:
                    (text,), _ = render_jinja_template(
                        [conversation], chat_template=path.read_text(encoding="utf-8"),
                        add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                    row["text"] = text
                except Exception as error:  # The sandbox wraps what `raise_exception` raises.
                    row["refusal"] = str(error)
                rows.append(row)
    write(DATA / "chat_templates.json", rows)


def tool_call(name: str, arguments: dict) -> dict:
    return {"id": "call_" + name, "type": "function",
            "function": {"name": name, "arguments": arguments}}


TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "The weather of a city, in °C & <words>",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "The time"}},
]

QUESTION = [message("system", "Be brief."), message("user", "Weather in Köln?")]
CALLED = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": [
    tool_call("weather", {"city": "Köln", "days": 2, "more": [1.5, None, {"a": "<"}]})]}]
ANSWERED = [*CALLED, {"role": "tool", "content": "{\"t\": 21}", "tool_call_id": "call_weather",
                      "name": "weather"}]
TOOL_CASES = [
    (QUESTION, TOOLS, {}),
    (QUESTION[1:], TOOLS, {"enable_thinking": False}),
    (QUESTION, None, {}),
    (CALLED, TOOLS, {}),
    (ANSWERED, TOOLS, {}),
    ([*ANSWERED, ANSWERED[-1], message("assistant", " 21 °C "), message("user", "Ok")], TOOLS, {}),
    ([QUESTION[1], {"role": "assistant", "content": "Both:", "tool_calls": [
        tool_call("now", {}), tool_call("weather", {"city": "Rome"})]}], None, {}),
]


def write_tool_templates() -> None:
    """Templates that know tools; a refusal is stored as its reason."""
    rows = []
    for path in sorted((DATA / "templates/tools").glob("*.jinja")):
        for conversation, tools, extra in TOOL_CASES:
            row = {"template": f"tools/{path.stem}", "messages": conversation,
                   "tools": tools or [], "extra": extra}
            try:
                (text,), _ = render_jinja_template(
                    [conversation], tools=tools, chat_template=path.read_text(encoding="utf-8"),
                    add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **extra)
                row["text"] = text
            except Exception as error:  # The sandbox wraps what `raise_exception` raises.
                row["refusal"] = str(error)
            rows.append(row)
    write(DATA / "tool_templates.json", rows)


def write_smollm2(path: Path) -> None:
    from smollm2 import tokenizer_from_gguf

    tokenizer = tokenizer_from_gguf(path)
    rows = [{"text": text, "ids": ids} for text, ids in zip(CORPUS, ids_of(tokenizer, True))]
    assert {"text": "The capital of France is", "ids": [504, 3575, 282, 4649, 314]} in rows
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    SMOLLM2_TOKENS.parent.mkdir(parents=True, exist_ok=True)
    SMOLLM2_TOKENS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main() -> None:
    values = write_byte_level() | write_sentencepiece()
    lines = ",\n".join(
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items())
    (DATA / "golden.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    write_chat_templates()
    write_tool_templates()
    if len(sys.argv) > 1:
        write_smollm2(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
