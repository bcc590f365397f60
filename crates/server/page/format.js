// Numbers as people read them. All functions are pure.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDecimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const padded = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });

/** What stands where there is no value yet. */
export const NOTHING = "–";

const known = (value) => Number.isFinite(value);

function digits(value, format) {
  if (value === 0) return "0";
  return (Math.abs(value) >= 100 ? whole : format).format(value);
}

/** A number of things: `12,345`. */
export function count(value) {
  return known(value) ? whole.format(value) : NOTHING;
}

/** A measured number without a unit: `0.42`, `85.3`, `1,235`. */
export function measured(value) {
  return known(value) ? digits(value, short) : NOTHING;
}

/** Tokens in each second: `85.3 tok/s`. */
export function tokenRate(value) {
  return known(value) ? `${digits(value, padded)} tok/s` : NOTHING;
}

/** Seconds in the unit that suits them: `0.800 ms`, `45.0 ms`, `1.23 s`, `2 min 5 s`. */
export function duration(seconds) {
  return inUnit(seconds, padded);
}

/** A round duration, as on an axis: `45 ms`. */
export function roundDuration(seconds) {
  return inUnit(seconds, short);
}

function inUnit(seconds, format) {
  if (!known(seconds)) return NOTHING;
  if (seconds < 0.9995) return `${digits(seconds * 1000, format)} ms`;
  if (seconds < 59.95) return `${digits(seconds, format)} s`;
  const rounded = Math.round(seconds);
  return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
}

/** A share from 0 to 1: `12.5 %`. */
export function percent(share) {
  return known(share) ? `${oneDecimal.format(share * 100)} %` : NOTHING;
}
