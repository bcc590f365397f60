// Requests to the server that this page came from.

import { events } from "./sse.js";

const KEY = "bantam-api-key";

let askForKey = async () => null;

/** Sets what asks a person for the key; it is given whether a key was refused before. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** A refusal or failure, in words for people. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let asking = null;

// One dialog, however many requests were refused.
function newKey(refused) {
  asking ??= askForKey(refused).finally(() => (asking = null));
  return asking;
}

/**
 * Sends a request with the key, if there is one.
 *
 * @param {string} path relative to the page, so that a proxy may put the server under a prefix
 * @param {{body?: object, signal?: AbortSignal, ask?: boolean}} options `ask`: on a 401, ask for a
 *   key and try again
 * @returns {Promise<Response>} a successful response
 * @throws {ApiError}
 */
export async function send(path, { body, signal, ask = false } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await attempt(path, { body, signal, key });
    if (response.ok) return response;
    if (response.status === 401 && ask) {
      const given = await newKey(key !== null);
      if (given !== null) {
        sessionStorage.setItem(KEY, given);
        continue;
      }
    }
    throw new ApiError(await words(response), response.status);
  }
}

async function attempt(path, { body, signal, key }) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const init = { headers, signal, cache: "no-store" };
  if (body) Object.assign(init, { method: "POST", body: JSON.stringify(body) });
  try {
    return await fetch(new URL(path, document.baseURI), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
}

async function words(response) {
  const text = await response.text();
  const retry = response.headers.get("Retry-After");
  const wait = retry ? ` Try again in ${retry} s.` : "";
  return `${errorMessage(text) ?? (text.trim() || `The server answered ${response.status}.`)}${wait}`;
}

/** What an error of the API or a report of `/health` says, if the text is one. */
function errorMessage(text) {
  try {
    const { error, models } = JSON.parse(text);
    if (!models) return error?.message;
    const unwell = models.filter(({ status }) => status !== "ready");
    return unwell.map(({ name, status, reason }) => `${name}: ${reason ?? status}`).join("; ");
  } catch {
    return undefined;
  }
}

/** The names of the models that the server has; `ask` as for `send`. */
export async function models(ask) {
  const { data } = await (await send("v1/models", { ask })).json();
  return data.map(({ id }) => id);
}

/**
 * Streams one answer.
 *
 * @param {object} request as OpenAI's chat completions
 * @param {AbortSignal} signal ends it, on the server too
 * @yields {object} chunks as OpenAI's; the last has `usage`
 */
export async function* chat(request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await send("v1/chat/completions", { body, signal, ask: true });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message ?? "The answer failed.");
      yield chunk;
    }
  } catch (error) {
    if (error instanceof TypeError) throw new ApiError("The connection broke.");
    throw error;
  }
  throw new ApiError("The connection ended before the answer did.");
}
