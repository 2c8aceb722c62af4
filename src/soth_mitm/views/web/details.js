// The details of one flow, in tabs. What a tab shows is asked for when the tab is opened, and again as it grows.

import { Conversation } from "/conversation.js";
import { copy, h, icon, json, parsed, save, visible } from "/dom.js";
import { MessageView } from "/messages.js";
import { ask, blob } from "/session.js";
import { address, bytes, clock, mark, moment, n, pathOf, status, took } from "/words.js";

const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
// a flow that grows is asked for no more often than this
const GROW_MS = 300;

const MASKED = /masked(?: #[0-9a-f]+)? · [\d,.]+ (?:bytes|B)|^masked\b/;

/** Names and values; what was masked is marked. */
function pairs(list) {
  const value = text => MASKED.test(text) ? h("span", { class: "mask", title: "The value was masked before it was kept. Equal tags mean equal values." }, visible(text)) : visible(text);
  return h("dl", { class: "hd" }, list.map(([name, text]) => [h("dt", {}, visible(name)), h("dd", {}, value(text))]));
}

function section(title, aside, ...content) {
  return h("section", {}, h("h2", {}, h("span", {}, title), aside || null), content);
}

const OUTCOMES = {
  blocked: ["Blocked", "No byte of it went on."],
  refused: ["Refused before it was a request", ""],
  aborted: ["The handler ended it without an answer", ""],
  upstream_error: ["The upstream failed", ""],
  upstream_timeout: ["The upstream was too slow", ""],
  cut_by_client: ["The client left before the end", "What had passed by then is shown."],
  cut_by_upstream: ["The upstream ended before the answer's end", "What had passed by then is shown."],
  cut_by_proxy: ["The proxy cut it", "What had passed by then is shown."],
};

function verdict(line) {
  const known = line.is_lost ? ["Its proxy has gone", "How this ended was not said."] : OUTCOMES[line.outcome];
  if (!known) return null;
  return h("div", { class: ["blocked", "refused", "upstream_error", "upstream_timeout", "aborted"].includes(line.outcome) ? "why" : "why amber" },
    h("h3", {}, known[0]), line.cause ? h("p", {}, visible(line.cause)) : null, known[1] ? h("p", {}, known[1]) : null);
}

function why(details) {
  const line = details.line, target = `${line.host}:${line.port}`;
  const boxes = [];
  if (line.outcome === "blocked") boxes.push(h("div", { class: "why" }, h("h3", {}, `${visible(target)} was blocked`), h("p", {}, visible(line.cause) || "The client asked for a tunnel to this host. Nothing was sent."), h("p", {}, "To allow it, add the pattern and reload:"), h("pre", {}, `[interception]\ndestinations = [ …, ${JSON.stringify(target)} ]`)));
  else if (line.kind === "tunnel") boxes.push(h("div", { class: "why soft" }, h("h3", {}, "Tunnelled, not looked at"), h("p", {}, `Why: ${visible(line.cause) || "not said"}. Only sizes and times are known.`), h("p", {}, "To look at it, add the pattern and reload:"), h("pre", {}, `[interception]\ndestinations = [ …, ${JSON.stringify(target)} ]`)));
  else boxes.push(h("div", { class: "why" }, h("h3", {}, visible(line.cause) || "Refused"), h("p", {}, "This connection had no request that could go on."), h("p", {}, "What a program needs to trust the CA:"), h("pre", {}, "soth-mitm doctor")));
  return [...boxes, ...connection(details)];
}

function connection(details) {
  return [["Client", details.client], ["Upstream", details.upstream], ["Why it was treated so", details.why]].map(([title, list]) => list.length ? section(title, null, pairs(list)) : null);
}

function timing(details) {
  const line = details.line, t = details.timings, total = line.took ?? Math.max(0.001, Date.now() / 1000 - line.started);
  const parts = [], at = value => value === null || value === undefined ? null : value;
  const push = (name, from, to) => { if (from !== null && to !== null && to >= from) parts.push([name, from, to - from]); };
  const decided = at(t.decided), acquired = at(t.acquired), dialled = at(t.dialled), tls = at(t.tls), sent = at(t.sent), first = at(t.first_byte);
  push("until it was decided", 0, decided);
  if (acquired !== null) {
    const begun = acquired - (dialled || 0);
    push("waited for a connection", decided ?? 0, Math.max(decided ?? 0, begun));
    if (dialled !== null) {
      push(tls === null ? "name and connect" : "name and connect", Math.max(0, begun), acquired - (tls || 0));
      if (tls !== null) push("TLS with the upstream", acquired - tls, acquired);
    }
    push("request sent", acquired, sent);
  }
  push("until the first byte", sent ?? acquired ?? decided ?? 0, first);
  if (line.first_token !== null) push("until the first token", first ?? 0, line.first_token);
  push(line.is_open ? "response, so far" : "response", first, Math.max(first ?? 0, total));
  const longest = Math.max(total, ...parts.map(part => part[1] + part[2]));
  const notes = [];
  if (acquired !== null && dialled === null) notes.push("The connection to the upstream was there already; nothing was dialled.");
  if (first === null) notes.push(line.is_open ? "No answer has come yet." : "No answer came, or when it came was not observed.");
  return [
    section(`Started ${moment(line.started)}`, h("span", { class: "num" }, line.is_open ? "open" : `took ${took(line.took) || "unknown"}`),
      h("div", { class: "time num" }, parts.map(([name, from, length]) => [h("span", {}, name), h("div", {}, h("i", { style: { left: `${from / longest * 100}%`, width: `${Math.max(.6, length / longest * 100)}%` } })), h("span", { class: "num" }, took(length))]))),
    notes.map(note => h("p", { class: "wait" }, note))];
}

export class Details {
  /** `hooks`: close(), select(id), line(id), failed(error), isLive(). Set `changed` and `copyCurl` afterwards. */
  constructor(box, hooks) {
    this.box = box;
    this.hooks = hooks;
    this.id = null;
    this.tab = null;
    this.changed = () => {};
    this.copyCurl = () => {};
    this.control = null;
    this.reset();
  }

  reset() {
    if (this.control) this.control.abort();
    for (const each of this.addresses || []) URL.revokeObjectURL(each);
    this.control = new AbortController();
    this.addresses = [];
    this.details = null;
    this.conversation = null;
    this.messages = null;
    this.bodies = {};
    this.head = null;
    this.growing = false;
    this.grewMeanwhile = false;
    this.tabNames = "";
    clearTimeout(this.later);
  }

  async open(id) {
    if (id === this.id) return;
    this.reset();
    this.id = id;
    if (id === null) { this.box.replaceChildren(); return; }
    const line = this.hooks.line(id);
    if (line) this.frame(line);
    await this.read();
  }

  get line() { return this.details ? this.details.line : this.hooks.line(this.id); }

  async read() {
    const signal = this.control.signal;
    try {
      const details = await ask(`/api/flows/${this.id}`, {}, signal);
      if (signal.aborted) return;
      this.details = details;
      this.frame(details.line);
      await this.show();
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) this.box.replaceChildren(h("div", { class: "empty" }, h("p", {}, error.message)));
      else this.hooks.failed(error);
    }
  }

  /** The flow has changed. */
  grow() {
    if (this.id === null) return;
    if (this.growing) { this.grewMeanwhile = true; return; }
    this.growing = true;
    const signal = this.control.signal;
    this.read().finally(() => {
      if (signal.aborted) return;
      this.later = setTimeout(() => { this.growing = false; if (this.grewMeanwhile) { this.grewMeanwhile = false; this.grow(); } }, GROW_MS);
    });
  }

  tick() {
    const line = this.line;
    if (this.id === null || !line || !line.is_open) return;
    if (this.head) this.facts(line);
    if (this.messages && this.tab === this.messages.name) this.messages.view.close(line, this.hooks.isLive());
  }

  names(line) {
    if (line.kind === "tunnel" || line.kind === "refused" || line.outcome === "blocked" && line.method === "CONNECT") return [["why", "Why"]];
    const names = [];
    if (line.is_model_call) names.push(["conversation", "Conversation"]);
    if (line.kind === "websocket") names.push(["messages", "Messages", line.message_count]);
    else if (line.has_messages) names.push(["stream", "Stream", line.message_count]);
    return names.concat([["request", "Request"], ["response", "Response"], ["timing", "Timing"], ["connection", "Connection"]]);
  }

  /** Show the head and the tabs. */
  frame(line) {
    const names = this.names(line), k = mark(line);
    if (!this.head) {
      this.head = { title: h("h1", {}), tag: h("span", {}), facts: h("p", { class: "facts num" }), tabs: h("div", { class: "tabs", role: "tablist", "aria-label": "Parts of the flow" }), pane: h("div", { class: "pane", role: "tabpanel", tabindex: "0" }) };
      const { title, tag, facts, tabs, pane } = this.head;
      tabs.addEventListener("keydown", event => {
        const d = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = this.names(this.line);
        if (!d) return;
        event.stopPropagation();
        event.preventDefault();
        this.openTab((all.findIndex(each => each[0] === this.current) + d + all.length) % all.length);
        this.head.tabs.querySelector("[aria-selected=true]").focus();
      });
      const wanted = h("button", { class: "icon", type: "button", "aria-label": "Copy as curl", title: "Copy as curl (c)", onclick: () => this.copyCurl() }, icon("copy"));
      const close = h("button", { class: "icon", type: "button", "aria-label": "Close details", title: "Close (Esc)", onclick: () => this.hooks.close() }, icon("close"));
      this.box.replaceChildren(h("div", { class: "dh" }, h("div", { class: "line1" }, title, tag, line.kind === "http" || line.kind === "websocket" ? wanted : null, close), facts), tabs, pane);
      pane.append(h("p", { class: "wait" }, "…"));
    }
    const { title, tag, tabs } = this.head, whole = address(line) + pathOf(line);
    title.title = whole;
    title.replaceChildren(h("span", {}, visible(line.method)), whole);
    tag.className = `tag ${k || (line.kind === "tunnel" ? "" : "ok")}`;
    tag.textContent = line.is_open && line.status ? `${line.status}, open` : status(line);
    this.facts(line);
    if (!names.some(each => each[0] === this.tab)) this.current = names[0][0];
    else this.current = this.tab;
    const key = JSON.stringify([names, this.current]);
    if (key !== this.tabNames) {
      this.tabNames = key;
      const hadFocus = tabs.contains(document.activeElement);
      tabs.replaceChildren(...names.map(([name, word, count], i) => h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === this.current), tabindex: name === this.current ? "0" : "-1", onclick: () => this.openTab(i) }, word, count ? h("small", { class: "num" }, n(count)) : null)));
      if (hadFocus) tabs.querySelector("[aria-selected=true]").focus();
      this.head.pane.setAttribute("aria-labelledby", `tab-${this.current}`);
    }
  }

  facts(line) {
    const d = this.details, versions = d && d.http_version ? `${d.http_version}${d.upstream_http_version ? ` ↔ ${d.upstream_http_version}` : ""}` : line.protocol;
    const open = this.hooks.isLive() ? `open for ${took(Math.max(0, Date.now() / 1000 - line.started))}` : "was open";
    this.head.facts.replaceChildren(h("span", {}, "flow ", h("b", {}, n(line.id))), line.program || line.pid !== null ? h("span", {}, h("b", {}, visible(line.program || "program unknown")), line.pid !== null ? ` pid ${line.pid}` : "") : h("span", {}, "program unknown"),
      h("span", { title: moment(line.started) }, clock(line.started)), h("span", {}, line.is_open ? open : took(line.took)), h("span", {}, `${bytes(line.request_size)} ↑ ${bytes(line.response_size)} ↓`), versions ? h("span", {}, visible(versions)) : "");
  }

  openTab(i) {
    const line = this.line;
    if (this.id === null || !line) return;
    const names = this.names(line);
    if (!names[i]) return;
    this.tab = names[i][0];
    this.frame(line);
    this.shownTab = null;
    this.show();
    this.changed();
  }

  focus() { if (this.head) this.head.pane.focus(); }

  put(...content) {
    this.head.pane.replaceChildren(...content.flat(Infinity).filter(each => each !== null && each !== undefined && each !== ""));
    if (this.shownTab !== `${this.id} ${this.current}`) this.head.pane.scrollTop = 0;
    this.shownTab = `${this.id} ${this.current}`;
  }

  losses() {
    return this.details.losses.length ? h("div", { class: "why amber" }, h("h3", {}, "Not all of it was kept"), h("ul", {}, this.details.losses.map(each => h("li", {}, visible(each))))) : null;
  }

  /** Show what the current tab is about. */
  async show() {
    if (!this.details) return;
    const signal = this.control.signal, tab = this.current, details = this.details, line = details.line;
    try {
      if (tab === "why") this.put(why(details));
      else if (tab === "timing") this.put(timing(details));
      else if (tab === "connection") this.put(verdict(line), connection(details));
      else if (tab === "conversation") await this.showConversation(signal, line);
      else if (tab === "messages" || tab === "stream") await this.showMessages(signal, line, tab);
      else await this.showSide(signal, tab);
    } catch (error) {
      if (!signal.aborted) this.hooks.failed(error);
    }
  }

  async showConversation(signal, line) {
    if (!this.conversation) {
      const data = await ask(`/api/flows/${this.id}/conversation`, {}, signal);
      if (signal.aborted || this.current !== "conversation") return;
      this.conversation = { view: new Conversation(data, line, id => this.hooks.select(id)), isWhole: !line.is_open };
    } else if (!this.conversation.isWhole) {
      const data = await ask(`/api/flows/${this.id}/conversation`, { part: "answer" }, signal);
      if (signal.aborted) return;
      const isAtEnd = this.isAtEnd();
      this.conversation.view.update(data, this.line);
      this.conversation.isWhole = !this.line.is_open;
      if (this.current === "conversation" && this.shownTab === `${this.id} conversation`) { if (isAtEnd) this.toEnd(); return; }
    } else if (this.shownTab === `${this.id} conversation`) return;
    if (this.current === "conversation") this.put(this.losses(), this.conversation.view.box);
  }

  isAtEnd() { const pane = this.head.pane; return pane.scrollHeight > pane.clientHeight + 20 && pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 30; }
  toEnd() { this.head.pane.scrollTop = this.head.pane.scrollHeight; }

  async showMessages(signal, line, tab) {
    if (!this.messages) this.messages = { view: new MessageView(line.kind === "websocket"), name: tab, isReading: false };
    const view = this.messages.view;
    if (this.shownTab !== `${this.id} ${tab}`) this.put(this.losses(), verdict(line), view.box);
    if (this.messages.isReading) return;
    this.messages.isReading = true;
    try {
      for (let isFirst = true; isFirst || view.messages.length < view.total; isFirst = false) {
        const isAtEnd = this.isAtEnd(), found = await ask(`/api/flows/${this.id}/messages`, { after: view.messages.length }, signal);
        if (signal.aborted) return;
        view.add(found);
        view.close(this.line, this.hooks.isLive());
        if (isAtEnd && this.current === tab) this.toEnd();
        if (!found.messages.length) break;
      }
    } finally {
      if (this.messages) this.messages.isReading = false;
    }
  }

  async showSide(signal, side) {
    const details = this.details, line = details.line, size = side === "request" ? line.request_size : line.response_size;
    const fields = details[`${side}_fields`], trailers = details[`${side}_trailers`];
    const head = [side === "response" ? verdict(line) : null, this.losses(),
      section("Header", side === "response" && line.status ? h("span", { class: "num" }, String(line.status)) : null, fields.length ? pairs(fields) : h("p", { class: "wait" }, side === "response" && !line.status ? "No answer came." : "Not kept.")),
      trailers.length ? section("Trailers", null, pairs(trailers)) : null];
    if (line.kind === "websocket") { this.put(head, h("p", { class: "wait" }, "What was said is under Messages.")); return; }
    const known = this.bodies[side];
    if (!known || known.size !== size) {
      if (!known && this.shownTab !== `${this.id} ${side}`) this.put(head);
      const body = await ask(`/api/flows/${this.id}/${side}/body`, {}, signal);
      if (signal.aborted) return;
      this.bodies[side] = { size, body, node: await this.bodyNode(signal, side, body) };
      if (signal.aborted || this.current !== side) return;
    } else if (this.shownTab === `${this.id} ${side}`) return;
    const { body, node } = this.bodies[side];
    const isSame = body.size === body.decoded && !body.coding, sizes = body.size === null ? "size unknown" : `${bytes(body.size)}${isSame ? "" : ` on the wire · ${bytes(body.decoded)} decoded`}`;
    this.put(head, body.size === 0 ? section("Body", h("span", {}, "none")) : section(`Body · ${sizes}${body.media ? ` · ${visible(body.media.slice(0, 60))}` : ""}`, h("span", { class: "acts" }, h("button", { type: "button", onclick: () => this.copyBody(side) }, "Copy"), h("button", { type: "button", onclick: () => this.saveBody(side) }, "Download")), node));
  }

  async bodyNode(signal, side, body) {
    const notes = [body.problem, body.lost].filter(Boolean).map(note => h("p", { class: "wait" }, visible(note)));
    if (PICTURES.includes(body.media.split(";")[0].trim().toLowerCase()) && body.decoded) {
      const picture = await blob(`/api/flows/${this.id}/${side}/body`, { as: "picture" }, signal);
      const source = URL.createObjectURL(picture), image = h("img", { alt: "The body, as a picture" });
      this.addresses.push(source);
      image.src = source;
      return [h("div", { class: "body" }, image), notes];
    }
    if (body.is_binary) return [h("div", { class: "body" }, h("pre", {}, body.text)), h("p", { class: "wait" }, body.is_cut ? "The first bytes of it." : ""), notes];
    const value = body.is_cut ? undefined : parsed(body.text);
    return [h("div", { class: "body" }, h("pre", {}, value === undefined ? visible(body.text) : json(value))), body.is_cut ? h("p", { class: "wait" }, `The first ${bytes(body.text.length)}; download it to see all.`) : null, notes];
  }

  sideOf(given) { return given || (this.current === "request" ? "request" : "response"); }

  async copyBody(given) {
    if (this.id === null || !this.line || this.names(this.line)[0][0] === "why") return;
    const side = this.sideOf(given);
    try {
      const whole = await blob(`/api/flows/${this.id}/${side}/body`, { as: "bytes" });
      await copy(await whole.text(), `Body of the ${side}`);
    } catch (error) { this.hooks.failed(error); }
  }

  async saveBody(side) {
    try { save(await blob(`/api/flows/${this.id}/${side}/body`, { as: "bytes" }), `flow-${this.id}-${side}.bin`); } catch (error) { this.hooks.failed(error); }
  }
}
