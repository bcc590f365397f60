// A headless Chromium, driven by its DevTools protocol over a pipe: no port, no packages.
// The protocol: messages are JSON, ended by a zero byte, on file descriptors 3 (to the browser) and 4.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = [
  "--headless",
  "--remote-debugging-pipe",
  "--no-sandbox", // containers often forbid what the sandbox needs; the test opens its own server only
  "--disable-dev-shm-usage",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--hide-scrollbars",
];

/** A running browser. */
export class Browser {
  #pending = new Map();
  #listeners = new Set();
  #last = 0;

  /** Starts the browser; `CHROMIUM` names another program than `chromium`. */
  static async start() {
    const browser = new Browser();
    browser.folder = await mkdtemp(join(tmpdir(), "browser-test-"));
    const flags = [...FLAGS, `--user-data-dir=${browser.folder}`];
    const stdio = ["ignore", "ignore", "ignore", "pipe", "pipe"];
    browser.process = spawn(process.env.CHROMIUM ?? "chromium", flags, { stdio });
    browser.exited = new Promise((resolve) => browser.process.once("close", resolve));
    browser.process.once("error", (error) => browser.#fail(error));
    browser.process.once("exit", (code) => browser.#fail(new Error(`the browser ended (${code})`)));
    browser.#read(browser.process.stdio[4]);
    await browser.call("Browser.getVersion");
    return browser;
  }

  #read(stream) {
    let rest = "";
    stream.setEncoding("utf8").on("data", (data) => {
      const messages = (rest + data).split("\0");
      rest = messages.pop();
      for (const message of messages) this.#receive(JSON.parse(message));
    });
  }

  #receive({ id, result, error, method, params, sessionId }) {
    if (id === undefined) {
      for (const listener of this.#listeners) listener({ method, params, sessionId });
      return;
    }
    const { resolve, reject, call } = this.#pending.get(id);
    this.#pending.delete(id);
    if (error) reject(new Error(`${call}: ${error.message}`));
    else resolve(result);
  }

  #fail(error) {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  /** Calls a method of the protocol. */
  call(method, params = {}, sessionId = undefined) {
    const id = (this.#last += 1);
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject, call: method }));
  }

  /** Hears all events. */
  listen(listener) {
    this.#listeners.add(listener);
  }

  /** Ends the browser and removes its folder. */
  async stop() {
    await this.call("Browser.close").catch(() => {});
    await this.exited;
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
