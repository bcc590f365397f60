// The built-in page in a real browser, against a running server.
//
//     node tools/browser-test/page.mjs http://127.0.0.1:8000/ OUTPUT_FOLDER

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { parseMetrics, value } from "../../crates/server/page/metrics.js";
import { Browser } from "./browser.mjs";
import { Tab } from "./tab.mjs";

const [base, folder] = process.argv.slice(2);
if (!base || !folder) {
  console.error("usage: node page.mjs BASE_URL OUTPUT_FOLDER");
  process.exit(2);
}
const origin = new URL(base).origin;
const LONG = "Write a very long story about a hen that travels around the world.";

let browser;
before(async () => {
  await mkdir(folder, { recursive: true });
  browser = await Browser.start();
});
after(() => browser?.stop());

/** Runs a check in a tab of its own; the page must be without a fault at its end. */
function check(name, options, body) {
  test(name, { timeout: 300_000 }, async () => {
    const tab = await Tab.open(browser, options);
    try {
      await body(tab, (shot) => tab.screenshot(join(folder, `${shot}.png`)));
      const expected = options.expected ?? /^$/;
      assert.deepEqual(tab.faults.filter((fault) => !expected.test(fault)), []);
      const foreign = tab.requests.filter((url) => new URL(url).origin !== origin);
      assert.deepEqual(foreign, [], "requests to other hosts");
    } finally {
      await tab.close();
    }
  });
}

async function open(tab, view = "chat") {
  await tab.go(`${base}#${view}`);
  await tab.until("document.querySelector('#model').value");
}

async function say(tab, text) {
  await tab.click("#prompt");
  await tab.type(text);
  await tab.press("Enter");
}

const done = (tab) => tab.until("document.querySelector('#stop').hidden");
const lastAnswer = "[...document.querySelectorAll('.assistant .text')].at(-1)?.textContent";
const lastNote = "[...document.querySelectorAll('.note')].at(-1)?.textContent";

async function set(tab, id, text) {
  await tab.value(`(() => {
    const field = document.querySelector("#${id}");
    field.value = ${JSON.stringify(text)};
    field.dispatchEvent(new Event("input"));
  })()`);
}

async function metric(model, name, labels) {
  const text = await (await fetch(new URL("metrics", base))).text();
  return value(parseMetrics(text), name, { model, ...labels });
}

/** Waits until no request runs. */
async function idle(model) {
  while ((await metric(model, "bantam_requests_running")) > 0) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

check("the page loads and lists the models", {}, async (tab, shot) => {
  await open(tab);
  const { data } = await (await fetch(new URL("v1/models", base))).json();
  const listed = await tab.value("[...document.querySelectorAll('#model option')].map((o) => o.value)");
  assert.deepEqual(listed, data.map(({ id }) => id));
  await tab.until("document.querySelector('#status').dataset.state === 'good'");
  await shot("welcome");
});

check("its files forbid what they do not need", {}, async () => {
  for (const path of ["", "page/style.css", "page/app.js", "page/icon.svg"]) {
    const { ok, headers } = await fetch(new URL(path, base));
    assert.ok(ok, path);
    assert.match(headers.get("content-security-policy"), /^default-src 'self'/);
    assert.doesNotMatch(headers.get("content-security-policy"), /unsafe/);
  }
});

check("an answer arrives piece by piece", {}, async (tab, shot) => {
  await open(tab);
  await set(tab, "max_tokens", "120");
  await set(tab, "temperature", "0");
  await tab.value(`(() => {
    globalThis.lengths = new Set();
    const look = () => lengths.add(document.querySelector(".assistant .text")?.textContent.length ?? 0);
    new MutationObserver(look).observe(document.querySelector("#log"), { childList: true, subtree: true, characterData: true });
  })()`);
  await say(tab, LONG);
  await tab.until(`(${lastAnswer} ?? "").length > 40`);
  assert.equal(await tab.value("document.querySelector('#stop').hidden"), false, "still streaming");
  assert.equal(await tab.value("document.querySelector('#log').getAttribute('aria-busy')"), "true");
  await shot("streaming");
  await done(tab);
  assert.ok((await tab.value("lengths.size")) > 5, "the text grew in steps");
  assert.match(await tab.value(lastNote), /^120 tokens · [\d.,]+ tok\/s · first token after .* · prompt \d+.*cut at the token limit$/);
  await shot("answer");
});

check("shift and enter start a line; retry asks again; clear forgets", {}, async (tab) => {
  await open(tab);
  await set(tab, "max_tokens", "8");
  await tab.click("#prompt");
  await tab.type("Say");
  await tab.press("Enter", { shift: true });
  await tab.type("hello");
  await tab.press("Enter");
  await tab.until(`${lastNote}?.includes("token") && document.querySelector('#stop').hidden`);
  assert.equal(await tab.text(".user .text"), "Say\nhello");
  await tab.value("[...document.querySelectorAll('.actions button')].at(-1).click()");
  await tab.until("!document.querySelector('#stop').hidden || document.querySelector('.note').textContent");
  await done(tab);
  assert.equal(await tab.value("document.querySelectorAll('.message').length"), 2);
  await tab.reload();
  await tab.until("document.querySelectorAll('.message').length === 2"); // kept in the tab
  await tab.click("#clear");
  assert.equal(await tab.value("document.querySelectorAll('.message').length"), 0);
});

check("escape stops the answer, on the server too", {}, async (tab) => {
  await open(tab);
  const model = await tab.value("document.querySelector('#model').value");
  await idle(model);
  const before = await metric(model, "bantam_requests_cancelled_total");
  await set(tab, "max_tokens", "1500");
  await say(tab, LONG);
  await tab.until(`(${lastAnswer} ?? "").length > 20`);
  await tab.press("Escape");
  await tab.until(`${lastNote} === "Stopped"`);
  await done(tab);
  await idle(model);
  assert.equal(await metric(model, "bantam_requests_cancelled_total"), before + 1);
});

check("a refusal is said in words", { expected: /status of 4\d\d/ }, async (tab, shot) => {
  await open(tab);
  await tab.value("document.querySelector('#model option').value = 'no-such-model'");
  await say(tab, "Hello");
  await tab.until("document.querySelector('.assistant .error')?.hidden === false");
  assert.match(await tab.text(".assistant .error"), /no-such-model/);
  await shot("error");
});

check("the dashboard says what the metrics say", { height: 1500 }, async (tab, shot) => {
  await open(tab);
  const model = await tab.value("document.querySelector('#model').value");
  await set(tab, "max_tokens", "120");
  await say(tab, LONG);
  await tab.value("location.hash = 'dashboard'");
  const tile = (key) => `document.querySelector('[data-metric="${key}"] strong').textContent`;
  await tab.until(`parseFloat(${tile("generatedRate")}) > 0`);
  await tab.until(`${tile("running")} === "1"`);
  await shot("dashboard-busy");
  await done(tab);
  await idle(model);
  await tab.until(`${tile("running")} === "0"`);
  const shown = {
    generatedTokens: ["bantam_generated_tokens_total"],
    promptTokens: ["bantam_prompt_tokens_total"],
    cachedTokens: ["bantam_cached_tokens_total"],
    preemptions: ["bantam_preemptions_total"],
    finishedStop: ["bantam_requests_finished_total", { reason: "stop" }],
    finishedLength: ["bantam_requests_finished_total", { reason: "length" }],
    cancelled: ["bantam_requests_cancelled_total"],
    failed: ["bantam_requests_failed_total"],
  };
  for (const [key, [name, labels]] of Object.entries(shown)) {
    const wanted = (await metric(model, name, labels)).toLocaleString("en");
    await tab.until(`document.querySelector('tr[data-metric="${key}"] td:nth-of-type(2)').textContent === "${wanted}"`);
  }
  const legend = "[...document.querySelectorAll('.chart:last-child .key b')].map((b) => b.textContent)";
  for (const [i, state] of ["referenced", "idle", "free"].entries()) {
    const wanted = (await metric(model, "bantam_cache_blocks", { state })).toLocaleString("en");
    assert.equal((await tab.value(legend))[i], wanted, state);
  }
  assert.ok(await tab.value(`parseInt(document.querySelector('tr[data-metric="interToken"] td:last-child').textContent.replace(/,/g, "")) >= 119`));
  const latencies = await tab.value("[...document.querySelectorAll('.latency td')].map((cell) => cell.textContent)");
  assert.ok(!latencies.includes("–"), "every latency has been measured");
  await shot("dashboard");
});

check("a hidden page asks for nothing", {}, async (tab) => {
  await open(tab, "dashboard");
  const polls = () => tab.requests.filter((url) => url.endsWith("/metrics")).length;
  const hide = (hidden) => tab.value(`(() => {
    Object.defineProperty(document, "hidden", { value: ${hidden}, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  })()`);
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  await hide(true);
  await wait(1500); // a poll may have been on its way
  const before = polls();
  await wait(2500);
  assert.equal(polls(), before);
  await hide(false);
  await wait(2500);
  assert.ok(polls() > before);
});

check("dark where the system is dark", { dark: true, height: 1500 }, async (tab, shot) => {
  await open(tab);
  const brightness = (property) => tab.value(
    `getComputedStyle(document.body).${property}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)`,
  );
  assert.ok((await brightness("backgroundColor")) < 150);
  assert.ok((await brightness("color")) > 600);
  await shot("dark-chat");
  await tab.value("location.hash = 'dashboard'");
  await tab.until("document.querySelectorAll('.chart path.line').length > 5");
  await shot("dark-dashboard");
});

check("a phone scrolls in one direction only", { width: 360, height: 760 }, async (tab, shot) => {
  const type = "text/event-stream";
  const wide = "```\n" + "x".repeat(400) + "\n```\n" + "y".repeat(400) + "\n\n| a | b |\n|---|---|\n" + `| ${"z".repeat(300)} | 1 |`;
  await tab.answerWith(({ url }) => url.endsWith("/chat/completions") ? { status: 200, type, body: answerOf(wide) } : null);
  await open(tab);
  await say(tab, "w".repeat(300));
  await tab.until("document.querySelector('.assistant pre')");
  await done(tab);
  const fits = async () => {
    const widths = await tab.value(
      "['html', 'body', '#log', '#dashboard'].map((s) => document.querySelector(s)).map((n) => [n.scrollWidth, n.clientWidth])",
    );
    for (const [scroll, client] of widths) assert.ok(scroll <= client, `${scroll} > ${client}`);
  };
  await fits();
  await shot("phone-chat");
  await tab.click("#toggle-settings");
  await fits();
  await shot("phone-settings");
  await tab.value("location.hash = 'dashboard'");
  await tab.until("document.querySelectorAll('.chart path.line').length > 5");
  await fits();
  await shot("phone-dashboard");
});

check("a server with keys is asked with a key", { expected: /status of 401/ }, async (tab, shot) => {
  const body = JSON.stringify({ error: { message: "no API key" } });
  const seen = [];
  await tab.answerWith(({ url, headers }) => {
    const open = /\/health$|\/page\/|:\d+\/$/.test(url);
    if (!open) seen.push(headers.Authorization);
    if (open || headers.Authorization === "Bearer right-key") return null;
    return { status: 401, type: "application/json", body };
  });
  await tab.go(base);
  await tab.until("document.querySelector('#key-dialog').open");
  assert.equal(await tab.value("document.activeElement.id"), "key");
  await shot("key");
  await tab.type("wrong-key");
  await tab.press("Enter");
  await tab.until("document.querySelector('#key-reason').textContent.includes('did not accept')");
  await tab.type("right-key");
  await tab.press("Enter");
  await tab.until("document.querySelector('#model').value");
  assert.deepEqual(seen.slice(0, 1), [undefined]);
  assert.ok(seen.includes("Bearer wrong-key") && seen.includes("Bearer right-key"));
  assert.ok(!tab.requests.some((url) => url.includes("key=") || url.includes("right-key")));
  assert.equal(await tab.value("localStorage.length"), 0);
  assert.ok(!(await tab.value("location.href")).includes("right-key"));
});

check("what a model says is text, whatever it says", {}, async (tab, shot) => {
  const evil = [
    '<img src=x onerror="globalThis.owned = 1"><script>globalThis.owned = 2</script>',
    "[link](javascript:globalThis.owned=3) ![image](https://elsewhere.example/x.png)",
    "`<b>code</b>` **<i>bold</i>** <svg onload=globalThis.owned=4>",
    '```html"><script>globalThis.owned=5</script>\n<iframe src="https://elsewhere.example"></iframe>\n```',
    "- <a href='https://elsewhere.example'>item</a>\n\n| <h1>x</h1> | y |\n|---|---|\n| <style>*{display:none}</style> | 1 |",
    "&lt;em&gt; stays as written",
  ].join("\n\n");
  await tab.answerWith(({ url }) =>
    url.endsWith("/chat/completions") ? { status: 200, type: "text/event-stream", body: answerOf(evil) } : null,
  );
  await open(tab);
  await say(tab, "<img src=x onerror='globalThis.owned = 6'>");
  await tab.until("document.querySelector('.assistant table')");
  await done(tab);
  assert.equal(await tab.value("typeof owned"), "undefined");
  const strangers = "#log :is(a, img, svg, script, iframe, style, b, i, h1)";
  assert.equal(await tab.value(`document.querySelectorAll("${strangers}").length`), 0);
  const text = await tab.value(lastAnswer);
  for (const part of ["<img src=x onerror=", "javascript:globalThis", "<svg onload", "<iframe", "&lt;em&gt;"]) {
    assert.ok(text.includes(part), part);
  }
  await shot("malicious");
});

check("a broken stream is said, and what had come stays", {}, async (tab) => {
  const body = answerOf("Half an answer").replace(/data: \[DONE\]\n\n$/, "");
  await tab.answerWith(({ url }) =>
    url.endsWith("/chat/completions") ? { status: 200, type: "text/event-stream", body } : null,
  );
  await open(tab);
  await say(tab, "Hello");
  await tab.until("document.querySelector('.assistant .error')?.hidden === false");
  assert.equal(await tab.value(lastAnswer), "Half an answer");
});

/** The events of a stream that says a text. */
function answerOf(text) {
  const chunks = [
    ...text.match(/[^]{1,7}/g).map((content) => ({ choices: [{ delta: { content } }] })),
    { choices: [{ delta: {}, finish_reason: "stop" }] },
    { choices: [], usage: { prompt_tokens: 1, completion_tokens: 9 } },
  ];
  return [...chunks.map((chunk) => JSON.stringify(chunk)), "[DONE]"].map((data) => `data: ${data}\n\n`).join("");
}
