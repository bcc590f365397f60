// Building nodes. Text only ever becomes text nodes: nothing a model says is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element with an id that the page is known to have. */
export const byId = (id) => document.getElementById(id);

/** An HTML element with properties, `data-` values and children. */
export function element(tag, { data, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}

/** An SVG element with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Sets a text only where it differs, so that a screen reader and a selection are left in peace. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Puts a text on the clipboard, also where the page was not loaded from a secure origin. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element("textarea", { value: text, className: "visually-hidden" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A small button that copies what `text()` gives and says so for a moment. */
export function copyButton(text, label = "Copy") {
  const button = element("button", { type: "button", className: "quiet small", textContent: label });
  button.addEventListener("click", async () => {
    const said = await copy(text()).then(() => "Copied", () => "Not allowed");
    button.textContent = said;
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
