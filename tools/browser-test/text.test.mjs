import assert from "node:assert/strict";
import { test } from "node:test";

import { niceCeiling } from "../../crates/server/page/chart.js";
import { count, duration, percent, roundDuration, tokenRate } from "../../crates/server/page/format.js";
import { EventParser } from "../../crates/server/page/sse.js";

test("numbers have units and few digits", () => {
  const cases = [
    [count(12345), "12,345"],
    [count(NaN), "–"],
    [tokenRate(85.34), "85.3 tok/s"],
    [tokenRate(1234.5), "1,235 tok/s"],
    [duration(0.0008), "0.800 ms"],
    [duration(0.045), "45.0 ms"],
    [roundDuration(0.045), "45 ms"],
    [duration(1.234), "1.23 s"],
    [duration(59.96), "1 min 0 s"],
    [duration(125), "2 min 5 s"],
    [duration(undefined), "–"],
    [percent(0.1257), "12.6 %"],
    [percent(0 / 0), "–"],
  ];
  for (const [shown, wanted] of cases) assert.equal(shown, wanted);
});

test("an axis ends at a round number that is not below its values", () => {
  for (const [value, wanted] of [[0, 1], [0.7, 0.8], [1, 1], [1.1, 2], [3, 4], [41, 60], [100, 100], [0.035, 0.04]]) {
    assert.ok(Math.abs(niceCeiling(value) - wanted) < 1e-9, `${value} to ${niceCeiling(value)}`);
  }
});

test("events are the same however the stream is cut", () => {
  const stream = ": comment\r\ndata: {\"a\":1}\r\n\r\ndata:two\ndata: lines\n\nevent: x\ndata: é\n\ndata: [DONE]\n\ndata: cut";
  const wanted = ['{"a":1}', "two\nlines", "é", "[DONE]"];
  for (let size = 1; size <= stream.length; size += 1) {
    const parser = new EventParser();
    const pieces = stream.match(new RegExp(`[^]{1,${size}}`, "g"));
    assert.deepEqual(pieces.flatMap((piece) => parser.push(piece)), wanted, `pieces of ${size}`);
  }
});
