// What every suite of a Node.js client shares; the same form of results as suite.py.

import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

export const [address, model, key] = process.argv.slice(2);
export const openaiAddress = `${address}/v1`;
export const QUESTION = "How is the weather in Paris?";
export const RIVERS = "Name three rivers.";

const checks = [];

/** Declares a check of a feature: text, stream, tools, structured, usage, errors or cancel. */
export function check(feature, name, body) {
  checks.push({ group: feature, name, body });
}

/** Waits, with an end, until the server works on nothing. */
export async function waitUntilIdle() {
  for (const end = Date.now() + 20_000; ; ) {
    const answer = await fetch(`${address}/metrics`, { headers: { Authorization: `Bearer ${key}` } });
    const lines = (await answer.text()).split("\n");
    const counts = lines.filter((line) => /^bantam_requests_(running|waiting)\{/.test(line));
    if (counts.every((line) => line.endsWith(" 0"))) return;
    assert(Date.now() < end, `requests still run: ${counts}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Runs all checks and prints JSON. */
export async function main(...packages) {
  const results = [];
  for (const { group, name, body } of checks) {
    const begin = Date.now();
    let problem = null;
    try {
      await body();
    } catch (error) {
      problem = `${error.name}: ${error.message}`.slice(0, 500);
    }
    results.push({ group, name, seconds: (Date.now() - begin) / 1000, problem });
  }
  const version = (name) =>
    JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, root))).version;
  const versions = Object.fromEntries(packages.map((name) => [name, version(name)]));
  const failed = results.filter((result) => result.problem).length;
  console.log(JSON.stringify({ versions, failed, checks: results }, null, 2));
  process.exit(failed ? 1 : 0);
}

const root = new URL("./", import.meta.url);
