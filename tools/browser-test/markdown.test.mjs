import assert from "node:assert/strict";
import { test } from "node:test";

import { parseInline, parseMarkdown } from "../../crates/server/page/markdown.js";

const text = (text) => ({ type: "text", text });
const paragraph = (...inline) => ({ type: "paragraph", inline });

/** All text of a tree, in order. */
function words(node) {
  if (Array.isArray(node)) return node.map(words).join("");
  if (node === null || typeof node !== "object") return "";
  return (node.text ?? "") + ["inline", "items", "blocks", "header", "rows"].map((key) => words(node[key] ?? [])).join("");
}

test("inline marks", () => {
  assert.deepEqual(parseInline("a **b *c*** `d*e*` ~~f~~"), [
    text("a "),
    { type: "strong", inline: [text("b "), { type: "em", inline: [text("c")] }] },
    text(" "),
    { type: "code", text: "d*e*" },
    text(" "),
    { type: "strike", inline: [text("f")] },
  ]);
  assert.deepEqual(parseInline("``a`b``"), [{ type: "code", text: "a`b" }]);
});

test("what is no mark is text", () => {
  const same = ["2 * 3 * 4", "snake_case_name", "a ** b", "*open", "`open", "5*", "<b>x</b>", "[a](b)", "**", "~~ no ~~"];
  for (const line of same) assert.deepEqual(parseInline(line), [text(line)], line);
  assert.deepEqual(parseInline("\\*a\\*"), [text("*a*")]);
});

test("blocks", () => {
  assert.deepEqual(parseMarkdown("# A\none\ntwo\n\n---\n> q"), [
    { type: "heading", level: 1, inline: [text("A")] },
    paragraph(text("one\ntwo")),
    { type: "rule" },
    { type: "quote", blocks: [paragraph(text("q"))] },
  ]);
});

test("code is kept to the letter, closed or not", () => {
  const code = (text) => [{ type: "code", language: "py", text }];
  assert.deepEqual(parseMarkdown("```py\n  a\n\n# b **c**\n```"), code("  a\n\n# b **c**"));
  assert.deepEqual(parseMarkdown("```py\nx = `1`"), code("x = `1`"));
  assert.deepEqual(parseMarkdown("````py\n```\n````"), code("```"));
});

test("lists nest, and hold other blocks", () => {
  const [list, after] = parseMarkdown("3. a\n   - b\n   - c\n\n     more\n4. d\n\n   ```\n   e\n   ```\n\nend");
  assert.equal(list.type, "list");
  assert.deepEqual([list.ordered, list.start, list.items.length], [true, 3, 2]);
  const [, inner] = list.items[0];
  assert.deepEqual(inner.items, [[paragraph(text("b"))], [paragraph(text("c")), paragraph(text("more"))]]);
  assert.deepEqual(list.items[1], [paragraph(text("d")), { type: "code", language: "", text: "e" }]);
  assert.deepEqual(after, paragraph(text("end")));
});

test("tables", () => {
  assert.deepEqual(parseMarkdown("| a | b |\n|:--|--:|\n| 1 \\| 2 | **3** |\n| 4 |\n\nafter"), [
    {
      type: "table",
      header: [[text("a")], [text("b")]],
      rows: [
        [[text("1 | 2")], [{ type: "strong", inline: [text("3")] }]],
        [[text("4")], []],
      ],
    },
    paragraph(text("after")),
  ]);
});

test("every beginning of an answer is shown, and no word is lost", () => {
  const answer = "Intro **bold `x`**\n\n1. one\n   * two _em_\n\n> quote\n> more\n\n| a | b |\n|--|--|\n| c | d |\n\n```js\ncode\n```\nEnd.";
  for (let length = 0; length <= answer.length; length += 1) {
    const begun = answer.slice(0, length);
    const shown = words(parseMarkdown(begun));
    for (const word of ["Intro", "bold", "one", "two", "quote", "code", "End"]) {
      if (begun.includes(`${word}`) && !/[a-z]$/i.test(begun)) assert.ok(shown.includes(word), `${word} in ${begun}`);
    }
  }
});

test("hostile texts take no more time than they are long", () => {
  const n = 20_000;
  const hostile = ["*a ", "**a ", "`", "`` ` ", "_a ", "> ", "- ", "[", "|", "~~a", "1. \n ", "***", "| |\n|--|\n"];
  for (const piece of hostile) {
    const started = performance.now();
    parseMarkdown(piece.repeat(n));
    const seconds = (performance.now() - started) / 1000;
    assert.ok(seconds < 2, `${JSON.stringify(piece)} took ${seconds} s`);
  }
});
