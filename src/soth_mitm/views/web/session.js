// The page's session: its key, what it asks the server, and the stream of changes.

const KEY = "soth-mitm key";

/** What the server answered that is no success. `at` and `hint` are of a filter's fault. */
export class Refused extends Error {
  constructor(status, told) {
    super(told.error || `the view answered ${status}`);
    this.status = status;
    this.filter = told.filter;
    this.at = told.at;
    this.hint = told.hint;
  }
}

let key = sessionStorage.getItem(KEY);

async function told(response) {
  try { return await response.json(); } catch { return {}; }
}

/** Take the secret out of the address, and exchange it for the key of a session. */
export async function open(parameters) {
  const secret = parameters.get("secret");
  if (secret === null) return;
  parameters.delete("secret");
  history.replaceState(null, "", "#" + parameters);
  const response = await fetch("/api/session", { method: "POST", body: JSON.stringify({ secret }), headers: { "Content-Type": "application/json" } });
  const answer = await told(response);
  if (!response.ok) {
    // a page that has a session goes on with it, as when an address is opened twice in one tab
    if (key === null) throw new Refused(response.status, answer);
    return;
  }
  key = answer.key;
  sessionStorage.setItem(KEY, key);
}

async function fetched(path, parameters, signal) {
  const text = new URLSearchParams(parameters || {}).toString();
  const response = await fetch(text ? `${path}?${text}` : path, { headers: { Authorization: `Bearer ${key || ""}` }, signal });
  if (!response.ok) throw new Refused(response.status, await told(response));
  return response;
}

export const ask = async (path, parameters, signal) => (await fetched(path, parameters, signal)).json();
export const blob = async (path, parameters, signal) => (await fetched(path, parameters, signal)).blob();

/** Read a stream of events, and call `take(name, data)` for each. Returns when it ends, throws when it breaks. */
export async function stream(path, parameters, signal, opened, take) {
  const response = await fetched(path, parameters, signal);
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = block.match(/^event: (.*)$/m), data = block.match(/^data: (.*)$/m);
      if (name && data) take(name[1], JSON.parse(data[1]));
    }
  }
}
