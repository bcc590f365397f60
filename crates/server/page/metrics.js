// The Prometheus text format, and what can be said from it. All functions are pure.

/**
 * Reads the text that `/metrics` answers.
 *
 * @param {string} text
 * @returns {Map<string, {labels: Object<string, string>, value: number}[]>} samples by metric name
 */
export function parseMetrics(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const sample = parseLine(line.trim());
    if (!sample) continue;
    const { name, labels, value } = sample;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value });
  }
  return samples;
}

// name{labels} value [timestamp]
const LINE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?\s+(\S+)(?:\s+-?\d+)?$/;
const LABEL = /([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"/g;

function parseLine(line) {
  const match = line.startsWith("#") ? null : LINE.exec(line);
  if (!match) return null;
  const labels = {};
  for (const [, key, value] of (match[2] ?? "").matchAll(LABEL)) labels[key] = unescapeLabel(value);
  return { name: match[1], labels, value: parseValue(match[3]) };
}

function unescapeLabel(value) {
  return value.replace(/\\(.)/g, (_, character) => (character === "n" ? "\n" : character));
}

function parseValue(text) {
  const infinite = /^([+-]?)Inf$/.exec(text);
  if (infinite) return infinite[1] === "-" ? -Infinity : Infinity;
  return Number(text);
}

const matches = (labels, wanted) =>
  Object.entries(wanted).every(([key, value]) => labels[key] === value);

/** The values of all labels `key`, each once, in order of appearance. */
export function labelValues(samples, key) {
  const values = [...samples.values()].flat().map(({ labels }) => labels[key]);
  return [...new Set(values.filter((value) => value !== undefined))];
}

/** The sum of the samples of a name that have the wanted labels; NaN when there is none. */
export function value(samples, name, wanted = {}) {
  const found = (samples.get(name) ?? []).filter(({ labels }) => matches(labels, wanted));
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : NaN;
}

/**
 * The sum of the histograms of a name that have the wanted labels.
 *
 * @returns {{bounds: number[], cumulative: number[], count: number, sum: number}}
 *   ascending upper bounds, the last infinite, and the number of values up to each
 */
export function histogram(samples, name, wanted = {}) {
  const buckets = new Map();
  for (const { labels, value } of samples.get(`${name}_bucket`) ?? []) {
    if (!matches(labels, wanted)) continue;
    const bound = parseValue(labels.le);
    buckets.set(bound, (buckets.get(bound) ?? 0) + value);
  }
  const bounds = [...buckets.keys()].sort((a, b) => a - b);
  return {
    bounds,
    cumulative: bounds.map((bound) => buckets.get(bound)),
    count: value(samples, `${name}_count`, wanted),
    sum: value(samples, `${name}_sum`, wanted),
  };
}

/** The values that came between two readings of one histogram. */
export function since(now, before) {
  return {
    bounds: now.bounds,
    cumulative: now.cumulative.map((value, i) => value - (before.cumulative[i] ?? 0)),
    count: now.count - before.count,
    sum: now.sum - before.sum,
  };
}

/** The mean of a histogram; NaN when it is empty. */
export function mean({ count, sum }) {
  return count > 0 ? sum / count : NaN;
}

/**
 * The value that a share of a histogram's values does not exceed, found by straight lines inside
 * the buckets. NaN when the histogram is empty; the largest finite bound when the value lies past it.
 *
 * @param {number} share from 0 to 1: 0.5 is the median
 */
export function quantile({ bounds, cumulative }, share) {
  const total = cumulative.at(-1) ?? 0;
  if (!(total > 0)) return NaN;
  const rank = share * total;
  const bucket = cumulative.findIndex((value) => value > 0 && value >= rank);
  const lower = bucket > 0 ? bounds[bucket - 1] : 0;
  if (!Number.isFinite(bounds[bucket])) return lower;
  const below = bucket > 0 ? cumulative[bucket - 1] : 0;
  const part = (rank - below) / (cumulative[bucket] - below);
  return lower + part * (bounds[bucket] - lower);
}
