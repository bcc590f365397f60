"""Reference perplexity of SmolLM2 over a short English text.

`crates/eval/tests/data/perplexity_text.txt` is the text (ASCII, tokenized whole, no token added);
`crates/eval/tests/data/perplexity_golden.json` holds

    ids          the text's token ids
    non_overlapping, strided
                 each: window and stride in tokens, nll_sum (nats), count of scored tokens, ppl =
                 exp(nll_sum / count), and windows: begin, end, first_scored, nll_sum

A window sees ids[begin..end] and nothing before, and scores the tokens first_scored..end.
Non-overlapping: first_scored = begin + 1. Strided: each token is scored once, by the first window
that reaches it, so all windows but the first score only what lies beyond the one before.
The last window of either may be short.
"""

import math
from pathlib import Path

from common import forward_logits, token_nll, write_json

WINDOW = 256
STRIDE = 128

WRAPPED_TEXT = """\
The harbor at Kelder Point had been dredged twice in living memory, and both times the mud came
back within a decade. Old Marta, who kept the tide book, said the river was only returning what
the town had borrowed. She wrote down the water level every morning at seven, in pencil, because
ink ran when the windows leaked, and she had not missed a day in thirty-one years. Nobody paid her
for it. The engineers from the capital had a float gauge and a radio mast that did the same work
without sleep, but when the mast blew down in the autumn storm, it was the tide book that told the
pilots how much water lay over the bar.

Her grandson Tomas learned arithmetic from those columns. He noticed that the highest tides came
in pairs, a day or two after the full moon and again after the new, and that the pairs grew larger
near the equinox. He drew the numbers as a curve on the back of a shipping calendar and pinned it
over the stove. When he was twelve he could guess tomorrow's level to within the width of his
hand. When he was fourteen he could explain his error: a steady west wind piled the sea against
the coast, and a falling barometer let it rise a little more, about one centimeter for each
millibar.

A good forecast has two parts. The first part is the rule, which says what would happen if nothing
unusual came along. The second part is the record of how often the rule has failed, and by how
much. People like to hear the first part and tend to skip the second, yet the second is what tells
a captain whether to sail. If the rule says three meters of water and the record says that such
forecasts are wrong by half a meter one time in ten, then a ship that draws two meters and seventy
may wait for the next tide without any shame.

Tomas put it more simply at supper. "Grandmother," he asked, "why do you still write it down, if
the curve already knows?" She broke a piece of bread and thought about it. "The curve knows the
moon," she said. "It does not know the river. Last spring they opened the sluices upstream and the
water stood a foot too high for nine days. If I had trusted the curve, I would have called the
book a liar." He wrote that on the calendar too, underneath the drawing, in small careful letters.

Years later he worked in an office full of machines that predicted the loads on bridges, the price
of wheat, and the number of beds a hospital would need in winter. The machines were fast, and they
were mostly right. Before any of them was put to use, he asked for a plain table: the prediction
in one column, what really happened in the next, and the difference in a third. Young colleagues
thought it a strange habit, since the software already printed a score. He told them that a single
score hides where the mistakes are, and that mistakes, like mud, have a way of settling in the
same place.

On his desk stood a tide book with a cracked spine. The last entry was dated the second of March,
level 2.84, wind light, sky clear; and under it, in a different hand, the level of the third of
March had been added, and of the fourth, and of every day since.
"""


def unwrapped(text: str) -> str:
    """The text with each paragraph on one line."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs) + "\n"


def _windows(token_count: int, stride: int) -> list[tuple[int, int, int]]:
    """(begin, end, first scored token) of each window."""
    windows, begin, scored_until = [], 0, 0
    while scored_until < token_count:
        end = min(begin + WINDOW, token_count)
        windows.append((begin, end, max(scored_until, begin + 1)))
        begin, scored_until = begin + stride, end
    return windows


def _score(model, ids: list[int], stride: int) -> dict:
    """NLL of every window, and of the whole."""
    windows, count = [], 0
    for begin, end, first_scored in _windows(len(ids), stride):
        window_ids = ids[begin:end]
        nll = token_nll(forward_logits(model, window_ids), window_ids)
        # nll[i] belongs to window token i + 1.
        nll_sum = float(nll[first_scored - begin - 1 :].sum())
        windows.append(
            {"begin": begin, "end": end, "first_scored": first_scored, "nll_sum": nll_sum}
        )
        count += end - first_scored
    nll_sum = sum(window["nll_sum"] for window in windows)
    return {
        "window": WINDOW,
        "stride": stride,
        "nll_sum": nll_sum,
        "count": count,
        "ppl": math.exp(nll_sum / count),
        "windows": windows,
    }


def write_perplexity_golden(model, tokenizer, folder: Path) -> None:
    """Write the text and its golden values into `folder`."""
    text = unwrapped(WRAPPED_TEXT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "perplexity_text.txt").write_bytes(text.encode("ascii"))
    ids = tokenizer.encode(text).ids
    golden = {
        "ids": ids,
        "non_overlapping": _score(model, ids, WINDOW),
        "strided": _score(model, ids, STRIDE),
    }
    write_json(folder / "perplexity_golden.json", golden)
    for name in ("non_overlapping", "strided"):
        print(f"{name}: {golden[name]['count']} tokens, perplexity {golden[name]['ppl']:.6f}")
