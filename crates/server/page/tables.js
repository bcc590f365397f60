// Tables whose cells follow values.

import { element, setText } from "./dom.js";

export class Table {
  #cells = [];

  /**
   * @param {string} kind a class name for the style sheet
   * @param {string} title
   * @param {string[]} columns headings, the first of the column of names
   * @param {{name: string, hint?: string, key: string}[]} rows `key` names the row in the page
   */
  constructor(kind, title, columns, rows) {
    const head = columns.map((text) => element("th", { scope: "col" }, text));
    const body = rows.map((row) => this.#row(row, columns.length - 1));
    this.node = element(
      "div",
      { className: `card scrolls ${kind}` },
      element(
        "table",
        {},
        element("caption", {}, title),
        element("thead", {}, element("tr", {}, ...head)),
        element("tbody", {}, ...body),
      ),
    );
  }

  #row({ name, hint, key }, width) {
    const heading = element("th", { scope: "row", title: hint ?? "" }, name);
    const cells = Array.from({ length: width }, () => element("td"));
    this.#cells.push(cells);
    return element("tr", { data: { metric: key } }, heading, ...cells);
  }

  /** Sets the texts, row by row. */
  fill(rows) {
    rows.forEach((texts, r) => texts.forEach((text, c) => setText(this.#cells[r][c], text)));
  }
}
