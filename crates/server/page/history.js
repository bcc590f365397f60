// The last minutes of one engine. Pure.

import { mean, quantile, since } from "./metrics.js";

/** Seconds that charts show. */
export const SHOWN = 120;
/** Seconds over which latencies are collected. */
export const LATENCY_WINDOW = 60;
/** Seconds over which rates are averaged: short enough to be live, long enough not to jump. */
export const RATE_WINDOW = 3;

/** Readings of one engine over time, oldest first. */
export class History {
  #readings = [];

  /**
   * Adds a reading.
   *
   * @param {number} time in seconds, larger than the last
   * @param {object} reading what `readEngine` returns
   */
  push(time, reading) {
    // Counters only grow: a smaller one means that the server started anew.
    if (reading.generatedTokens < this.latest?.generatedTokens || reading.requests < this.latest?.requests) {
      this.#readings = [];
    }
    const entry = { time, ...reading };
    this.#readings.push(entry);
    this.#readings = this.#readings.filter((old) => old.time >= time - SHOWN - LATENCY_WINDOW);
    Object.assign(entry, this.#derived());
  }

  /** The last reading with its derived values, or undefined. */
  get latest() {
    return this.#readings.at(-1);
  }

  /** What charts show. */
  get shown() {
    return this.#readings.filter(({ time }) => time >= this.latest.time - SHOWN);
  }

  #derived() {
    const { latest } = this;
    const recent = this.#ago(RATE_WINDOW);
    const perStep = (key) => mean(since(latest[key], recent[key]));
    const rate = (key) => (latest[key] - recent[key]) / (latest.time - recent.time);
    return {
      generatedRate: rate("generatedTokens"),
      promptRate: rate("promptTokens"),
      stepTokens: perStep("batchTokens"),
      stepSequences: perStep("batchSequences"),
      firstTokenTimes: this.latency("firstToken"),
      interTokenTimes: this.latency("interToken"),
    };
  }

  /** The newest reading that is at least so old, else the oldest. */
  #ago(seconds) {
    const time = this.latest.time - seconds + 0.25; // polls are not exact to the millisecond
    return this.#readings.findLast((old) => old.time <= time) ?? this.#readings[0];
  }

  /** How much a counter grew within the latency window. */
  growth(key) {
    return this.latest[key] - this.#ago(LATENCY_WINDOW)[key];
  }

  /** The distribution of a histogram's values within the latency window. */
  latency(key) {
    const window = since(this.latest[key], this.#ago(LATENCY_WINDOW)[key]);
    return {
      count: window.count,
      mean: mean(window),
      p50: quantile(window, 0.5),
      p90: quantile(window, 0.9),
      p99: quantile(window, 0.99),
    };
  }
}
