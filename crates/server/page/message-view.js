// One message on the page.

import { copyButton, element, setText } from "./dom.js";
import { MarkdownView } from "./markdown-view.js";

const NAMES = { user: "You", assistant: "Answer" };

export class MessageView {
  #body = element("div", { className: "text" });
  #note = element("p", { className: "note" });
  #error = element("p", { className: "error", role: "alert", hidden: true });
  #copy = copyButton(() => this.message.content);
  #actions = element("div", { className: "actions", hidden: true });
  #markdown = new MarkdownView(this.#body);

  /**
   * @param {{role: string, content: string, note?: string, error?: string}} message
   * @param {() => void} retry asks again, for an answer
   */
  constructor(message, retry) {
    this.message = message;
    this.node = element(
      "article",
      { className: `message ${message.role}` },
      element("h2", { className: "visually-hidden" }, NAMES[message.role]),
      this.#body,
      this.#error,
    );
    if (message.role === "assistant") {
      const again = element("button", { type: "button", className: "quiet small" }, "Retry");
      again.addEventListener("click", retry);
      this.#actions.append(this.#copy, again);
      this.node.append(element("footer", {}, this.#note, this.#actions));
    }
  }

  /** Shows the message as it is now. An answer that still arrives has no actions yet. */
  update({ arriving = false } = {}) {
    const { role, content, note, error } = this.message;
    if (role === "user") setText(this.#body, content);
    else this.#markdown.show(content);
    this.node.classList.toggle("waiting", arriving && content === "");
    setText(this.#note, note ?? "");
    setText(this.#error, error ?? "");
    this.#error.hidden = !error;
    this.#copy.hidden = content === "";
    this.#actions.hidden = arriving;
  }
}
