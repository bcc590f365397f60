import assert from "node:assert/strict";
import { test } from "node:test";

import { History } from "../../crates/server/page/history.js";
import { histogram, labelValues, mean, parseMetrics, quantile, since, value } from "../../crates/server/page/metrics.js";

const PAGE = `# HELP bantam_requests_total Requests accepted.
# TYPE bantam_requests_total counter
bantam_requests_total{model="a"} 3
bantam_requests_total{model="b \\"x\\\\y\\",{z}"} 4 1700000000000
bantam_finished_total{model="a",reason="stop"} 1
bantam_finished_total{model="a",reason="length"} 2
plain 1.5e-3
bantam_queue_seconds_bucket{model="a",le="0.1"} 2
bantam_queue_seconds_bucket{model="a",le="+Inf"} 5
bantam_queue_seconds_bucket{model="a",le="1"} 4
bantam_queue_seconds_sum{model="a"} 4.5
bantam_queue_seconds_count{model="a"} 5
this is no sample
`;

test("samples, labels and numbers", () => {
  const samples = parseMetrics(PAGE);
  assert.equal(value(samples, "bantam_requests_total", { model: "a" }), 3);
  assert.equal(value(samples, "bantam_requests_total", { model: 'b "x\\y",{z}' }), 4);
  assert.equal(value(samples, "bantam_requests_total"), 7);
  assert.equal(value(samples, "bantam_finished_total", { reason: "length" }), 2);
  assert.equal(value(samples, "plain"), 0.0015);
  assert.ok(Number.isNaN(value(samples, "missing")));
  assert.deepEqual(labelValues(samples, "model"), ["a", 'b "x\\y",{z}']);
});

test("a histogram is in order of its bounds", () => {
  const queue = histogram(parseMetrics(PAGE), "bantam_queue_seconds", { model: "a" });
  assert.deepEqual(queue, { bounds: [0.1, 1, Infinity], cumulative: [2, 4, 5], count: 5, sum: 4.5 });
  assert.equal(mean(queue), 0.9);
  assert.equal(quantile(queue, 0.2), 0.05); // the first of two values below 0.1
  assert.equal(quantile(queue, 0.6), 0.55); // halfway between 0.1 and 1
  assert.equal(quantile(queue, 1), 1); // past the last bound
});

test("histograms that differ in other labels are added up", () => {
  const lines = ["decode", "prefill"].flatMap((phase, i) => [
    `step_bucket{phase="${phase}",le="1"} ${1 + i}`,
    `step_bucket{phase="${phase}",le="+Inf"} ${3 + i}`,
    `step_sum{phase="${phase}"} 2`,
    `step_count{phase="${phase}"} ${3 + i}`,
  ]);
  const step = histogram(parseMetrics(lines.join("\n")), "step");
  assert.deepEqual(step, { bounds: [1, Infinity], cumulative: [3, 7], count: 7, sum: 4 });
});

test("a quantile lies in the bucket of the value that it stands for", () => {
  const bounds = [0.01, 0.02, 0.05, 0.1, 0.5, 1, Infinity];
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 200; round += 1) {
    const values = Array.from({ length: 1 + Math.floor(random() * 50) }, () => random() ** 3).sort((a, b) => a - b);
    const cumulative = bounds.map((bound) => values.filter((value) => value <= bound).length);
    for (const share of [0.01, 0.5, 0.9, 0.99, 1]) {
      const true_value = values[Math.ceil(share * values.length) - 1];
      const bucket = bounds.findIndex((bound) => true_value <= bound);
      const found = quantile({ bounds, cumulative }, share);
      const lower = bounds[bucket - 1] ?? 0;
      assert.ok(found >= lower && found <= bounds[bucket], `${found} outside ${lower} to ${bounds[bucket]}`);
    }
  }
});

test("an empty histogram has no quantiles", () => {
  const empty = histogram(parseMetrics(""), "x");
  assert.ok(Number.isNaN(quantile(empty, 0.5)));
  assert.ok(Number.isNaN(mean(since(empty, empty))));
});

const histogramOf = (count) => ({ bounds: [1, Infinity], cumulative: [count, count], count, sum: count / 2 });

function reading(tokens) {
  const keys = ["firstToken", "interToken", "batchTokens", "batchSequences", "request"];
  const histograms = Object.fromEntries(keys.map((key) => [key, histogramOf(tokens)]));
  return { requests: tokens, generatedTokens: tokens, promptTokens: 0, ...histograms };
}

test("rates are of the last seconds, growth and latencies of the last minute", () => {
  const history = new History();
  for (let second = 0; second <= 100; second += 1) history.push(second, reading(10 * second));
  assert.equal(history.latest.generatedRate, 10);
  assert.equal(history.growth("generatedTokens"), 600);
  const { count, mean, p50 } = history.latency("request");
  assert.deepEqual([count, mean, p50], [600, 0.5, 0.5]);
});

test("what is too old for the charts is forgotten, and a restart begins anew", () => {
  const history = new History();
  for (let second = 0; second <= 500; second += 1) history.push(second, reading(second));
  assert.equal(history.shown.length, 121);
  history.push(501, reading(3));
  assert.equal(history.shown.length, 1);
  assert.equal(history.growth("generatedTokens"), 0);
});
