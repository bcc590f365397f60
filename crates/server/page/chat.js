// The conversation.

import { receive } from "./answer.js";
import { bindSettings, chatRequest, invalidSetting, loadMessages, saveMessages } from "./conversation.js";
import { byId, element } from "./dom.js";
import { MessageView } from "./message-view.js";

const STARTERS = [
  "Explain what a key/value cache is, in three sentences.",
  "Write a Python function that finds the median of a list.",
  "Give me a table of three rivers and their lengths.",
];

// A log that is read near its end stays at its end.
const NEAR_END = 80;

/** Wires the conversation; `model()` promises the chosen model. */
export function startChat(model) {
  const log = byId("log");
  const prompt = byId("prompt");
  const messages = loadMessages();
  let views = [];
  let running = null; // the AbortController of the answer that arrives

  function show() {
    views = messages.map((message, i) => new MessageView(message, () => retry(i)));
    views.forEach((view) => view.update());
    log.replaceChildren(...(views.length ? views.map(({ node }) => node) : [welcome()]));
    byId("clear").hidden = messages.length === 0;
    scroll();
  }

  function welcome() {
    const buttons = STARTERS.map((text) => {
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => ask(text));
      return button;
    });
    return element(
      "div",
      { className: "welcome" },
      element("img", { src: "page/icon.svg", alt: "", width: 56, height: 56 }),
      element("h1", {}, "What shall we talk about?"),
      element("p", {}, "Everything you write stays between this page and this server."),
      element("div", { className: "starters" }, ...buttons),
    );
  }

  function scroll() {
    log.scrollTop = log.scrollHeight;
  }

  function setRunning(controller) {
    running = controller;
    log.setAttribute("aria-busy", String(controller !== null));
    byId("send").hidden = controller !== null;
    byId("stop").hidden = controller === null;
  }

  async function ask(text) {
    if (running || text.trim() === "") return;
    const invalid = invalidSetting();
    if (invalid) {
      toggleSettings(true);
      invalid.reportValidity();
      return;
    }
    messages.push({ role: "user", content: text });
    prompt.value = "";
    fit();
    await answer();
  }

  /** Streams the answer to the messages so far. */
  async function answer() {
    const request = chatRequest(messages);
    const message = { role: "assistant", content: "" };
    messages.push(message);
    show();
    const view = views.at(-1);
    view.update({ arriving: true });
    setRunning(new AbortController());
    const frame = new Frame(() => {
      const follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
      view.update({ arriving: true });
      if (follows) scroll();
    });
    try {
      request.model = await model();
      message.note = await receive(request, running.signal, (text, speed) => {
        message.content = text;
        message.note = speed;
        frame.request();
      });
    } catch (error) {
      if (error.name === "AbortError") message.note = "Stopped";
      else Object.assign(message, { error: error.message, note: "" });
    }
    frame.cancel();
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
    view.update();
    if (follows) scroll();
    setRunning(null);
    saveMessages(messages);
  }

  /** Asks again for the answer at a place; what came after it goes. */
  function retry(place) {
    if (running) return;
    messages.length = place;
    answer();
  }

  function stop() {
    running?.abort();
    prompt.focus();
  }

  function clear() {
    stop();
    messages.length = 0;
    saveMessages(messages);
    show();
    prompt.focus();
  }

  /** The field is as high as its text, up to a limit set by the style sheet. */
  function fit() {
    prompt.style.height = "auto";
    prompt.style.height = `${prompt.scrollHeight}px`;
  }

  prompt.addEventListener("input", fit);
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask(prompt.value);
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(prompt.value);
  });
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) stop();
  });
  byId("toggle-settings").addEventListener("click", () => toggleSettings());

  bindSettings();
  toggleSettings(matchMedia("(min-width: 70rem)").matches);
  show();
}

function toggleSettings(open = byId("settings").hidden) {
  byId("settings").hidden = !open;
  byId("toggle-settings").setAttribute("aria-expanded", String(open));
}

/** Draws at most once in each frame of the screen. */
class Frame {
  #id = 0;

  constructor(draw) {
    this.draw = draw;
  }

  request() {
    this.#id ||= requestAnimationFrame(() => {
      this.#id = 0;
      this.draw();
    });
  }

  cancel() {
    cancelAnimationFrame(this.#id);
    this.#id = 0;
  }
}
