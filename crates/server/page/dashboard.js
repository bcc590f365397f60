// The live dashboard: `/metrics`, once a second, as tiles, charts and tables.

import { send } from "./api.js";
import { Chart } from "./chart.js";
import { byId, element, setText } from "./dom.js";
import { readEngine } from "./engine.js";
import { count, duration, measured, NOTHING, percent, roundDuration, tokenRate } from "./format.js";
import { History, SHOWN } from "./history.js";
import { labelValues, parseMetrics } from "./metrics.js";
import { Table } from "./tables.js";

const PERIOD_MS = 1000;

const blocks = ({ blocksFree, blocksIdle, blocksReferenced }) =>
  blocksFree + blocksIdle + blocksReferenced;
const hitRate = ({ promptTokens, cachedTokens }) => cachedTokens / promptTokens;
const ended = (engine) => OUTCOMES.reduce((sum, { key }) => sum + engine[key], 0);

const TILES = [
  { name: "Generating", key: "generatedRate", text: (e) => tokenRate(e.generatedRate), more: (e) => `${count(e.generatedTokens)} tokens so far` },
  { name: "Reading prompts", key: "promptRate", text: (e) => tokenRate(e.promptRate), more: (e) => `${count(e.promptTokens)} tokens so far` },
  { name: "Running", key: "running", text: (e) => count(e.running), more: (e) => `${count(e.waiting)} waiting` },
  { name: "First token", key: "firstToken", text: (e) => duration(e.firstTokenTimes.p50), more: () => "median of a minute" },
  { name: "Cache in use", key: "cacheUse", text: (e) => percent(e.blocksReferenced / blocks(e)), more: (e) => `of ${count(blocks(e))} blocks` },
  { name: "Prefix hits", key: "hitRate", text: (e) => percent(hitRate(e)), more: () => "of prompt tokens" },
];

const pair = (key) => [
  { label: "median", value: (e) => e[key].p50 },
  { label: "p99", value: (e) => e[key].p99 },
];

const CHARTS = [
  {
    title: "Throughput",
    format: tokenRate,
    axis: (value) => `${measured(value)} tok/s`,
    least: 10,
    series: [
      { label: "generated", value: (e) => e.generatedRate },
      { label: "prompt", value: (e) => e.promptRate },
    ],
  },
  { title: "Time to first token", format: duration, axis: roundDuration, series: pair("firstTokenTimes") },
  { title: "Time between tokens", format: duration, axis: roundDuration, series: pair("interTokenTimes") },
  {
    title: "Requests",
    format: measured,
    least: 2,
    series: [
      { label: "running", value: (e) => e.running },
      { label: "waiting", value: (e) => e.waiting },
    ],
  },
  {
    title: "Batch, mean of a step",
    format: measured,
    least: 2,
    series: [
      { label: "requests", value: (e) => e.stepSequences },
      { label: "tokens", value: (e) => e.stepTokens },
    ],
  },
  {
    title: "Key/value cache, blocks",
    format: count,
    stacked: true,
    series: [
      { label: "in use", value: (e) => e.blocksReferenced },
      { label: "kept for prefixes", value: (e) => e.blocksIdle },
      { label: "free", value: (e) => e.blocksFree },
    ],
  },
];

const LATENCIES = [
  { name: "Queue", key: "queue", hint: "from submission to the first step" },
  { name: "First token", key: "firstToken", hint: "from submission to the first token" },
  { name: "Between tokens", key: "interToken", hint: "from one token of a request to its next" },
  { name: "Whole request", key: "request", hint: "from submission to the end" },
  { name: "Engine step", key: "step", hint: "one pass over all running requests" },
];

const COUNTERS = [
  { name: "Prompt tokens", key: "promptTokens" },
  { name: "Cached prompt tokens", key: "cachedTokens", hint: "prefix hits: not computed again" },
  { name: "Generated tokens", key: "generatedTokens" },
  { name: "Preemptions", key: "preemptions", hint: "running requests put back into the queue" },
  { name: "Evictions", key: "evictions", hint: "cached blocks that were overwritten" },
  { name: "Failed steps", key: "failedSteps" },
];

const OUTCOMES = [
  { name: "Complete", key: "finishedStop", hint: "the model ended its answer" },
  { name: "Token limit", key: "finishedLength", hint: "as many tokens as the request allowed" },
  { name: "Cancelled", key: "cancelled", hint: "the reader left" },
  { name: "Failed", key: "failed", hint: "those past their deadline included" },
  { name: "Rejected", key: "rejected", hint: "too many waited already" },
];

/** Wires the dashboard; `model()` is the chosen model. Returns what redraws it at once. */
export function startDashboard(model) {
  const histories = new Map();
  const tiles = TILES.map(makeTile);
  const charts = CHARTS.map((options) => new Chart({ ...options, seconds: SHOWN }));
  const latencies = new Table("latency", "Latency, last minute", ["", "median", "p90", "p99", "mean", "count"], LATENCIES);
  const counters = new Table("work", "Work", ["", "last minute", "since start"], COUNTERS);
  const outcomes = new Table("outcomes", "Requests", ["", "last minute", "since start", "share"], OUTCOMES);
  byId("tiles").append(...tiles.map(({ node }) => node));
  byId("charts").append(...charts.map(({ node }) => node));
  byId("tables").append(...[latencies, outcomes, counters].map(({ node }) => node));

  function draw() {
    const history = histories.get(model());
    if (!history) return;
    const now = history.latest;
    tiles.forEach((tile) => tile.show(now));
    charts.forEach((chart) => chart.draw(history.shown, now.time));
    latencies.fill(LATENCIES.map(({ key }) => latencyTexts(history.latency(key))));
    const both = (key) => [count(history.growth(key)), count(now[key])];
    counters.fill(COUNTERS.map(({ key }) => both(key)));
    outcomes.fill(OUTCOMES.map(({ key }) => [...both(key), percent(now[key] / ended(now))]));
  }

  async function poll() {
    const samples = parseMetrics(await (await send("metrics")).text());
    const time = performance.now() / 1000;
    for (const name of labelValues(samples, "model")) {
      if (!histories.has(name)) histories.set(name, new History());
      histories.get(name).push(time, readEngine(samples, name));
    }
    draw();
  }

  pollWhileVisible(poll, byId("dashboard-notice"));
  return draw;
}

/** Polls while anyone can see the page; a failure is said in words and tried again. */
function pollWhileVisible(poll, notice) {
  let timer = null;
  async function run() {
    timer = null;
    const problem = await poll().then(() => "", (error) => error.message);
    setText(notice, problem && `${problem} Trying again every second.`);
    notice.hidden = !problem;
    schedule();
  }
  function schedule() {
    if (!document.hidden) timer ??= setTimeout(run, PERIOD_MS);
  }
  document.addEventListener("visibilitychange", schedule);
  run();
}

function makeTile({ name, key, text, more }) {
  const value = element("strong", {}, NOTHING);
  const below = element("small");
  const node = element("div", { className: "card tile", data: { metric: key } }, element("span", {}, name), value, below);
  const show = (engine) => {
    setText(value, text(engine));
    setText(below, more?.(engine) ?? "");
  };
  return { node, show };
}

function latencyTexts({ p50, p90, p99, mean, count: values }) {
  return [...[p50, p90, p99, mean].map(duration), count(values)];
}
