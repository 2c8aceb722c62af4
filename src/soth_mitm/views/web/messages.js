// The messages of a stream or a WebSocket, in groups of a kind or one by one, as they come.

import { h, parsed, readable, visible } from "/dom.js";
import { bytes, counted, n, took } from "/words.js";

// seconds without a message that are worth a line
const PAUSE = 1;
// rows that are shown at once
const MOST_ROWS = 1500;
const MOST_INSIDE = 200;

/** The text that a piece of a model's answer carries, wherever its format has it; null if it has none. */
function carried(value) {
  const choice = Array.isArray(value.choices) ? value.choices[0] : null, delta = value.delta;
  const candidate = Array.isArray(value.candidates) ? value.candidates[0] : null;
  for (const text of [
    typeof delta === "string" ? delta : null, delta && delta.text, delta && delta.thinking, delta && delta.partial_json,
    choice && choice.delta && (choice.delta.content || choice.delta.reasoning_content || choice.delta.reasoning), choice && choice.text,
    candidate && candidate.content && Array.isArray(candidate.content.parts) ? candidate.content.parts.map(part => part.text || "").join("") : null,
    value.message && typeof value.message.content === "string" ? value.message.content : null, value.response,
  ]) if (typeof text === "string" && text) return text;
  return null;
}

/** What kind a message is, more closely than its stream says. */
function kindOf(message) {
  const value = message.is_binary ? undefined : message.value === undefined ? message.value = parsed(message.text) ?? null : message.value;
  if (!value) return message.kind;
  const inner = value.delta && typeof value.delta.type === "string" ? value.delta.type : null;
  return inner || (message.kind === "data" || message.kind === "text" || message.kind === "line" || message.kind === "message" ? typeof value.type === "string" ? value.type : typeof value.object === "string" ? value.object : message.kind : message.kind);
}

/** Say in one line what an object holds: its leaves, without what only names its kind. */
function leaves(value, found = []) {
  for (const [name, each] of Object.entries(value)) {
    if (found.length > 12) break;
    if (each === null || each === "" || name === "type" || name === "object") continue;
    if (typeof each === "object") leaves(each, found);
    else found.push(Array.isArray(value) ? String(each) : `${name} ${each}`);
  }
  return found;
}

function preview(group) {
  const texts = [];
  let length = 0;
  for (const message of group.messages) {
    const text = message.value ? carried(message.value) : null;
    if (text === null) continue;
    texts.push(text);
    length += text.length;
    if (length > 300) break;
  }
  const value = group.messages[0].value, said = texts.length ? texts.join("") : value ? leaves(value).join(" · ") : group.messages[0].text;
  return visible(said.slice(0, 300).replace(/\s+/g, " "));
}

export class MessageView {
  constructor(isSocket) {
    this.isSocket = isSocket;
    this.messages = [];
    this.groups = [];
    this.mode = isSocket ? "both" : "grouped";
    this.missed = 0;
    this.total = 0;
    this.hidden = 0;
    this.title = h("span", {});
    this.rows = h("div", {});
    this.end = h("div", {});
    this.older = h("div", {});
    const modes = isSocket ? [["both", "Both"], ["up", "↑ Sent"], ["down", "↓ Received"]] : [["grouped", "Grouped"], ["each", "Each event"]];
    this.buttons = modes.map(([mode, name]) => h("button", { type: "button", "aria-pressed": String(mode === this.mode), onclick: () => this.set(mode) }, name));
    this.box = h("section", {}, h("h2", {}, this.title, h("div", { class: "seg", role: "group", "aria-label": "Which messages" }, this.buttons.map((button, i) => { button.dataset.mode = modes[i][0]; return button; }))), this.older, this.rows, this.end);
  }

  set(mode) {
    this.mode = mode;
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    const all = this.messages;
    this.messages = [];
    this.groups = [];
    this.rows.replaceChildren();
    this.hidden = 0;
    this.take(all);
    this.head();
  }

  /** Take messages that came after those before. */
  add(found) {
    this.missed = found.missed;
    this.total = found.total;
    this.take(found.messages);
    this.head();
  }

  head() {
    const kinds = new Set(this.messages.map(kindOf)).size, sent = this.messages.filter(message => !message.to_client).length;
    const rest = this.total > this.messages.length ? ` · ${n(this.total - this.messages.length)} more are being read` : "";
    this.title.textContent = (this.isSocket ? `${counted(this.total, "message")} · ${n(sent)} sent · ${n(this.messages.length - sent)} received` : `${counted(this.total, "event")}, ${counted(kinds, "kind")}`) + rest;
    this.older.replaceChildren(...[
      this.missed ? h("div", { class: "why amber" }, h("p", {}, `${counted(this.missed, "message")} came faster than they could be kept, and are not here.`)) : "",
      this.hidden ? h("button", { class: "more", type: "button", onclick: () => this.showOlder() }, `show ${counted(this.hidden, "earlier row")}`) : ""].filter(Boolean));
  }

  showOlder() {
    const from = Math.max(0, this.hidden - MOST_ROWS), nodes = [];
    for (let i = from; i < this.hidden; i++) nodes.push(...this.nodesOf(this.groups[i], this.groups[i - 1]));
    this.rows.prepend(...nodes);
    this.hidden = from;
    this.head();
  }

  take(messages) {
    const isGrouped = this.mode === "grouped" || this.isSocket, fresh = [];
    for (const message of messages) {
      this.messages.push(message);
      if (this.mode === "up" && message.to_client || this.mode === "down" && !message.to_client) continue;
      const kind = kindOf(message), last = this.groups[this.groups.length - 1];
      if (isGrouped && last && last.kind === kind && last.toClient === message.to_client && kind !== "close" && message.at - last.until < PAUSE && (!this.isSocket || kind !== "text")) {
        last.messages.push(message);
        last.size += message.size;
        last.until = message.at;
        last.isStale = true;
      } else {
        const group = { kind, toClient: message.to_client, messages: [message], size: message.size, until: message.at, row: null, inside: null };
        this.groups.push(group);
        fresh.push(group);
      }
    }
    for (const group of this.groups.slice(-fresh.length - 1)) if (group.isStale && group.row) { this.write(group); group.isStale = false; }
    const start = this.groups.length - fresh.length, skip = Math.max(0, fresh.length - MOST_ROWS), nodes = [];
    if (skip) { this.rows.replaceChildren(); this.hidden = start + skip; }
    for (let i = start + skip; i < this.groups.length; i++) nodes.push(...this.nodesOf(this.groups[i], this.groups[i - 1]));
    this.rows.append(...nodes);
  }

  nodesOf(group, before) {
    const nodes = [], first = group.messages[0], silent = before ? first.at - before.until : 0;
    if (silent >= PAUSE) nodes.push(h("div", { class: "gap num" }, `${took(silent)} without ${this.isSocket ? "a message" : "an event"}`));
    group.time = h("span", { class: "t" }, `+${took(first.at)}`);
    group.text = h("span", { class: "x" });
    group.note = h("span", { class: "z" });
    group.row = h("button", { class: "ev num", type: "button", "aria-expanded": "false", onclick: () => this.toggle(group) }, group.time, h("span", { class: group.toClient ? "d down" : "d up", title: group.toClient ? "to the client" : "from the client" }, group.toClient ? "↓" : "↑"), group.text, group.note);
    this.write(group);
    nodes.push(group.row);
    return nodes;
  }

  write(group) {
    const count = group.messages.length;
    group.text.replaceChildren(h("b", {}, visible(group.kind)), preview(group));
    group.note.textContent = (count > 1 ? `× ${n(count)} · ` : "") + bytes(group.size);
  }

  toggle(group) {
    const isOpen = group.inside === null;
    group.row.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) { group.inside.remove(); group.inside = null; return; }
    const content = message => [readable(message.text), message.is_cut ? h("p", { class: "wait" }, `The beginning of ${bytes(message.size)}.`) : null];
    if (group.messages.length === 1) group.inside = h("div", { class: "evx" }, content(group.messages[0]));
    else {
      const joined = group.messages.every(message => message.value && carried(message.value) !== null) ? group.messages.map(message => carried(message.value)).join("") : null;
      group.inside = h("div", { class: "evx" }, joined === null ? null : h("p", { class: "prose" }, visible(joined)),
        group.messages.slice(0, MOST_INSIDE).map(message => h("details", { class: "think" }, h("summary", {}, `+${took(message.at)} · ${bytes(message.size)}`), content(message))),
        group.messages.length > MOST_INSIDE ? h("p", { class: "wait" }, `The first ${MOST_INSIDE} of ${n(group.messages.length)}; “Each event” shows all.`) : null);
    }
    group.row.after(group.inside);
  }

  /** Say at the end how the stream stands. */
  close(line, isLive) {
    const seconds = Date.now() / 1000 - line.started;
    if (!line.is_open) this.end.replaceChildren(...this.total === 0 ? [h("p", { class: "wait" }, "No message was kept.")] : []);
    else this.end.replaceChildren(h("div", { class: "ev num" }, h("span", { class: "t" }, isLive ? "now" : ""), h("span", { class: "d" }, h("i", { class: "k live", style: { display: "inline-block" } })), h("span", { class: "x" }, h("b", {}, isLive ? `open for ${took(seconds)}` : "was open when the store was left")), ""));
  }
}
