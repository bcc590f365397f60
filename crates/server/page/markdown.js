// The part of Markdown that answers use, as a tree of plain objects. Pure; `markdown-view.js` shows it.
//
// Blocks:  {type: "paragraph" | "heading", inline, level?} | {type: "code", language, text}
//          | {type: "list", ordered, start, items: blocks[]} | {type: "quote", blocks}
//          | {type: "table", header: inline[], rows: inline[][]} | {type: "rule"}
// Inline:  {type: "text" | "code", text} | {type: "strong" | "em" | "strike", inline}
// Whatever is none of these, HTML and links included, is text.

// Deeper nesting is text: a page of `> > > >` must not cost more than it shows.
const MAX_DEPTH = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}(?:(?:- *){3,}|(?:\* *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const TABLE_LINE = /^ *\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;

/** The blocks of a text. */
export function parseMarkdown(text) {
  return parseBlocks(text.replaceAll("\r", "").replaceAll("\t", "    ").split("\n"), 0);
}

const blank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;

function parseBlocks(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (blank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = parseBlock(lines, at, depth);
    blocks.push(block);
    at = next;
  }
  return blocks;
}

/** The block that begins at a line, and the line after it. */
function parseBlock(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return parseCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    return [{ type: "heading", level: heading[1].length, inline: parseInline(heading[2]) }, at + 1];
  }
  if (RULE.test(line)) return [{ type: "rule" }, at + 1];
  if (startsTable(lines, at)) return parseTable(lines, at);
  if (depth < MAX_DEPTH && QUOTE.test(line)) return parseQuote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return parseList(lines, at, depth);
  return parseParagraph(lines, at);
}

const startsBlock = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((start) => start.test(line));
const startsTable = (lines, at) =>
  lines[at].includes("|") && at + 1 < lines.length && TABLE_LINE.test(lines[at + 1]);

/** A fenced block; one that is not closed yet goes to the end. */
function parseCode(lines, at, [, fence, language]) {
  const indent = indentOf(lines[at]);
  const text = [];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next].trim();
    if (line.startsWith(fence) && line.replaceAll(fence[0], "") === "") break;
    text.push(lines[next].slice(Math.min(indent, indentOf(lines[next]))));
  }
  return [{ type: "code", language, text: text.join("\n") }, next + 1];
}

function parseQuote(lines, at, depth) {
  const inner = [];
  while (at < lines.length && QUOTE.test(lines[at])) inner.push(lines[at++].replace(QUOTE, ""));
  return [{ type: "quote", blocks: parseBlocks(inner, depth + 1) }, at];
}

/** Items with markers of one kind and indentation, each with the lines that belong to it. */
function parseList(lines, at, depth) {
  const [, margin, marker] = ITEM.exec(lines[at]);
  const kind = marker.at(-1);
  const items = [];
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    const ours = item && item[2].at(-1) === kind && Math.abs(item[1].length - margin.length) < 2;
    if (!ours || RULE.test(lines[at])) break;
    const inner = [lines[at].slice(item[0].length)];
    at += 1;
    while (at < lines.length && belongs(lines, at, margin.length)) {
      inner.push(lines[at].slice(Math.min(indentOf(lines[at]), item[0].length)));
      at += 1;
    }
    items.push(parseBlocks(inner, depth + 1));
    while (at < lines.length && blank(lines[at])) at += 1;
  }
  const ordered = /\d/.test(marker);
  return [{ type: "list", ordered, start: ordered ? parseInt(marker, 10) : 1, items }, at];
}

/** Whether a line goes on with the item of a list whose markers stand at `margin`. */
function belongs(lines, at, margin) {
  const line = lines[at];
  if (!blank(line)) {
    if (indentOf(line) >= margin + 2) return true;
    return !blank(lines[at - 1]) && !startsBlock(line); // a paragraph's next line, not indented
  }
  const next = lines.slice(at, at + 3).find((line) => !blank(line));
  return next !== undefined && indentOf(next) >= margin + 2;
}

function parseTable(lines, at) {
  const header = cells(lines[at]);
  const rows = [];
  let next = at + 2;
  for (; next < lines.length && lines[next].includes("|"); next += 1) {
    const row = cells(lines[next]).slice(0, header.length);
    while (row.length < header.length) row.push([]);
    rows.push(row);
  }
  return [{ type: "table", header, rows }, next];
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => parseInline(cell.trim().replaceAll("\\|", "|")));
}

function parseParagraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && !blank(lines[next]) && !startsBlock(lines[next])) {
    if (startsTable(lines, next)) break;
    next += 1;
  }
  const text = lines.slice(at, next).map((line) => line.trim());
  return [{ type: "paragraph", inline: parseInline(text.join("\n")) }, next];
}

const MARKS = [
  { mark: "**", type: "strong" },
  { mark: "__", type: "strong", words: true },
  { mark: "~~", type: "strike" },
  { mark: "*", type: "em" },
  { mark: "_", type: "em", words: true },
];

/** The inline parts of a text. */
export function parseInline(text, depth = 0) {
  const parts = [];
  const hopeless = new Set(); // marks that close nowhere in the rest: each is looked for once
  let plain = "";
  let at = 0;
  const add = (part, next) => {
    if (plain) parts.push({ type: "text", text: plain });
    parts.push(part);
    plain = "";
    at = next;
  };
  while (at < text.length) {
    const character = text[at];
    if (character === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const found = "`*_~".includes(character) && depth < MAX_DEPTH
      ? character === "`" ? codeSpan(text, at, hopeless) : emphasis(text, at, hopeless, depth)
      : null;
    if (found) {
      add(...found);
    } else {
      const run = character === "`" ? backticks(text, at) : 1;
      plain += text.slice(at, at + run);
      at += run;
    }
  }
  if (plain) parts.push({ type: "text", text: plain });
  return parts;
}

function backticks(text, at) {
  let end = at;
  while (text[end] === "`") end += 1;
  return end - at;
}

function codeSpan(text, at, hopeless) {
  const run = backticks(text, at);
  const mark = "`".repeat(run);
  if (hopeless.has(mark)) return null;
  let close = at + run;
  while ((close = text.indexOf(mark, close)) !== -1) {
    const length = backticks(text, close);
    if (length === run) {
      const code = text.slice(at + run, close);
      return [{ type: "code", text: code.replace(/^ (.*\S.*) $/s, "$1") }, close + run];
    }
    close += length;
  }
  hopeless.add(mark);
  return null;
}

function emphasis(text, at, hopeless, depth) {
  const kind = MARKS.find(({ mark }) => text.startsWith(mark, at));
  if (!kind || hopeless.has(kind.mark)) return null;
  const { mark, type, words } = kind;
  const start = at + mark.length;
  if (/^\s?$/.test(text[start] ?? "") || (words && /\w/.test(text[at - 1] ?? ""))) return null;
  const close = closing(text, start + 1, mark, words);
  if (close === -1) {
    hopeless.add(mark);
    return null;
  }
  return [{ type, inline: parseInline(text.slice(start, close), depth + 1) }, close + mark.length];
}

function closing(text, from, mark, words) {
  for (let at = from; (at = text.indexOf(mark, at)) !== -1; at += 1) {
    // Of `***` the last two end what `**` began, and one alone ends nothing in a pair.
    const early = mark.length === 2 && text[at + 2] === mark[0];
    const paired = mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark);
    const inWord = words && /\w/.test(text[at + mark.length] ?? "");
    if (!/\s/.test(text[at - 1]) && !early && !paired && !inWord && text[at - 1] !== "\\") return at;
  }
  return -1;
}
