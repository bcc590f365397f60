// What one engine says in `/metrics`, by the names that the page uses. Pure.

import { histogram, value } from "./metrics.js";

// Each is a metric's name, with the labels that choose among its samples.
const NUMBERS = {
  requests: ["bantam_requests_total"],
  finishedStop: ["bantam_requests_finished_total", { reason: "stop" }],
  finishedLength: ["bantam_requests_finished_total", { reason: "length" }],
  cancelled: ["bantam_requests_cancelled_total"],
  failed: ["bantam_requests_failed_total"],
  rejected: ["bantam_requests_rejected_total"],
  promptTokens: ["bantam_prompt_tokens_total"],
  cachedTokens: ["bantam_cached_tokens_total"],
  generatedTokens: ["bantam_generated_tokens_total"],
  preemptions: ["bantam_preemptions_total"],
  evictions: ["bantam_evictions_total"],
  failedSteps: ["bantam_failed_steps_total"],
  waiting: ["bantam_requests_waiting"],
  running: ["bantam_requests_running"],
  blocksFree: ["bantam_cache_blocks", { state: "free" }],
  blocksIdle: ["bantam_cache_blocks", { state: "idle" }],
  blocksReferenced: ["bantam_cache_blocks", { state: "referenced" }],
};

const HISTOGRAMS = {
  queue: "bantam_queue_seconds",
  firstToken: "bantam_first_token_seconds",
  interToken: "bantam_inter_token_seconds",
  request: "bantam_request_seconds",
  step: "bantam_step_seconds",
  batchTokens: "bantam_batch_tokens",
  batchSequences: "bantam_batch_sequences",
};

/**
 * The numbers and histograms of a model's engine.
 *
 * @param {Map} samples what `parseMetrics` returns
 * @param {string} model as in `/v1/models`
 */
export function readEngine(samples, model) {
  const reading = {};
  for (const [key, [name, labels]] of Object.entries(NUMBERS)) {
    reading[key] = value(samples, name, { model, ...labels });
  }
  for (const [key, name] of Object.entries(HISTOGRAMS)) {
    reading[key] = histogram(samples, name, { model });
  }
  return reading;
}
