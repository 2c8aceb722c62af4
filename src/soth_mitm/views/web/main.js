// The page: what is shown, what is chosen, and the keys.

import { $, h, copy, save, say } from "/dom.js";
import { Details } from "/details.js";
import { FlowList } from "/list.js";
import { ask, blob, open, Refused, stream } from "/session.js";
import { drawFoot, drawSide, drawStrip, markSide } from "/side.js";
import { counted, n } from "/words.js";

const root = document.documentElement, place = new URLSearchParams(location.hash.slice(1)), input = $("q"), rows = $("rows");
const state = { filter: "", revision: 0, total: 0, unsearched: 0, sums: { in: null, out: null }, overview: null, isPaused: false, newer: 0, follows: true };

// ---- light and dark: the system's, or what was chosen last
const theme = place.get("theme") || localStorage.getItem("soth-mitm theme");
if (theme === "dark" || theme === "light") root.dataset.theme = theme;
function flipTheme() {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("soth-mitm theme", root.dataset.theme);
}

// ---- parts
const list = new FlowList(rows, $("space"), ids => ask("/api/lines", { ids: ids.join(",") }).catch(failed) , id => select(id, false), first => { if (first === 0) newer(0); });
const details = new Details($("detail"), { close: () => select(null), select: id => select(id, true), line: id => list.lines.get(id), failed, isLive: () => Boolean(state.overview && state.overview.is_live) });

function keepPlace() {
  const now = new URLSearchParams();
  if (state.filter) now.set("q", state.filter);
  if (list.selected !== null) now.set("flow", String(list.selected));
  if (list.selected !== null && details.tab) now.set("tab", details.tab);
  history.replaceState(null, "", "#" + now);
}
details.changed = keepPlace;

function select(id, reveal = true) {
  list.select(id, reveal);
  document.body.classList.toggle("closed", id === null);
  details.open(id);
  if (id !== null) stopMenu();
  keepPlace();
}

function banner(text, isBad = false) {
  const box = $("banner");
  box.hidden = !text;
  box.textContent = text || "";
  box.classList.toggle("bad", isBad);
}

/** Say that something did not work. */
function failed(error) {
  if (error.name === "AbortError") return [];
  if (error instanceof Refused && error.status === 401) { locked(error.message); return []; }
  say(error instanceof Refused ? error.message : "the view does not answer");
  return [];
}

function locked(text) {
  stopFollowing();
  isLocked = true;
  $("none").hidden = false;
  $("none").replaceChildren(h("h2", {}, "This page is not open"), h("p", {}, text + "."), h("pre", {}, "soth-mitm view"));
  $("strip").hidden = true;
  live("lost", "Closed");
}
let isLocked = false;

// ---- filter: the text goes to the server, which says what is wrong with it
let asking = null, wait = 0;
function fault(error) {
  const box = $("fault");
  document.querySelector(".filter").classList.toggle("bad", Boolean(error));
  input.setAttribute("aria-invalid", String(Boolean(error)));
  box.hidden = !error;
  if (!error) return;
  const text = error.filter || "", at = Math.min(error.at ?? 0, text.length), from = at > 60 ? at - 50 : 0;
  const before = (from ? "…" : "") + text.slice(from, at), shown = before + text.slice(at, from + 100);
  if (error.filter === undefined) { box.replaceChildren(h("div", {}, error.message)); return; }
  box.replaceChildren(h("pre", {}, shown, "\n", " ".repeat(before.length), h("b", {}, "^")), h("div", {}, error.message), error.hint ? h("div", { class: "hint" }, error.hint) : "");
}

function count() {
  const out = $("count"), all = state.overview ? state.overview.flows : state.total;
  out.textContent = state.filter ? `${n(state.total)} of ${n(Math.max(all, state.total))}` : n(Math.max(state.total, all));
  const few = list.ids.length < state.total ? ` The newest ${list.count} are listed.` : "", unseen = state.unsearched ? ` The words of ${n(state.unsearched)} flows are not indexed yet and were not searched.` : "";
  out.title = (few + unseen).trim();
  if (unseen) out.textContent += " +";
}

async function load(text, keepsPlace = false) {
  if (asking) asking.abort();
  asking = new AbortController();
  const signal = asking.signal;
  $("count").classList.add("busy");
  try {
    const index = await ask("/api/flows", text ? { filter: text } : {}, signal);
    fault(null);
    state.filter = text;
    state.revision = index.revision;
    state.total = index.total;
    state.unsearched = index.unsearched;
    state.sums = { in: index.tokens_in, out: index.tokens_out };
    const started = new Array(index.ids.length);
    let moment = index.newest;
    for (let i = 0; i < index.ids.length; i++) { if (i) moment -= index.steps[i - 1]; started[i] = moment; }
    newer(0);
    list.setIndex(index.ids, started, keepsPlace);
    markSide(text);
    empty();
    count();
    keepPlace();
    if (state.overview) drawFoot(state.overview, state.sums);
    follow();
    return true;
  } catch (error) {
    if (signal.aborted) return false;
    if (error instanceof Refused && (error.status === 400 || error.status === 503)) fault(error);
    else failed(error);
    return false;
  } finally {
    if (!signal.aborted) $("count").classList.remove("busy");
  }
}

function choose(text) {
  input.value = text;
  stopMenu();
  load(text);
}

function empty() {
  if (isLocked) return;
  const box = $("none"), overview = state.overview;
  box.hidden = list.ids.length > 0 || !overview;
  if (box.hidden) return;
  if (state.filter) box.replaceChildren(h("h2", {}, "No flow matches this filter"), h("p", {}, h("code", { class: "mono" }, state.filter)), h("p", {}, state.unsearched ? `The words of ${n(state.unsearched)} flows are not indexed yet and were not searched.` : "Esc clears it."));
  else if (overview.is_live) box.replaceChildren(h("h2", {}, "Nothing has passed yet"), h("p", {}, "The proxy listens. Send something through it, and it is shown here as it passes:"), h("pre", {}, overview.next_command));
  else box.replaceChildren(h("h2", {}, "This store has no flows, and no proxy writes it now"), h("p", {}, "Start one, and it is shown here as it passes:"), h("pre", {}, overview.next_command));
}

// ---- live
let following = null, retry = 0, again = 0;
function stopFollowing() {
  clearTimeout(again);
  if (following) following.abort();
  following = null;
}

function live(kind, text) {
  const button = $("live");
  for (const each of ["paused", "lost", "still"]) button.classList.toggle(each, each === kind);
  button.setAttribute("aria-pressed", String(state.isPaused));
  button.querySelector("span").textContent = text;
}

async function follow() {
  stopFollowing();
  if (isLocked || state.isPaused || document.hidden || !state.revision && !state.overview) return;
  const control = new AbortController();
  following = control;
  try {
    await stream("/api/changes", { since: state.revision, filter: state.filter }, control.signal, () => { retry = 0; banner(state.overview ? state.overview.notes.join(" ") : ""); status(); }, take);
    if (control.signal.aborted) return;
    throw new Error("the stream of changes ended");
  } catch (error) {
    if (control.signal.aborted) return;
    if (error instanceof Refused && error.status === 401) { locked(error.message); return; }
    live("lost", "Lost");
    banner("The view does not answer. It is asked again; what is shown here may be old.", true);
    retry = Math.min(retry + 1, 6);
    again = setTimeout(follow, 250 * 2 ** retry);
  }
}

function status() {
  if (state.isPaused) live("paused", "Paused");
  else if (state.overview && !state.overview.is_live) live("still", "File");
  else live("", "Live");
}

function take(name, data) {
  if (name === "overview") takeOverview(data);
  else if (name === "changes") {
    if (data.is_partial) { load(state.filter, true); return; }
    state.revision = data.revision;
    const sum = (key, before, line) => { const now = line[key]; if (now !== null) return now - (before && before[key] !== null ? before[key] : 0); return 0; };
    let tokensIn = 0, tokensOut = 0;
    for (const line of data.lines) { const before = list.lines.get(line.id); tokensIn += sum("tokens_in", before, line); tokensOut += sum("tokens_out", before, line); }
    if (tokensIn || state.sums.in !== null) state.sums.in = (state.sums.in || 0) + tokensIn;
    if (tokensOut || state.sums.out !== null) state.sums.out = (state.sums.out || 0) + tokensOut;
    const isAway = !list.isAtTop, before = list.ids.length, added = list.merge(data.lines, data.others);
    state.total += list.ids.length - before;
    if (isAway) newer(state.newer + added);
    count();
    empty();
    const chosen = list.selected;
    if (chosen !== null && (data.others.includes(chosen) || data.lines.some(line => line.id === chosen))) details.grow();
  }
}

function takeOverview(overview) {
  const wasEmpty = !state.overview;
  state.overview = overview;
  list.isLive = overview.is_live;
  drawSide(overview, state.filter, choose);
  drawStrip(overview);
  drawFoot(overview, state.sums);
  if (!isLocked) banner(overview.notes.join(" "));
  count();
  status();
  if (wasEmpty || !$("none").hidden) empty();
}

function newer(many) {
  state.newer = many;
  const pill = $("newer");
  pill.hidden = many === 0;
  pill.textContent = `↑ ${counted(many, "newer flow")}`;
}

async function pause() {
  state.isPaused = !state.isPaused;
  if (state.isPaused) stopFollowing();
  else await load(state.filter, true);
  status();
}

// ---- keys
const KEYS = [["j k", "next, previous flow"], ["/", "filter"], ["Enter", "open details"], ["Esc", "close, clear the filter"], ["1 – 6", "tab of the details"], ["f", "follow the newest"], ["p", "pause the view, never the traffic"], ["c", "copy as curl"], ["y", "copy the body"], ["e", "export what is shown as HAR"], ["t", "light or dark"], ["?", "this page"]];
const FILTERS = [["host:anthropic", "the host contains it"], ["host=api.x.com", "is exactly it"], ["path~\"v[12]/\"", "a regular expression"], ["status>=400", "also 4xx, 500-599"], ["took>2s  size>10k", "with units"], ["since:10m", "started since"], ["is:llm", "stream ws grpc open blocked failed cut tunnel"], ["app:claude", "program"], ["tokens>10k", "also in, out, cached"], ["-method:GET", "not; and, or, brackets"], ["retry \"two words\"", "words in bodies"], ["body~\"call_[0-9]+\"", "reads every body"]];
function fillHelp() {
  const pair = (term, meaning) => [h("dt", {}, term), h("dd", {}, meaning)];
  $("keys").replaceChildren(h("h2", { id: "keys-title" }, "Keys"), h("dl", {}, KEYS.flatMap(([k, d]) => pair(k.split(" ").map(x => x === "–" ? " – " : [h("kbd", {}, x), " "]), d))),
    h("h2", {}, "Filters"), h("dl", {}, FILTERS.flatMap(([k, d]) => pair(h("code", {}, k), d))));
}

function stopMenu() { document.body.classList.remove("menued"); $("menu").setAttribute("aria-expanded", "false"); }

async function exportHar() {
  say(`Exporting ${counted(state.total, "flow")} …`);
  try {
    save(await blob("/api/export", state.filter ? { filter: state.filter } : {}), "flows.har");
    say("Saved as flows.har");
  } catch (error) { failed(error); }
}

async function copyCurl() {
  if (list.selected === null) return;
  try {
    const found = await ask(`/api/flows/${list.selected}/curl`);
    if (!found.command) { say(found.note); return; }
    await copy(found.command, found.note ? `Copied as curl. ${found.note}:` : "curl command");
  } catch (error) { failed(error); }
}
details.copyCurl = copyCurl;

$("theme").onclick = flipTheme;
$("live").onclick = pause;
$("export").onclick = exportHar;
$("help").onclick = () => $("keys").showModal();
$("newer").onclick = () => { list.toTop(); newer(0); rows.focus(); };
$("menu").onclick = () => $("menu").setAttribute("aria-expanded", String(document.body.classList.toggle("menued")));
for (const id of ["keys", "text"]) $(id).onclick = event => { if (event.target === $(id)) $(id).close(); };
input.oninput = () => { clearTimeout(wait); wait = setTimeout(() => load(input.value.trim()), 150); };

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || isLocked || document.querySelector("dialog[open]")) return;
  if (event.target === input) {
    if (event.key === "Escape") { event.preventDefault(); if (input.value) choose(""); else rows.focus(); }
    else if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      clearTimeout(wait);
      const text = input.value.trim();
      Promise.resolve(text === state.filter || load(text)).then(isGood => { if (isGood && list.ids.length) { rows.focus(); select(list.ids[0]); } });
    }
    return;
  }
  const go = d => { event.preventDefault(); const id = list.neighbour(d); if (id !== null) select(id); };
  const page = Math.max(1, Math.floor(rows.clientHeight / list.rowHeight) - 1), inPane = event.target.closest("aside") !== null;
  const act = {
    j: () => go(1), k: () => go(-1), ArrowDown: inPane ? null : () => go(1), ArrowUp: inPane ? null : () => go(-1), PageDown: inPane ? null : () => go(page), PageUp: inPane ? null : () => go(-page),
    Home: inPane ? null : () => go(-Infinity), End: inPane ? null : () => go(Infinity),
    Enter: event.target === rows ? () => { event.preventDefault(); if (list.selected === null) go(1); else details.focus(); } : null,
    "/": () => { event.preventDefault(); input.focus(); input.select(); },
    Escape: () => { if (document.body.classList.contains("menued")) stopMenu(); else if (list.selected !== null) { select(null); rows.focus(); } else if (state.filter) choose(""); },
    t: flipTheme, p: pause, "?": () => $("keys").showModal(), f: () => { list.toTop(); newer(0); if (state.isPaused) pause(); },
    c: copyCurl, y: () => details.copyBody(), e: exportHar,
  }[event.key];
  if (act) act();
  else if (/^[1-7]$/.test(event.key)) details.openTab(Number(event.key) - 1);
});

document.addEventListener("visibilitychange", () => { if (document.hidden) stopFollowing(); else follow(); });
setInterval(() => { if (!document.hidden) { list.tick(); details.tick(); } }, 1000);

// ---- start
async function start() {
  fillHelp();
  try {
    await open(place);
    input.value = place.get("q") || "";
    const wanted = Number(place.get("flow")) || null;
    details.tab = place.get("tab");
    takeOverview(await ask("/api/overview"));
    if (!await load(input.value)) { const text = input.value; const kept = $("fault").hidden; await load(""); input.value = text; if (!kept) await load(text); }
    if (wanted !== null) select(wanted);
    else if (list.ids.length && innerWidth > 1080) select(list.ids[0], false);
    if (place.has("help")) $("keys").showModal();
    rows.focus({ preventScroll: true });
  } catch (error) {
    if (error instanceof Refused) locked(error.message);
    else { banner("The view does not answer. Is `soth-mitm view` still running?", true); live("lost", "Lost"); }
  }
  root.dataset.ready = "true";
}
start();
