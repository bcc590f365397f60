// The page: views, the model, the key, and whether the server is well.

import { ApiError, models, onKeyNeeded, send } from "./api.js";
import { startChat } from "./chat.js";
import { startDashboard } from "./dashboard.js";
import { byId, element, setText } from "./dom.js";

const HEALTH_PERIOD_MS = 5000;

const picker = byId("model");
const chosenModel = () => picker.value;

/** Shows the view that the address names. */
function showView() {
  const wanted = location.hash === "#dashboard" ? "dashboard" : "chat";
  for (const view of ["chat", "dashboard"]) byId(view).hidden = view !== wanted;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = wanted === "chat" ? "Bantam" : "Bantam dashboard";
}

/** Asks for the API key; null when the person would rather not. */
function askForKey(refused) {
  const dialog = byId("key-dialog");
  if (refused) setText(byId("key-reason"), "The server did not accept that key. Please check it.");
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const done = () => resolve(dialog.returnValue === "use" ? byId("key").value : null);
    dialog.addEventListener("close", done, { once: true });
  });
}

function setStatus(state, text, reason) {
  byId("status").dataset.state = state;
  byId("status").title = reason;
  setText(byId("status").firstElementChild, text);
}

async function fillModels(ask) {
  const names = await models(ask);
  picker.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  picker.disabled = names.length === 0;
}

/** The chosen model, got from the server if that has not worked yet. */
async function someModel() {
  if (picker.disabled) await fillModels(true);
  return chosenModel();
}

/** Says how the server is, and gets the models as soon as it answers. */
async function checkHealth(ask) {
  try {
    if (picker.disabled) await fillModels(ask);
    await send("health");
    setStatus("good", "Ready", "");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const states = { 0: "Offline", 401: "Needs a key" };
    setStatus("bad", states[error.status] ?? "Unwell", error.message);
  }
}

async function watchHealth() {
  await checkHealth(true);
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, HEALTH_PERIOD_MS));
    if (!document.hidden) await checkHealth(false);
  }
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("key-dialog").close("use");
});
byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
onKeyNeeded(askForKey);

addEventListener("hashchange", showView);
showView();
startChat(someModel);
picker.addEventListener("change", startDashboard(chosenModel));
watchHealth();
