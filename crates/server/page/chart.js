// A small line or area chart over the last minutes, drawn as SVG.

import { element, setText, svg } from "./dom.js";
import { NOTHING } from "./format.js";

const HEIGHT = 150;
const MARGIN = { top: 8, right: 8, bottom: 20, left: 62 };
// Polls come every second; a longer pause is shown as a gap.
const GAP_SECONDS = 3.5;

/** A round number not below a value, whose half is round too. */
export function niceCeiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

export class Chart {
  #svg = svg("svg", { role: "img", height: HEIGHT });
  #readout = element("span", { className: "when" });
  #values = [];
  #pointer = null;
  #drawn = null;

  /**
   * @param {object} options
   * @param {string} options.title
   * @param {{label: string, value: (point: object) => number}[]} options.series
   * @param {(value: number) => string} options.format
   * @param {(value: number) => string} [options.axis] the format of the axis, where it differs
   * @param {boolean} [options.stacked] areas on top of each other; their sum is the axis
   * @param {number} [options.least] the axis goes at least this far
   * @param {number} options.seconds that the chart covers
   */
  constructor(options) {
    this.options = { axis: options.format, least: 0, stacked: false, ...options };
    const legend = options.series.map(({ label }, i) => {
      const value = element("b");
      this.#values.push(value);
      return element("span", { className: `key series-${i}` }, `${label} `, value);
    });
    const caption = element("figcaption", {}, element("h2", {}, options.title), this.#readout);
    this.node = element(
      "figure",
      { className: "chart" },
      caption,
      element("div", { className: "legend" }, ...legend),
      this.#svg,
    );
    this.#svg.addEventListener("pointermove", ({ offsetX }) => this.#point(offsetX));
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(() => this.#redraw()).observe(this.node);
  }

  /** Draws points with `time` in seconds, oldest first; `now` is the right edge. */
  draw(points, now) {
    this.#drawn = { points, now };
    this.#redraw();
  }

  #point(x) {
    this.#pointer = x;
    this.#redraw();
  }

  #redraw() {
    const width = this.#svg.clientWidth;
    if (!this.#drawn || width === 0) return;
    const { points, now } = this.#drawn;
    const lines = this.#lines(points);
    const most = Math.max(this.options.least, ...lines.flat().filter(Number.isFinite));
    const top = this.options.stacked ? Math.max(most, 1) : niceCeiling(most);
    const scale = {
      width,
      x: (time) => width - MARGIN.right - ((now - time) / this.options.seconds) * this.#innerWidth(width),
      y: (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom),
    };
    const pointed = this.#pointed(points, scale);
    this.#svg.replaceChildren(
      ...(lines.flat().some(Number.isFinite) ? this.#axes(scale, top) : [this.#empty(width)]),
      ...lines.map((line, i) => this.#path(points, line, lines[i - 1], i, scale)).reverse(),
      ...(this.#pointer !== null && pointed ? [this.#cursor(pointed, scale)] : []),
    );
    this.#label(pointed, now);
  }

  #empty(width) {
    return svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing in these minutes");
  }

  #innerWidth(width) {
    return width - MARGIN.left - MARGIN.right;
  }

  /** The heights of each series, stacked or not. */
  #lines(points) {
    const lines = this.options.series.map(({ value }) => points.map(value));
    if (!this.options.stacked) return lines;
    return lines.map((_, i) =>
      points.map((_, p) => lines.slice(0, i + 1).reduce((sum, line) => sum + line[p], 0)),
    );
  }

  #axes({ x, y, width }, top) {
    const { seconds, axis } = this.options;
    const horizontal = [0, top / 2, top].flatMap((value) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      svg("text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, axis(value)),
    ]);
    const ticks = [
      [seconds, "start", `${seconds / 60} min ago`],
      [seconds / 2, "middle", `${seconds / 120} min ago`],
      [0, "end", "now"],
    ];
    const times = ticks.map(([ago, anchor, text]) =>
      svg("text", { x: x(this.#drawn.now - ago), y: HEIGHT - 4, "text-anchor": anchor }, text),
    );
    return [...horizontal, ...times];
  }

  #path(points, line, below, i, { x, y }) {
    const at = (p, values) => `${x(points[p].time).toFixed(1)} ${y(values?.[p] ?? 0).toFixed(1)}`;
    const runs = unbroken(points, line);
    const strokes = runs.map((run) => `M${run.map((p) => at(p, line)).join("L")}h0`);
    const group = svg("g", { class: `series-${i}` });
    if (this.options.stacked) {
      const areas = runs.map((run, r) => {
        const back = [...run].reverse().map((p) => at(p, below));
        return `${strokes[r]}L${back.join("L")}Z`;
      });
      group.append(svg("path", { class: "area", d: areas.join("") }));
    }
    group.append(svg("path", { class: "line", d: strokes.join("") }));
    return group;
  }

  #pointed(points, { x }) {
    if (this.#pointer === null) return points.at(-1);
    const distance = ({ time }) => Math.abs(x(time) - this.#pointer);
    return points.reduce((best, point) => (distance(point) < distance(best) ? point : best), points[0]);
  }

  #cursor({ time }, { x }) {
    const at = { x1: x(time), x2: x(time), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom };
    return svg("line", { class: "cursor", ...at });
  }

  #label(point, now) {
    const { title, series, format } = this.options;
    const texts = series.map(({ value }) => (point ? format(value(point)) : NOTHING));
    texts.forEach((text, i) => setText(this.#values[i], text));
    const ago = point && this.#pointer !== null ? Math.round(now - point.time) : 0;
    setText(this.#readout, ago ? `${ago} s ago` : "");
    const parts = series.map(({ label }, i) => `${label} ${texts[i]}`);
    this.#svg.setAttribute("aria-label", `${title}: ${parts.join(", ")}`);
  }
}

/** Runs of neighbouring points that have a value, as places. */
function unbroken(points, line) {
  const runs = [];
  line.forEach((value, p) => {
    if (!Number.isFinite(value)) return;
    const joins = runs.at(-1)?.at(-1) === p - 1 && points[p].time - points[p - 1].time < GAP_SECONDS;
    if (joins) runs.at(-1).push(p);
    else runs.push([p]);
  });
  return runs;
}
