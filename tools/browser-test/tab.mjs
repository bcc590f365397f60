// One tab with a store of its own, and what a test does in it.

import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const PATIENCE_MS = 120_000;

export class Tab {
  /** What went wrong in the page: exceptions, console errors, refusals by the security policy. */
  faults = [];
  /** Addresses of all requests. */
  requests = [];
  #answers = [];
  #loaded = () => {};

  /** Opens an empty tab. */
  static async open(browser, { width = 1280, height = 860, dark = false } = {}) {
    const tab = new Tab();
    tab.browser = browser;
    const { browserContextId } = await browser.call("Target.createBrowserContext");
    const target = await browser.call("Target.createTarget", { url: "about:blank", browserContextId });
    tab.context = browserContextId;
    tab.session = (
      await browser.call("Target.attachToTarget", { targetId: target.targetId, flatten: true })
    ).sessionId;
    browser.listen((event) => event.sessionId === tab.session && tab.#hear(event));
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab.call(`${domain}.enable`);
    await tab.resize(width, height);
    const value = dark ? "dark" : "light";
    await tab.call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
    return tab;
  }

  call(method, params) {
    return this.browser.call(method, params, this.session);
  }

  #hear({ method, params }) {
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      this.faults.push(exception?.description ?? text);
    } else if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.faults.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    } else if (method === "Runtime.consoleAPICalled" && ["error", "assert"].includes(params.type)) {
      this.faults.push(params.args.map(({ value, description }) => value ?? description).join(" "));
    } else if (method === "Network.requestWillBeSent") {
      this.requests.push(params.request.url);
    } else if (method === "Page.loadEventFired") {
      this.#loaded();
    } else if (method === "Fetch.requestPaused") {
      this.#intercept(params).catch((error) => this.faults.push(`interception: ${error.message}`));
    }
  }

  /**
   * Answers some of the page's requests in the server's place.
   *
   * @param {(request: {url: string, headers: object}) => {status: number, type: string, body: string} | null} answer
   *   null leaves the request to the server
   */
  async answerWith(answer) {
    this.#answers.push(answer);
    await this.call("Fetch.enable", { patterns: [{ urlPattern: "*" }] });
  }

  async #intercept({ requestId, request }) {
    const made = this.#answers.map((answer) => answer(request)).find(Boolean);
    if (!made) return this.call("Fetch.continueRequest", { requestId });
    return this.call("Fetch.fulfillRequest", {
      requestId,
      responseCode: made.status,
      responseHeaders: [{ name: "Content-Type", value: made.type }],
      body: Buffer.from(made.body).toString("base64"),
    });
  }

  async resize(width, height) {
    const mobile = width < 600;
    await this.call("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile });
  }

  async go(url) {
    await this.#load("Page.navigate", { url });
  }

  reload() {
    return this.#load("Page.reload");
  }

  async #load(method, params) {
    const loaded = new Promise((resolve) => (this.#loaded = resolve));
    await this.call(method, params);
    await loaded;
  }

  /** The value of an expression in the page. */
  async value(expression) {
    const options = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.call("Runtime.evaluate", options);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? expression);
    return result.value;
  }

  /** Waits until an expression is true, and returns its value. */
  async until(expression) {
    const end = Date.now() + PATIENCE_MS;
    while (Date.now() < end) {
      const value = await this.value(expression);
      if (value) return value;
      await sleep(50);
    }
    throw new Error(`not within ${PATIENCE_MS / 1000} s: ${expression}`);
  }

  /** The text of the first element that fits a selector. */
  text(selector) {
    return this.value(`document.querySelector(${JSON.stringify(selector)})?.textContent`);
  }

  /** Types into the element that has the focus. */
  async type(text) {
    await this.call("Input.insertText", { text });
  }

  /** Presses a key; `shift` holds the shift key. */
  async press(key, { shift = false } = {}) {
    const codes = { Enter: 13, Escape: 27, Tab: 9 };
    const common = { key, code: key, windowsVirtualKeyCode: codes[key], modifiers: shift ? 8 : 0 };
    const text = key === "Enter" ? "\r" : undefined;
    await this.call("Input.dispatchKeyEvent", { type: "keyDown", text, ...common });
    await this.call("Input.dispatchKeyEvent", { type: "keyUp", ...common });
  }

  /** Clicks the middle of the first element that fits a selector. */
  async click(selector) {
    const { x, y } = await this.value(`(() => {
      const node = document.querySelector(${JSON.stringify(selector)});
      node.scrollIntoView({ block: "nearest" });
      const { left, top, width, height } = node.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
    const mouse = { x, y, button: "left", clickCount: 1 };
    await this.call("Input.dispatchMouseEvent", { type: "mousePressed", ...mouse });
    await this.call("Input.dispatchMouseEvent", { type: "mouseReleased", ...mouse });
  }

  /** Writes what the tab shows as a PNG file. */
  async screenshot(path) {
    const { data } = await this.call("Page.captureScreenshot", { format: "png" });
    await writeFile(path, Buffer.from(data, "base64"));
  }

  close() {
    return this.browser.call("Target.disposeBrowserContext", { browserContextId: this.context });
  }
}
