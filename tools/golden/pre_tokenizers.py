# /// script
# requires-python = ">=3.10"
# dependencies = ["regex==2026.11.19"]
# ///
"""Writes crates/text/tests/data/pre_tokenizers.json: where each pre-tokenizer of llama.cpp cuts texts.

A rule is a list of patterns. Each is applied to every piece that those before it left; a match is a
piece, and so is what lies between two. The file has, for each name and text, the ends of the pieces in
characters. The patterns are written here as llama.cpp has them (src/llama-vocab.cpp), not as the Rust
table has them, so that one is held against the other; letter classes that llama.cpp spells with
look-aheads are written as the tokenizer.json of the models has them.

Run from the repository root: python tools/golden/pre_tokenizers.py
"""

import json

import regex

OUTPUT = "crates/text/tests/data/pre_tokenizers.json"

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\r\n\r\n",
    " \n \n\n  x",
    "Hello world",
    "Hello  World's   END ",
    "I'M you'LL he's WE'VE they'd it'S 'quoted' ’s",
    "don't can't 'tis x'y'z",
    "1 12 123 1234 12345 123456 1234567 3.14 1,000,000",
    "a1b22c333d4444",
    "١٢٣٤ ٥ ½ Ⅻ ²³ 一二三",
    "CamelCaseHTMLParser getURLFromID aB Ab ABC abcDEF",
    "привет МИР ПриветМир ελληνικά ΑΒΓ αΒ ǅ ʰ",
    "中文字符 日本語テスト ひらがな カタカナ 한국어 ㄅㄆ ｱｲｳ",
    "中文English混合123字",
    "สวัสดี ລາວ ខ្មែរ မြန်မာ हिन्दी বাংলা தமிழ்",
    "e\u0301a\u0300 n\u0303o é ñ x\u0301\u0302y",
    "العربية ، نص۔ שלום",
    "hello,world;foo.bar!baz?(qux)[a]{b}",
    "a/b//c http://x.y/z?q=1&r=2#t",
    "+=<>^~|`$ ++ -- == <= => $5 £6 €7 ¥8",
    "#include <stdio.h>\nint main() {\n\treturn 0;\n}\n",
    "def f(x):\n    if x == 1:\n        return  2\n\n\n    # done\n",
    "tab\tand\t\ttabs \t mixed",
    "trailing spaces   \nnext    ",
    "line\r\nline\rline\n\n",
    "end...\n\n\n...start !!!\r\n/",
    "emoji 😀😃 👨‍👩‍👧 🇩🇪 ✊🏽",
    "\u00a0nbsp\u3000wide\u2009thin\u200bzero",
    "“curly” ‘quotes’ — dash … dots 、。，：；！（）",
    "<sentinel:12> IMGIMGABCZ <|im_start|>",
    "a b c d e f g",
    "ab cd ef　gh",
    "_snake_case __init__ x_1",
    "ﬁ ﬀ Ａｂｃ １２３ ＋",
    "𐐀𐐨 𝒳 𑢠",
    "Türkiye'de İstanbul'un",
    " leading",
    "  two leading",
    "x  ",
    "\t\n x",
    "a" * 20 + " " * 9 + "b" + " " * 33 + "c",
    "12345678901234567890",
]

CONTRACTED = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def cl100k(digits, letters=r"\p{L}+", others=r"[^\s\p{L}\p{N}]+", after=r"[\r\n]*", spaces=SPACES):
    word = CONTRACTED + r"|[^\r\n\p{L}\p{N}]?" + letters
    return f"{word}|{digits}| ?{others}{after}{spaces}"


def o200k(digits, contracted="", after="[\\r\\n/]*", upper=UPPER, lower=LOWER, first=""):
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{upper}*{lower}+{contracted}|{start}{upper}+{lower}*{contracted}"
    return rf"{first}{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{after}{SPACES}"


LLAMA3 = cl100k(r"\p{N}{1,3}")
QWEN2 = cl100k(r"\p{N}")
GPT4O = o200k(r"\p{N}{1,3}", CONTRACTED + "?")
WIDE = "[一-龥ࠀ-一가-퟿]+"
KANA = "[一-龥぀-ゟ゠-ヿ]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*" + SPACES
)
POWERS = "".join(rf"|\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1))
THREES = r"(?=(?:\d{3})+(?!\d))"
# Letters that have a case, as code points: some look like others.
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-"
    "\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15"
    "\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183"
    "\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
NOT_HAN_UPPER = r"[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]--\p{Han}]"
NOT_HAN_LOWER = r"[[\p{Ll}\p{Lm}\p{Lo}\p{M}]--\p{Han}]"

# Names of one rule, and its patterns.
RULES = [
    ("smollm starcoder refact codeshell exaone minerva-7b mellum2 command-r", [r"\p{N}", GPT2]),
    (
        "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe"
        " gigachat a.x-4.0 mellum modern-bert exaone4 jais trillion granite-docling mpt olmo",
        [GPT2],
    ),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", [LLAMA3]),
    ("dbrx smaug-bpe glm4 chatglm-bpe", [LLAMA3]),
    (
        "qwen2 stablelm2 hunyuan solar-open deepseek-r1-qwen kormo f2llmv2 megrez grok-2",
        [QWEN2],
    ),
    ("qwen35", [cl100k(r"\p{N}", r"[\p{L}\p{M}]+", r"[^\s\p{L}\p{M}\p{N}]+")]),
    ("tekken", [o200k(r"\p{N}")]),
    ("gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m", [GPT4O]),
    ("tiny_aya cohere2moe", [r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    (
        "youtu",
        [
            "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + KANA,
            o200k(r"\p{N}", CONTRACTED + "?"),
        ],
    ),
    (
        "kimi-k2",
        [
            o200k(
                r"\p{N}{1,3}",
                CONTRACTED + "?",
                r"[\r\n]*",
                NOT_HAN_UPPER,
                NOT_HAN_LOWER,
                r"\p{Han}+|",
            )
        ],
    ),
    (
        "deepseek-llm",
        [
            "[\r\n]",
            rf"\s?[{CASED}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            WIDE,
            r"\p{N}+",
        ],
    ),
    ("deepseek-coder", ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", WIDE, r"\p{N}"]),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", [r"\p{N}{1,3}", KANA, DEEPSEEK3]),
    (
        "afmoe",
        [
            r"\d+",
            THREES,
            "[一-鿿㐀-䶿\uf900-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
            DEEPSEEK3,
        ],
    ),
    ("superbpe", [r"\p{N}+", THREES]),
    ("jais-2", [cl100k(r"\p{N}{1,3}", spaces=r"|\s*[\r\n]+" + POWERS + r"|\s{1,2}(?!\S)|\s{1}")]),
    ("minicpm5", [r"\p{N}{1,3}", cl100k(r"\p{N}+")]),
    (
        "bailingmoe bailingmoe2 llada-moe",
        [
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        ],
    ),
    ("seed-coder", [cl100k(r"\p{N}{1}", others=r"[^\s\p{L}\p{N}\r\n]+", after="")]),
    (
        "ufakzeka",
        [r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES],
    ),
    ("laguna", [r"[^\n]+|[\n]+", QWEN2]),
    (
        "exaone-moe",
        [
            CONTRACTED + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        ],
    ),
    ("poro-chat bloom gpt3-finnish", [BLOOM]),
    ("viking", [BLOOM, r"\p{N}"]),
    (
        "chameleon",
        [
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
    ),
    ("falcon", [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    ("default", [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
]


def cut(piece, pattern):
    """The matches in a piece and what lies between them; a match of nothing is a place to cut."""
    end = 0
    for match in pattern.finditer(piece):
        if match.start() > end:
            yield piece[end : match.start()]
        if match.end() > match.start():
            yield match.group()
        end = match.end()
    if end < len(piece):
        yield piece[end:]


def ends(text, patterns):
    pieces = [text] if text else []
    for pattern in patterns:
        pieces = [part for piece in pieces for part in cut(piece, pattern)]
    assert "".join(pieces) == text
    result, at = [], 0
    for piece in pieces:
        at += len(piece)
        result.append(at)
    return result


def main():
    lines = []
    for names, patterns in RULES:
        compiled = [regex.compile(pattern, regex.V1) for pattern in patterns]
        cuts = [ends(text, compiled) for text in TEXTS]
        # One line for each rule, so that a change shows what it changes.
        lines.append(json.dumps({"names": names.split(), "cuts": cuts}, separators=(",", ":")))
    texts = json.dumps(TEXTS, ensure_ascii=True, indent=0)
    with open(OUTPUT, "w", encoding="utf-8") as file:
        rules = ",\n".join(lines)
        file.write(f'{{"texts": {texts},\n"rules": [\n{rules}\n]}}\n')


if __name__ == "__main__":
    main()
