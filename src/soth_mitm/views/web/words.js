// Numbers and states as people read them. What was not observed is said to be unknown, never shown as zero.

import { visible } from "/dom.js";

export const n = x => x.toLocaleString("en-US");

export function bytes(x) {
  if (x === null || x === undefined) return "unknown";
  if (x < 1000) return `${x} B`;
  if (x < 1e6) return `${(x / 1e3).toFixed(x < 1e4 ? 1 : 0)} kB`;
  return x < 1e9 ? `${(x / 1e6).toFixed(1)} MB` : `${(x / 1e9).toFixed(2)} GB`;
}

/** As bytes of a store are counted: limits are powers of two there. */
export const stored = x => x < 1 << 20 ? `${Math.ceil(x / 1024)} KiB` : x < 1 << 30 ? `${Math.round(x / (1 << 20))} MiB` : `${(x / (1 << 30)).toFixed(x % (1 << 30) ? 1 : 0)} GiB`;

/** A duration in seconds. */
export function took(s) {
  if (s === null || s === undefined) return "";
  const ms = s * 1000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${Math.floor(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} m`;
}

const two = x => String(x).padStart(2, "0");

export function clock(seconds) {
  const d = new Date(seconds * 1000);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function moment(seconds) {
  const d = new Date(seconds * 1000);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(seconds)}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

export const short = x => x < 1000 ? String(x) : x < 1e6 ? `${Math.round(x / 1e3)} k` : `${(x / 1e6).toFixed(1)} M`;
export const counted = (x, what) => `${n(x)} ${what}${x === 1 ? "" : "s"}`;

/** Which mark a flow has: live, err, warn, tun, or none. Only exceptions have one. */
export function mark(f) {
  if (f.is_open) return "live";
  if (["blocked", "refused", "upstream_error", "upstream_timeout", "aborted"].includes(f.outcome) || f.status >= 500) return "err";
  if (f.is_lost || f.outcome.startsWith("cut_") || f.status >= 400) return "warn";
  return f.kind === "tunnel" ? "tun" : "";
}

export function status(f) {
  if (f.is_open) return f.status ? String(f.status) : "open";
  if (f.is_lost) return "lost";
  if (f.outcome === "blocked" || f.outcome === "refused" || f.outcome === "aborted") return f.outcome;
  if (f.outcome.startsWith("cut_")) return "cut";
  if (f.outcome === "upstream_timeout") return "timeout";
  if (f.outcome === "upstream_error") return f.status ? String(f.status) : "failed";
  if (f.kind === "tunnel") return "tunnel";
  return f.status ? String(f.status) : "ended";
}

/** What there is to say of a flow's content. */
export function what(f) {
  if (f.is_model_call && (f.tokens_in !== null || f.tokens_out !== null)) {
    const side = x => x === null ? f.is_open ? "…" : "unknown" : n(x);
    // what a provider counted before its answer was cut is not all of it
    const more = f.tokens_out !== null && f.outcome.startsWith("cut_") ? "+" : "";
    return `${side(f.tokens_in)} → ${side(f.tokens_out)}${more} tokens`;
  }
  if (f.is_model_call && !f.is_open && f.status >= 200 && f.status < 300) return "tokens unknown";
  if (f.has_messages && f.message_count !== null) return counted(f.message_count, "message");
  if (f.kind === "websocket" && !f.request_size && !f.response_size) return "";
  if (f.kind === "tunnel" || f.kind === "websocket") return bytes((f.request_size || 0) + (f.response_size || 0));
  return f.response_size === null ? "" : bytes(f.response_size);
}

export const isCall = f => f.is_model_call && (f.is_open || f.status < 300);
export const address = f => visible(f.host + (f.port && !(f.scheme === "https" && f.port === 443 || f.scheme === "http" && f.port === 80) ? `:${f.port}` : ""));
export const pathOf = f => visible(f.path === "*" ? " *" : f.path);
