// One answer while it arrives, and how fast it came.

import { chat } from "./api.js";
import { count, duration, tokenRate } from "./format.js";

const now = () => performance.now() / 1000;

/**
 * Asks for an answer.
 *
 * @param {object} request as OpenAI's chat completions
 * @param {AbortSignal} signal
 * @param {(text: string, speed: string) => void} onText called with the text so far
 * @returns {Promise<string>} a line about the finished answer
 */
export async function receive(request, signal, onText) {
  const started = now();
  const answer = { text: "", pieces: 0, firstAt: NaN, lastAt: NaN, usage: null, reason: null };
  for await (const chunk of chat(request, signal)) {
    const choice = chunk.choices?.[0];
    answer.usage = chunk.usage ?? answer.usage;
    answer.reason = choice?.finish_reason ?? answer.reason;
    if (!choice?.delta?.content) continue;
    answer.lastAt = now();
    if (!answer.pieces) answer.firstAt = answer.lastAt;
    answer.pieces += 1;
    answer.text += choice.delta.content;
    onText(answer.text, liveSpeed(answer));
  }
  return summary(answer, started);
}

/** While text arrives its pieces stand for tokens; the server says the true number at the end. */
function liveSpeed({ pieces, firstAt, lastAt }) {
  const seconds = lastAt - firstAt;
  return seconds > 0.2 ? `about ${tokenRate((pieces - 1) / seconds)}` : "";
}

function summary({ usage, reason, firstAt, lastAt }, started) {
  const parts = [];
  const tokens = usage?.completion_tokens;
  const seconds = lastAt - firstAt;
  if (tokens) parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
  if (tokens > 1 && seconds > 0) parts.push(tokenRate((tokens - 1) / seconds));
  if (firstAt) parts.push(`first token after ${duration(firstAt - started)}`);
  if (usage) parts.push(prompt(usage));
  if (reason === "length") parts.push("cut at the token limit");
  return parts.join(" · ");
}

function prompt({ prompt_tokens: tokens, prompt_tokens_details: details }) {
  const cached = details?.cached_tokens;
  return `prompt ${count(tokens)}${cached ? `, ${count(cached)} of it cached` : ""}`;
}
