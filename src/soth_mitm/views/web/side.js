// Left: what can be filtered by. Above the list: the last ten minutes. Below: what is kept.

import { $, h } from "/dom.js";
import { clock, counted, n, short, stored } from "/words.js";

function item(facet, choose) {
  return h("button", { type: "button", "data-filter": facet.filter, "aria-pressed": "false", title: facet.name, onclick: () => choose(facet.filter) }, h("span", {}, facet.name), h("span", { class: "num" }, n(facet.count)));
}

let shown = "";

export function drawSide(overview, filter, choose) {
  const nav = $("nav"), all = { name: "All flows", filter: "", count: overview.flows };
  const content = JSON.stringify([overview.flows, overview.views, overview.programs, overview.hosts]);
  if (content !== shown) {
    shown = content;
    const focused = nav.contains(document.activeElement) ? document.activeElement.dataset.filter : null;
    const group = (title, facets) => facets.length ? [h("h2", {}, title), facets.map(facet => item(facet, choose))] : [];
    const parts = [group("Views", [all, ...overview.views]), group("Programs", overview.programs), group("Hosts", overview.hosts)];
    nav.replaceChildren(...parts.flat(Infinity));
    if (focused !== null) for (const button of nav.querySelectorAll("button")) if (button.dataset.filter === focused) button.focus();
  }
  markSide(filter);
}

export function markSide(filter) {
  for (const button of $("nav").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
}

export function drawStrip(overview) {
  const bins = overview.strip, most = Math.max(1, ...bins.map(b => b[0] + b[1] + b[2])), strip = $("strip");
  strip.hidden = !bins.length;
  const kinds = ["", "l", "e"];
  strip.replaceChildren(...bins.map(b => h("i", {}, b.map((v, i) => v ? h("b", { class: kinds[i], style: { height: `${v / most * 84}%` } }) : null))),
    h("span", {}, clock(overview.strip_end - bins.length * 5).slice(0, 5)), h("span", {}, overview.is_live ? "now" : clock(overview.strip_end).slice(0, 5)));
}

export function drawFoot(overview, sums) {
  $("kept").textContent = counted(overview.flows, "flow");
  $("kept").title = overview.path;
  $("size").textContent = overview.limit === null ? stored(overview.size) : `${stored(overview.size)} of ${stored(overview.limit)}`;
  $("open").textContent = overview.is_live ? `${n(overview.open)} open` : "no proxy writes here now";
  const dropped = $("dropped");
  dropped.textContent = overview.dropped ? `${n(overview.dropped)} dropped` : "0 dropped";
  dropped.classList.toggle("bad", overview.dropped > 0);
  dropped.title = overview.dropped ? "Flows and messages that came faster than they could be kept. They are not in this store." : "";
  if (sums) $("sum").textContent = sums.in === null && sums.out === null ? "" : `${short(sums.in || 0)} tokens in, ${short(sums.out || 0)} out`;
}
