// A call of a model, as a conversation with its counts.

import { append, h, json, parsed, readable, visible } from "/dom.js";
import { bytes, counted, n, took } from "/words.js";

// characters of one text that are shown before somebody asks for all
const LONG = 6000;

/** Show a text, with `code` and fenced blocks set off; a long one in its first part until it is asked for. */
function prose(text, inside = "") {
  if (text.length > LONG) {
    const box = h("div", {}, prose(text.slice(0, LONG) + " …"));
    box.append(h("button", { class: "more", type: "button", onclick: () => box.replaceChildren(...parts(text)) }, `show all of it, ${counted(text.length, "character")}`));
    return box;
  }
  return parts(text, inside);
}

function parts(text, inside = "") {
  const blocks = text.split(/^```[^\n]*\n([\s\S]*?)^```[ \t]*$/m), made = [];
  blocks.forEach((block, i) => {
    if (i % 2) made.push(h("pre", { class: "code" }, visible(block.replace(/\n$/, ""))));
    else {
      const trimmed = blocks.length > 1 ? block.replace(/^\n+|\n+$/g, "") : block;
      if (trimmed || i === blocks.length - 1 && inside) made.push(h("p", {}, trimmed.split(/(`[^`\n]+`)/).map(x => x.length > 2 && x.startsWith("`") && x.endsWith("`") ? h("code", {}, visible(x.slice(1, -1))) : visible(x)), i === blocks.length - 1 ? inside : ""));
    }
  });
  return made;
}

function long(text) {
  if (text.length <= LONG) return readable(text);
  const box = h("div", {}, h("pre", {}, visible(text.slice(0, LONG)), " …"));
  box.append(h("button", { class: "more", type: "button", onclick: () => box.replaceChildren(readable(text)) }, `show all of it, ${counted(text.length, "character")}`));
  return box;
}

function thinking(text, note, isOpen) {
  return h("details", { class: "think", open: isOpen }, h("summary", {}, note ? `Reasoning · ${note}` : "Reasoning"), prose(text));
}

function card(word, name, note, content, isBad) {
  return h("div", { class: isBad ? "card bad" : "card" }, h("div", { class: "cap" }, word, name ? h("b", {}, visible(name)) : null, note ? h("span", { title: note }, note) : null), h("div", { class: "in" }, content));
}

function shown(part, names) {
  if (part.kind === "text") return prose(part.text);
  if (part.kind === "reasoning") return thinking(part.text, counted(part.text.length, "character"), false);
  if (part.kind === "call") return card("calls", part.name || "a tool", part.id, part.text.trim() ? long(part.text) : h("span", { class: "wait" }, "no arguments"));
  if (part.kind === "result") return card(part.is_error ? "error of" : "result of", part.name || names.get(part.id) || "a tool", bytes(new Blob([part.text]).size), part.text ? long(part.text) : h("span", { class: "wait" }, "empty"), part.is_error);
  if (part.kind === "media") return h("p", {}, h("code", {}, visible(part.text)));
  return card("part", "", "of a kind that is not known here", long(part.text));
}

function turn(each, names) {
  const note = each.role === "tool" || each.parts.every(part => part.kind === "result") ? "tool" : each.role;
  return h("div", { class: "turn" }, h("h3", {}, h("b", {}, note === "tool" ? "tool result" : note)), each.parts.map(part => shown(part, names)));
}

const MISSING = {
  not_requested: "This API sends counts only if the request asks for them (stream_options.include_usage), and it did not. They are unknown, not zero.",
  cut: "The answer ended before its counts, which come last. They are unknown, not zero.",
  error: "The call failed, and no counts came.",
  not_shown: "The end of the answer, where its counts are, was not kept. They are unknown, not zero.",
  absent: "The answer is whole and has no counts. They are unknown, not zero.",
};

function countsCard(call, line) {
  const t = call.tokens, isOpen = line.is_open, ending = isOpen ? "at the end" : t.output === null ? "unknown" : "not said";
  const fresh = t.input === null ? null : t.input - (t.cache_read || 0) - (t.cache_write || 0);
  const reply = t.output === null || isOpen ? null : t.output - (t.reasoning || 0);
  const rows = [["c-read", "from cache", t.cache_read], ["c-write", "to cache", t.cache_write], ["c-new", "new input", fresh], ["c-think", "reasoning", isOpen ? null : t.reasoning], ["c-out", "answer", reply]];
  const all = rows.reduce((sum, row) => sum + (row[2] || 0), 0);
  const name = x => x === null ? "unknown" : n(x), duration = call.duration;
  const rate = !isOpen && call.complete && call.streamed && t.output && call.first_token !== null && duration > call.first_token + 0.05 ? Math.round(t.output / (duration - call.first_token)) : null;
  const head = isOpen ? t.input === null ? "answer arriving" : `${n(t.input)} in · answer arriving` : t.input === null && t.output === null ? "tokens unknown" : `${name(t.input)} in · ${call.complete === false && t.output !== null ? "at least " : ""}${name(t.output)} out`;
  return h("div", { class: "call" },
    h("div", { class: "head" }, h("strong", {}, visible(call.model || "model not named")), h("small", {}, visible(call.provider)), h("span", { class: "num" }, head)),
    all ? h("div", { class: "bar", role: "img", "aria-label": rows.filter(row => row[2] !== null).map(row => `${row[1]} ${row[2]}`).join(", ") }, rows.map(([c, , v]) => v ? h("i", { class: c, style: { flex: String(Math.max(v, all / 60)) } }) : null)) : null,
    h("dl", { class: "legend" }, rows.map(([c, label, v], i) => h("div", {}, h("dt", {}, h("i", { class: c }), label), v === null ? h("dd", { class: "un" }, i > 2 ? ending : isOpen && t.input === null ? "not yet" : t.input === null ? "unknown" : "not said") : h("dd", {}, n(v))))),
    h("p", { class: "foot num" },
      call.first_token !== null ? h("span", {}, "first token ", h("b", {}, took(call.first_token))) : null,
      isOpen && line.message_count !== null ? h("span", {}, h("b", {}, n(line.message_count)), " events so far") : null,
      rate === null ? null : h("span", {}, h("b", {}, n(rate)), " tokens/s"),
      call.stop ? h("span", {}, "stopped by ", h("b", {}, visible(call.stop))) : null,
      call.model_asked && call.model_answered && call.model_asked !== call.model_answered ? h("span", {}, "asked for ", h("b", {}, visible(call.model_asked))) : null,
      h("span", {}, "cost ", h("b", {}, call.cost === null ? "not known" : String(call.cost)))));
}

function trouble(call, line) {
  const boxes = [];
  if (call.error !== null) boxes.push(h("div", { class: "why amber" }, h("h3", {}, line.status >= 400 ? `${line.status}: the provider refused this call` : "The provider reported an error"), h("pre", {}, visible(call.error))));
  else if (!line.is_open && call.complete === false) {
    const who = { cut_by_client: "The client left before the end", cut_by_upstream: "The upstream ended before the answer's end", cut_by_proxy: "The proxy cut this answer" }[line.outcome] || "The answer has no end";
    boxes.push(h("div", { class: "why amber" }, h("h3", {}, who), h("p", {}, call.tokens.missing ? MISSING[call.tokens.missing] : "What had arrived is shown. Counts that came before the end are kept.")));
  } else if (!line.is_open && call.tokens.missing) boxes.push(h("div", { class: "why soft" }, h("p", {}, MISSING[call.tokens.missing])));
  const problems = [...call.problems];
  if (call.truncated) problems.push("something was over a limit and is not shown whole");
  if (problems.length) boxes.push(h("div", { class: "why soft" }, h("p", {}, "Not all of this call could be read:"), h("ul", {}, problems.map(each => h("li", {}, visible(each))))));
  return boxes;
}

export class Conversation {
  /** `select(flow)` shows another flow. */
  constructor(data, line, select) {
    this.card = h("div", {});
    this.answer = h("div", {});
    this.box = h("div", {}, this.card, this.asked(data, select), this.answer);
    this.update(data, line);
  }

  asked(data, select) {
    const box = h("div", {}), names = new Map();
    for (const each of data.turns) for (const part of each.parts) if (part.kind === "call" && part.id) names.set(part.id, part.name);
    const system = data.turns.filter(each => each.role === "system"), rest = data.turns.filter(each => each.role !== "system");
    const length = system.reduce((sum, each) => sum + each.parts.reduce((s, part) => s + part.text.length, 0), 0);
    if (system.length || data.tools.length) {
      const title = [system.length ? "System prompt" : null, data.tools.length ? counted(data.tools.length, "tool") : null].filter(Boolean).join(" and ");
      const inside = h("details", { class: "think" }, h("summary", {}, length ? `${title} · ${counted(length, "character")}` : title));
      inside.addEventListener("toggle", () => {
        if (inside.childElementCount === 1) append(inside, [system.map(each => each.parts.map(part => shown(part, names))), data.tools.length ? h("dl", {}, data.tools.map(tool => [h("dt", {}, visible(tool.name)), h("dd", {}, visible(tool.description.slice(0, 400)))])) : null]);
      });
      box.append(inside);
    }
    for (const problem of data.problems) box.append(h("div", { class: "why soft" }, h("p", {}, visible(problem))));
    // what an earlier call had said already is one line
    const known = data.earlier ? data.earlier.count - system.length : 0, folded = known > 0 ? Math.min(known, rest.length) : rest.length > 8 ? rest.length - 4 : 0;
    if (folded > 0) {
      const more = counted(folded, "earlier message"), before = h("div", {});
      const fold = h("button", { class: "fold num", type: "button", "aria-expanded": "false" }, known > 0 ? `${more}, the same as in flow ${n(data.earlier.flow)}` : more);
      fold.onclick = () => {
        const isOpen = fold.getAttribute("aria-expanded") === "true";
        fold.setAttribute("aria-expanded", String(!isOpen));
        before.replaceChildren(...isOpen ? [] : [known > 0 ? h("p", {}, h("button", { class: "link", type: "button", onclick: () => select(data.earlier.flow) }, `Open flow ${n(data.earlier.flow)}`)) : "", ...rest.slice(0, folded).map(each => turn(each, names))]);
      };
      box.append(fold, before);
    }
    box.append(...rest.slice(folded).map(each => turn(each, names)));
    return box;
  }

  /** Show what came of the answer by now. */
  update(data, line) {
    const call = data.call, t = call.tokens;
    this.card.replaceChildren(countsCard(call, line), ...trouble(call, line));
    const had = this.answer.querySelector("details.think"), isOpen = had ? had.open : true;
    const bits = [];
    if (call.reasoning) bits.push(thinking(call.reasoning, t.reasoning !== null ? counted(t.reasoning, "token") : line.is_open && !call.text ? "arriving" : "", isOpen));
    else if (t.reasoning) bits.push(h("p", { class: "wait" }, `Reasoning of ${counted(t.reasoning, "token")}, not shown by the provider.`));
    const cursor = line.is_open ? h("i", { class: "cursor" }) : "";
    if (call.text || line.is_open && !call.tools.length) bits.push(prose(call.text, cursor));
    for (const tool of call.tools) {
      const note = [tool.complete ? "" : line.is_open ? "arriving" : "cut", tool.by_provider ? "run by the provider" : "", tool.id || ""].filter(Boolean).join(" · ");
      const value = parsed(tool.arguments);
      bits.push(card("calls", tool.name || "a tool", note, tool.arguments.trim() ? value === undefined ? long(tool.arguments) : h("pre", {}, json(value)) : h("span", { class: "wait" }, "no arguments"), !tool.complete && !line.is_open));
    }
    const said = line.is_open ? "arriving" : [call.complete === false ? "not complete" : "", t.output !== null ? counted(t.output, "token") : "", call.duration !== null ? took(call.duration) : ""].filter(Boolean).join(" · ");
    const choices = call.choices > 1 ? h("p", { class: "wait" }, `The first of ${call.choices} answers; the others are in the response.`) : "";
    this.answer.replaceChildren(...bits.length ? [h("div", { class: "turn" }, h("h3", {}, h("b", {}, "assistant"), h("span", { class: "num" }, said)), choices, bits)] : []);
  }
}
