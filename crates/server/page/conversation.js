// What is kept in the tab across a reload: the messages and the settings.

import { byId } from "./dom.js";

const MESSAGES = "bantam-messages";
const SETTINGS = "bantam-settings";
const NUMBERS = ["temperature", "top_p", "max_tokens"];

function stored(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function store(name, value) {
  try {
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // A full or forbidden store costs the memory across a reload, nothing else.
  }
}

/** The messages: `{role, content}`, with `note` and `error` as lines below an answer. */
export const loadMessages = () => stored(MESSAGES, []);

/** Keeps the messages. */
export const saveMessages = (messages) => store(MESSAGES, messages);

/** Fills the settings' fields and keeps what is put into them. */
export function bindSettings() {
  const fields = ["system", ...NUMBERS].map(byId);
  const values = stored(SETTINGS, {});
  for (const field of fields) {
    field.value = values[field.id] ?? "";
    field.addEventListener("input", () => {
      store(SETTINGS, Object.fromEntries(fields.map(({ id, value }) => [id, value])));
    });
  }
}

/** The first field with a value that cannot be sent, if any. */
export const invalidSetting = () => NUMBERS.map(byId).find((field) => !field.checkValidity());

/** The request for the next answer, but for its model. Empty fields are left out: the server has its own defaults. */
export function chatRequest(messages) {
  const system = byId("system").value.trim();
  const request = {
    messages: [
      ...(system ? [{ role: "system", content: system }] : []),
      // An answer that failed before its first word is no part of what was said.
      ...messages.filter(({ content }) => content).map(({ role, content }) => ({ role, content })),
    ],
  };
  for (const name of NUMBERS) {
    if (byId(name).value !== "") request[name] = byId(name).valueAsNumber;
  }
  return request;
}
