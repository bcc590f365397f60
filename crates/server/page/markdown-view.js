// Shows the blocks of `markdown.js` as nodes.

import { copyButton, element } from "./dom.js";
import { parseMarkdown } from "./markdown.js";

const INLINE_TAGS = { strong: "strong", em: "em", strike: "s" };

function inlineNodes(parts) {
  return parts.map((part) => {
    if (part.type === "text") return document.createTextNode(part.text);
    if (part.type === "code") return element("code", {}, part.text);
    return element(INLINE_TAGS[part.type], {}, ...inlineNodes(part.inline));
  });
}

const BLOCKS = {
  paragraph: ({ inline }) => element("p", {}, ...inlineNodes(inline)),
  // The page's own headings come first: an answer's begin at h3.
  heading: ({ level, inline }) => element(`h${Math.min(level + 2, 6)}`, {}, ...inlineNodes(inline)),
  rule: () => element("hr"),
  quote: ({ blocks }) => element("blockquote", {}, ...blocks.map(blockNode)),
  list: ({ ordered, start, items }) =>
    element(ordered ? "ol" : "ul", ordered ? { start } : {}, ...items.map(itemNode)),
  table: ({ header, rows }) => {
    const row = (cells, tag) =>
      element("tr", {}, ...cells.map((cell) => element(tag, {}, ...inlineNodes(cell))));
    const table = element(
      "table",
      {},
      element("thead", {}, row(header, "th")),
      element("tbody", {}, ...rows.map((cells) => row(cells, "td"))),
    );
    return element("div", { className: "scrolls", tabIndex: 0 }, table);
  },
  code: ({ language, text }) =>
    element(
      "figure",
      { className: "code" },
      element("figcaption", {}, element("span", {}, language || "text"), copyButton(() => text)),
      element("pre", { tabIndex: 0 }, element("code", {}, text)),
    ),
};

const blockNode = (block) => BLOCKS[block.type](block);

function itemNode(blocks) {
  // An item of one paragraph is just its text, as in a list without blank lines.
  const [first, ...rest] = blocks;
  if (first?.type !== "paragraph") return element("li", {}, ...blocks.map(blockNode));
  return element("li", {}, ...inlineNodes(first.inline), ...rest.map(blockNode));
}

/** A text in a node that grows: only the blocks that changed are made again. */
export class MarkdownView {
  #shown = [];

  constructor(node) {
    this.node = node;
  }

  show(text) {
    const blocks = parseMarkdown(text);
    const keys = blocks.map((block) => JSON.stringify(block));
    let same = 0;
    while (same < keys.length && keys[same] === this.#shown[same]) same += 1;
    while (this.node.childNodes.length > same) this.node.lastChild.remove();
    this.node.append(...blocks.slice(same).map(blockNode));
    this.#shown = keys;
  }
}
