// The list of flows: only the rows in sight exist. It knows the ids of all flows that the filter finds, and the lines of those near by.

import { h } from "/dom.js";
import { address, clock, isCall, mark, moment, n, pathOf, status, took, what } from "/words.js";

const BLOCK = 200, BLOCKS_KEPT = 20, EXTRA = 8;

function rowOf() {
  const cell = c => h("span", { class: c, role: "gridcell" });
  const row = h("div", { class: "flow num", role: "row" });
  const cells = ["k", "when", "app", "m", "u", "st", "what", "took r"].map(cell);
  const host = document.createTextNode(""), path = h("em");
  cells[4].append(host, path);
  row.append(...cells);
  return { row, cells, host, path, id: 0, line: null };
}

function set(node, text) { if (node.textContent !== text) node.textContent = text; }
function dress(node, name) { if (node.className !== name) node.className = name; }

export class FlowList {
  /** `fetchLines(ids)` promises lines; `chosen(id)` is called when a row is chosen; `moved()` when what is in sight changes. */
  constructor(box, space, fetchLines, chosen, moved) {
    this.box = box;
    this.space = space;
    this.fetchLines = fetchLines;
    this.chosen = chosen;
    this.moved = moved;
    this.ids = [];
    this.started = [];
    this.lines = new Map();
    this.asked = new Set();
    this.gone = new Set();
    this.inSight = new Map();
    this.spare = [];
    this.selected = null;
    this.rowHeight = 32;
    this.isLive = false;
    this.isQueued = false;
    this.generation = 0;
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    space.addEventListener("click", event => {
      const row = event.target.closest(".flow");
      if (row) this.chosen(Number(row.dataset.flow));
    });
    new ResizeObserver(() => this.resize()).observe(box);
  }

  /** Show other flows: all that a filter finds, newest first. */
  setIndex(ids, started, keepPlace) {
    const top = this.box.scrollTop;
    this.ids = ids;
    this.started = started;
    this.gone.clear();
    this.asked.clear();
    this.generation += 1;
    this.lay();
    this.box.scrollTop = keepPlace ? top : 0;
    this.draw();
  }

  get isAtTop() { return this.box.scrollTop < this.rowHeight; }

  toTop() { this.box.scrollTop = 0; this.draw(); }

  resize() {
    const height = this.box.clientWidth <= 560 ? 50 : 32;
    if (height !== this.rowHeight) {
      const at = this.box.scrollTop / this.rowHeight;
      this.rowHeight = height;
      document.documentElement.style.setProperty("--row", `${height}px`);
      this.clear();
      this.lay();
      this.box.scrollTop = at * height;
    }
    this.draw();
  }

  clear() {
    for (const each of this.inSight.values()) { each.row.remove(); this.spare.push(each); }
    this.inSight.clear();
  }

  lay() {
    this.space.style.setProperty("height", `${this.ids.length * this.rowHeight}px`);
    this.box.setAttribute("aria-rowcount", String(this.ids.length));
  }

  /** Take lines that changed: known flows are shown anew, new ones come in at their place. Returns how many are new. */
  merge(lines, others) {
    const known = new Set();
    const fresh = [];
    for (const line of lines) {
      const before = this.lines.get(line.id);
      this.lines.set(line.id, line);
      this.gone.delete(line.id);
      if (before || this.asked.has(line.id)) known.add(line.id);
      else fresh.push(line);
    }
    let added = fresh;
    if (fresh.length) {
      // a flow that has been in the list all the time, and was never in sight
      const there = new Set();
      const oldest = Math.min(...fresh.map(line => line.started * 1000)) - 1;
      for (let i = 0; i < this.ids.length && this.started[i] >= oldest; i++) there.add(this.ids[i]);
      added = fresh.filter(line => !there.has(line.id));
    }
    const back = [...known].filter(id => !this.idIsListed(id));
    added = added.concat(back.map(id => this.lines.get(id)));
    added.sort((a, b) => b.started - a.started || b.id - a.id);
    const removed = others.filter(id => this.lines.has(id) && this.idIsListed(id));
    if (added.length || removed.length) {
      const top = this.box.scrollTop, stays = !this.isAtTop, first = this.ids[Math.floor(top / this.rowHeight)];
      for (const id of removed) { const i = this.ids.indexOf(id); this.ids.splice(i, 1); this.started.splice(i, 1); this.lines.delete(id); }
      const ids = [], started = [];
      let at = 0;
      for (const line of added) {
        const when = Math.round(line.started * 1000);
        while (at < this.ids.length && (this.started[at] > when || this.started[at] === when && this.ids[at] > line.id)) { ids.push(this.ids[at]); started.push(this.started[at]); at += 1; }
        ids.push(line.id);
        started.push(when);
      }
      this.ids = ids.concat(this.ids.slice(at));
      this.started = started.concat(this.started.slice(at));
      this.lay();
      if (stays && first !== undefined) {
        const now = this.ids.indexOf(first);
        if (now >= 0) this.box.scrollTop = top + (now - Math.floor(top / this.rowHeight)) * this.rowHeight;
      }
    }
    this.draw();
    return added.length;
  }

  idIsListed(id) {
    const line = this.lines.get(id);
    if (!line) return this.ids.includes(id);
    // ids stand by when their flows started
    const when = Math.round(line.started * 1000);
    let low = 0, high = this.started.length;
    while (low < high) { const middle = (low + high) >> 1; if (this.started[middle] > when) low = middle + 1; else high = middle; }
    for (let i = low; i < this.ids.length && this.started[i] === when; i++) if (this.ids[i] === id) return true;
    return false;
  }

  indexOf(id) { return this.ids.indexOf(id); }

  /** Draw in the next frame. */
  draw() {
    if (this.isQueued) return;
    this.isQueued = true;
    requestAnimationFrame(() => { this.isQueued = false; this.paint(); });
  }

  paint() {
    const height = this.rowHeight, top = this.box.scrollTop, seen = Math.ceil(this.box.clientHeight / height);
    const first = Math.max(0, Math.floor(top / height) - EXTRA), last = Math.min(this.ids.length, first + seen + 2 * EXTRA);
    const wanted = new Set();
    for (let i = first; i < last; i++) wanted.add(this.ids[i]);
    for (const [id, each] of this.inSight) if (!wanted.has(id)) { this.inSight.delete(id); this.spare.push(each); }
    for (let i = first; i < last; i++) {
      const id = this.ids[i];
      let each = this.inSight.get(id);
      if (!each) {
        each = this.spare.pop() || rowOf();
        each.line = undefined;
        each.id = id;
        each.row.id = `f${id}`;
        each.row.dataset.flow = String(id);
        this.inSight.set(id, each);
        if (!each.row.parentNode) this.space.append(each.row);
      }
      this.fill(each, i);
    }
    // rows out of sight stay in the page a while, as few as fit into it
    while (this.spare.length > 60) this.spare.pop().row.remove();
    for (const each of this.spare) each.row.remove();
    const missing = [];
    for (const id of wanted) if (!this.lines.has(id) && !this.gone.has(id)) missing.push(id);
    if (missing.length) this.need(first, last);
    this.moved(Math.floor(top / height));
  }

  fill(each, i) {
    const { row, cells } = each, line = this.lines.get(each.id) || null, isSelected = each.id === this.selected;
    row.style.setProperty("top", `${i * this.rowHeight}px`);
    row.setAttribute("aria-rowindex", String(i + 1));
    row.setAttribute("aria-selected", String(isSelected));
    if (line !== each.line || line && line.is_open && this.isLive) this.write(each, line);
  }

  write(each, line) {
    const { row, cells } = each;
    each.line = line;
    if (!line) {
      row.className = this.gone.has(each.id) ? "flow num gone" : "flow num";
      for (const i of [1, 2, 3, 5, 6, 7]) set(cells[i], "");
      dress(cells[0], "k");
      each.host.data = this.gone.has(each.id) ? "not kept any more" : "…";
      set(each.path, "");
      return;
    }
    const k = mark(line), said = status(line);
    dress(row, "flow num");
    dress(cells[0], `k ${k}`);
    if (cells[0].title !== said) cells[0].title = said;
    set(cells[1], clock(line.started));
    if (cells[1].dataset.at !== String(line.started)) { cells[1].dataset.at = String(line.started); cells[1].title = moment(line.started); }
    set(cells[2], line.program);
    set(cells[3], line.method);
    each.host.data = address(line);
    set(each.path, pathOf(line));
    dress(cells[5], `st ${k}`);
    set(cells[5], said);
    dress(cells[6], isCall(line) ? "what llm" : "what");
    set(cells[6], what(line));
    dress(cells[7], line.is_open && this.isLive ? "took r now" : "took r");
    set(cells[7], line.is_open ? this.isLive ? took(Math.max(0, Date.now() / 1000 - line.started)) : "" : took(line.took));
  }

  /** Show how long open flows take by now. */
  tick() {
    if (this.isLive) for (const each of this.inSight.values()) if (each.line && each.line.is_open) this.write(each, each.line);
  }

  /** Ask for the lines around these rows, in blocks. */
  async need(first, last) {
    const from = Math.max(0, Math.floor(first / BLOCK) * BLOCK), to = Math.min(this.ids.length, Math.ceil(last / BLOCK) * BLOCK);
    const missing = [];
    for (let i = from; i < to; i++) { const id = this.ids[i]; if (!this.lines.has(id) && !this.asked.has(id) && !this.gone.has(id)) missing.push(id); }
    if (!missing.length) return;
    const generation = this.generation;
    for (const id of missing) this.asked.add(id);
    try {
      for (let i = 0; i < missing.length; i += BLOCK) {
        const block = missing.slice(i, i + BLOCK), found = new Set();
        for (const line of await this.fetchLines(block)) { found.add(line.id); this.lines.set(line.id, line); }
        for (const id of block) if (!found.has(id)) this.gone.add(id);
      }
    } finally {
      if (generation === this.generation) for (const id of missing) this.asked.delete(id);
    }
    this.forget();
    this.draw();
  }

  /** Let go of lines that are far away, oldest use first; those of open flows stay. */
  forget() {
    let over = this.lines.size - BLOCK * BLOCKS_KEPT;
    if (over <= 0) return;
    for (const [id, line] of this.lines) {
      if (over <= 0) break;
      if (!line.is_open && id !== this.selected && !this.inSight.has(id)) { this.lines.delete(id); over -= 1; }
    }
  }

  /** Mark a row as chosen, and bring it into sight. */
  select(id, reveal) {
    this.selected = id;
    if (id === null) this.box.removeAttribute("aria-activedescendant");
    else this.box.setAttribute("aria-activedescendant", `f${id}`);
    const i = id === null ? -1 : this.indexOf(id);
    if (i >= 0 && reveal) {
      const top = i * this.rowHeight, box = this.box;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + this.rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + this.rowHeight - box.clientHeight;
    }
    for (const each of this.inSight.values()) each.row.setAttribute("aria-selected", String(each.id === id));
    this.draw();
  }

  /** The id that stands `d` rows from the chosen one. */
  neighbour(d) {
    if (!this.ids.length) return null;
    const i = this.selected === null ? -1 : this.indexOf(this.selected);
    return this.ids[i < 0 ? d > 0 ? Math.floor(this.box.scrollTop / this.rowHeight) : 0 : Math.min(this.ids.length - 1, Math.max(0, i + d))];
  }

  get count() { return n(this.ids.length); }
}
