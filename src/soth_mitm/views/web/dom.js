// Elements of the page. Text goes in as text nodes only, so that nothing from the wire can become markup.

export const $ = id => document.getElementById(id);

/** Make an element. `props`: attributes, `class`, `style` as an object of properties, and `onNAME` listeners. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "style") for (const [property, each] of Object.entries(value)) element.style.setProperty(property, each);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(Infinity)) if (child !== false && child !== null && child !== undefined) element.append(child);
}

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

// of one JSON value at once; a longer one is shown in its first part
const MOST_NODES = 4000;

/** Show a JSON value, indented and coloured; `more` says where it was cut. */
export function json(value) {
  const parts = [], left = { nodes: MOST_NODES };
  put(value, "", parts, left, 0);
  if (left.nodes <= 0) parts.push(h("span", { class: "j-p" }, "\n… the rest is in the body; copy or download it"));
  return parts;
}

function put(value, indent, parts, left, depth) {
  left.nodes -= 1;
  if (left.nodes <= 0) {
    if (left.nodes === 0) parts.push("…");
    return;
  }
  if (value === null || typeof value !== "object" || depth > 60) {
    const text = JSON.stringify(value);
    parts.push(typeof value === "string" ? h("span", { class: "j-s" }, text) : h("span", { class: "j-n" }, text));
    return;
  }
  const isList = Array.isArray(value), names = isList ? null : Object.keys(value), count = isList ? value.length : names.length;
  const inner = indent + "  ";
  if (count === 0) {
    parts.push(h("span", { class: "j-p" }, isList ? "[]" : "{}"));
    return;
  }
  parts.push(h("span", { class: "j-p" }, isList ? "[" : "{"), "\n");
  for (let i = 0; i < count && left.nodes > 0; i++) {
    parts.push(inner);
    if (!isList) parts.push(h("span", { class: "j-k" }, JSON.stringify(names[i])), h("span", { class: "j-p" }, ": "));
    put(isList ? value[i] : value[names[i]], inner, parts, left, depth + 1);
    parts.push(i < count - 1 ? h("span", { class: "j-p" }, ",") : "", "\n");
  }
  parts.push(indent, h("span", { class: "j-p" }, isList ? "]" : "}"));
}

/** Return what a text is as JSON, undefined if it is none. */
export function parsed(text) {
  const first = text.trimStart()[0];
  if (first !== "{" && first !== "[") return undefined;
  try { return JSON.parse(text); } catch { return undefined; }
}

/** Show a text as what it is: JSON indented, anything else as it is. */
export function readable(text) {
  const value = parsed(text);
  return h("pre", {}, value === undefined ? visible(text) : json(value));
}

/** Make control characters visible: as symbols, but for line ends and tabs. */
export function visible(text) {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, c => c === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u202a-\u202e\u2066-\u2069\u200e\u200f]/g, c => `\\u${c.charCodeAt(0).toString(16)}`);
}

let hide = 0;

/** Say something for a moment. */
export function say(text) {
  const toast = $("toast");
  toast.textContent = text;
  toast.classList.add("on");
  clearTimeout(hide);
  hide = setTimeout(() => toast.classList.remove("on"), 4000);
}

/** Put text on the clipboard, or show it where that is not allowed. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    const box = $("text"), area = h("textarea", { readonly: true });
    area.value = text;
    box.replaceChildren(h("h2", {}, `${what}: copy it from here`), area);
    box.showModal();
    area.select();
  }
}

/** Save bytes as a file. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob), link = h("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
