"use strict";
const POLL_MS = 1000, PATIENCE_MS = 5000, POINTS = 180, SHOWN = 100, WATCH_TOKEN_SECONDS = 600;
const KEY = "gopush-api-key";
const at = id => document.getElementById(id);

class Refused extends Error {}

// --- calls ---

const WRONG = { 1001: "no such node", 65534: "not possible (65534)", 65535: "no answer from those concerned (65535)" };

async function call(method, path, query = {}, body = undefined) {
  const key = sessionStorage.getItem(KEY);
  const headers = { Prefer: "why", ...(key === null ? {} : { Authorization: "Bearer " + key }) };
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const answer = await fetch(`${path}?${new URLSearchParams(query)}`, { method, headers, body, signal, cache: "no-store" });
  if (answer.status === 401) {
    askForKey(key);
    throw new Refused("an API key is needed");
  }
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.text()).trim()}`);
  // An int64 is more than a JavaScript number holds exactly: mids stay text.
  const said = JSON.parse((await answer.text()).replace(/"mid":(\d+)/g, '"mid":"$1"'));
  if (said.ret !== 0) throw new Error((WRONG[said.ret] || "ret " + said.ret) + (said.why ? ": " + said.why : ""));
  return said.data || {};
}

function tell(id, text, good = true) {
  at(id).textContent = text;
  at(id).className = good ? "good" : "bad";
}

/** Do it, and say below what came of it. */
async function act(id, done, work) {
  try {
    const answer = await work();
    tell(id, typeof done === "function" ? done(answer) : done);
  } catch (wrong) {
    tell(id, wrong.message, false);
  }
}

// --- the API key ---

function askForKey(given) {
  // Several calls are refused at once: those that used a key which is no longer the one say nothing.
  if (given !== sessionStorage.getItem(KEY)) return;
  sessionStorage.removeItem(KEY);
  at("login").hidden = false;
  at("all").hidden = true;
  at("logout").hidden = true;
  tell("state", "locked", false);
  if (given !== null) tell("login-answer", "This key is not known here.", false);
  stopWatching("nothing");
}

at("login").querySelector("form").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("api-key").value.trim());
  at("api-key").value = "";
  tell("login-answer", "");
  poll();
};
at("logout").onclick = () => {
  sessionStorage.removeItem(KEY);
  location.reload();
};

// --- charts ---

class Chart {
  constructor(name, title, unit, colour) {
    this.times = [];
    this.values = [];
    const box = document.createElement("div"), head = document.createElement("p"), label = document.createElement("span");
    box.className = "chart";
    box.id = "chart-" + name;
    label.textContent = title;
    this.now = document.createElement("b");
    this.unit = unit;
    head.append(label, this.now);
    box.append(head);
    at("charts").append(box);
    const grid = { stroke: "#8883", width: 1 }, axis = { stroke: "#888", grid, ticks: grid, font: "11px system-ui" };
    this.box = box;
    this.plot = new uPlot({
      ...this.size(), legend: { show: false }, cursor: { show: false }, scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.15 : 1] } },
      axes: [{ ...axis, size: 26, space: 70 }, { ...axis, size: 46 }],
      series: [{}, { stroke: colour, width: 1.5, fill: colour + "22", points: { size: 4, fill: colour } }],
    }, [[], []], box);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(box);
  }

  size() { return { width: Math.max(100, this.box.clientWidth - 12), height: 130 }; }

  add(time, value) {
    this.times.push(time);
    this.values.push(value);
    if (this.times.length > POINTS) { this.times.shift(); this.values.shift(); }
    this.now.textContent = value === null ? "" : `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)}${this.unit}`;
    this.plot.setData([this.times, this.values]);
  }
}

let charts = null, before = null;

/** The rise of a counter a second; a process that began anew, or is not heard, has none. */
const rise = (now, then, seconds) => Math.max(0, now - then) / seconds;
const total = values => values.reduce((sum, value) => sum + value, 0);

/** Seconds within which the given share of what was counted lies, in the middle of its bucket. */
function quantile(share, bounds, counts) {
  let left = share * total(counts);
  if (left === 0) return null;
  for (let i = 0; i < counts.length; i++) {
    const low = i ? bounds[i - 1] : 0, high = i < bounds.length ? bounds[i] : 2 * low;
    if (left <= counts[i]) return low + (high - low) * left / counts[i];
    left -= counts[i];
  }
  return null;
}

function draw(status, nodes) {
  charts ||= {
    connections: new Chart("connections", "Connections", "", "#3b82c4"),
    pushes: new Chart("pushes", "Pushes here", "/s", "#2a9d5f"),
    deliveries: new Chart("deliveries", "Deliveries", "/s", "#b07a1e"),
    latency: new Chart("latency", "Latency here, p99", " ms", "#b0457a"),
  };
  const time = Date.now() / 1000, heard = nodes.filter(node => node.deliveries !== null);
  const now = { time, pushes: total(Object.values(status.pushes)), took: status.push_seconds, deliveries: new Map() };
  for (const node of heard) now.deliveries.set(node.rpc[0], node.deliveries);
  charts.connections.add(time, total(nodes.map(node => node.connections || 0)));
  if (before !== null) {
    const seconds = time - before.time, known = [...now.deliveries].filter(([name]) => before.deliveries.has(name));
    charts.pushes.add(time, rise(now.pushes, before.pushes, seconds));
    charts.deliveries.add(time, total(known.map(([name, count]) => rise(count, before.deliveries.get(name), seconds))));
    const counts = now.took.counts.map((count, i) => Math.max(0, count - before.took.counts[i]));
    const p99 = quantile(0.99, now.took.bounds, counts);
    charts.latency.add(time, p99 === null ? null : 1000 * p99);
  }
  before = now;
}

// --- nodes ---

function span(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== "") made.textContent = text;
  return made;
}

function cell(name, ...content) {
  const made = document.createElement("td");
  if (name === "buttons") made.className = name;
  else made.dataset.name = name;
  made.append(...content);
  return made;
}

/** A row is made once and then kept up to date: a weight that is being typed stays. */
class Row {
  constructor(node) {
    this.row = document.createElement("tr");
    this.row.dataset.id = Row.id(node);
    this.name = node.node;
    this.address = node.rpc[0];
    this.state = element("span");
    this.weight = element("input", "", { type: "number", min: 1, max: 1000, value: node.weight, ariaLabel: "weight" });
    this.weigh = element("button", "Set", { onclick: () => this.tell("weight", this.name, { weight: this.weight.value }) });
    this.weigh.className = "weigh";
    this.weighed = node.weight;
    this.connections = element("span");
    this.keys = element("span");
    this.age = element("span");
    this.drain = element("button", "Drain", { onclick: () => this.tell("drain", this.address) });
    this.undrain = element("button", "Undrain", { onclick: () => this.tell("undrain", this.address) });
    this.drain.className = "drain";
    this.undrain.className = "undrain";
    const addresses = [["rpc", node.rpc], ["tcp", node.tcp], ["ws", node.ws]].filter(([, list]) => list.length);
    const shown = addresses.map(([kind, list]) => element("small", `${kind} ${list.join(" ")}`));
    this.row.append(
      cell("", `${node.role} `, element("b", node.node)), cell("", this.state), cell("weight", this.weight, " ", this.weigh),
      cell("connections", this.connections), cell("keys", this.keys), cell("age", this.age), cell("", ...shown),
      cell("buttons", this.drain, this.undrain));
    this.row.children[2].className = "buttons";
  }

  static id(node) { return `${node.role} ${node.rpc[0]}`; }

  tell(what, node, more = {}) {
    return act("nodes-answer", `${what} ${node}: done`, async () => {
      await call("POST", "/1/admin/node/" + what, { node, ...more });
      await poll();
    });
  }

  show(node) {
    const silent = node.age === null;
    this.state.textContent = silent ? `${node.state}, silent` : node.state;
    this.state.className = silent || node.state === "draining" ? "bad" : "good";
    if (node.weight !== this.weighed) this.weight.value = this.weighed = node.weight;
    const numbers = [[this.connections, node.connections], [this.keys, node.channels], [this.age, silent ? null : span(node.age)]];
    for (const [place, number] of numbers) {
      place.textContent = number ?? "";
      place.parentNode.classList.toggle("none", number === null);
    }
    this.drain.hidden = node.state === "draining";
    this.undrain.hidden = !this.drain.hidden;
  }
}

const rows = new Map();

function list(nodes) {
  const body = at("nodes").tBodies[0], ids = nodes.map(Row.id);
  for (const [id, row] of rows) {
    if (!ids.includes(id)) { row.row.remove(); rows.delete(id); }
  }
  for (const node of nodes) {
    const id = Row.id(node);
    if (!rows.has(id)) {
      rows.set(id, new Row(node));
      body.append(rows.get(id).row);
    }
    rows.get(id).show(node);
  }
}

// --- slow connections ---

function fill(table, rows) {
  at(table).tBodies[0].replaceChildren(...rows.map(cells => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
}

function showSlowest(slowest) {
  at("slowest").hidden = slowest.length === 0;
  at("slowest-answer").textContent = slowest.length ? "" : "Nobody is behind: clients take what they are sent.";
  fill("slowest", slowest.map(slow => [
    cell("key", element("b", slow.key)), cell("", slow.node), cell("", slow.peer, element("small", slow.kind)),
    cell("messages", String(slow.messages)), cell("bytes", String(slow.bytes)), cell("behind for", span(Math.floor(slow.seconds))),
  ]));
}

// --- the round ---

let polling = 0;

async function poll() {
  clearTimeout(polling);
  try {
    const [status, { nodes }, { slowest }] =
      await Promise.all(["status", "nodes", "slowest"].map(what => call("GET", "/1/admin/" + what)));
    at("login").hidden = true;
    at("all").hidden = false;
    at("logout").hidden = sessionStorage.getItem(KEY) === null;
    const silent = nodes.filter(node => node.age === null).length;
    tell("state", `${nodes.length} processes` + (silent ? `, ${silent} silent` : ""), silent === 0);
    list(nodes);
    showSlowest(slowest);
    draw(status, nodes);
  } catch (wrong) {
    if (wrong instanceof Refused) return;
    tell("state", "no answer: " + wrong.message, false);
  }
  clearTimeout(polling);
  polling = setTimeout(poll, POLL_MS);
}

// --- a key ---

const when = seconds => new Date(seconds * 1000).toLocaleString();
const shownKey = () => at("key").value;

async function look() {
  const key = shownKey(), found = await call("GET", "/1/admin/key", { key });
  at("key-view").hidden = false;
  const counts = found.subscribers.map(comet => `${comet.node} (${comet.rpc[0]}): ${comet.count ?? "silent"}`);
  at("subscribers").textContent = "Subscribers: " + (counts.join(", ") || "there is no comet");
  fill("messages", found.messages.slice(-SHOWN).reverse().map(({ mid, size }) =>
    [cell("", mid), cell("", when(Number(mid) / 1e7)), cell("", String(size))]));
  fill("tokens", found.tokens.map(({ digest, expires }) => {
    const revoke = element("button", "Revoke", { onclick: () => change("revoked", "DELETE", "token", { digest }) });
    revoke.className = "revoke";
    return [cell("", digest.slice(0, 16) + "…"), cell("", when(expires)), cell("buttons", revoke)];
  }));
  const all = found.more ? "the oldest 1000 and more" : found.messages.length;
  return `${key}: messages kept: ${all}, tokens: ${found.tokens.length}`;
}

/** Change something of the key and show it anew. */
function change(done, method, what, query = {}, body = undefined) {
  return act("key-answer", said => said, async () => {
    const answer = await call(method, "/1/admin/" + what, { key: shownKey(), ...query }, body);
    if (answer.token) at("token").textContent = `Shown once: ${answer.token}`;
    const counted = answer.closed === undefined ? "" : ` ${answer.closed}`;
    return `${done}${counted}. ${await look()}`;
  });
}

at("look").onsubmit = event => {
  event.preventDefault();
  at("token").textContent = "";
  act("key-answer", said => said, look);
};
at("close").onclick = () => change("closed", "POST", "key/close");
at("delete").onclick = () => change("deleted", "POST", "msg/del", {}, new URLSearchParams({ key: shownKey() }));
at("create-token").onsubmit = event => {
  event.preventDefault();
  change("created", "POST", "token", { life: at("life").value });
};
at("push").onsubmit = event => {
  event.preventDefault();
  if (!shownKey()) return at("key").focus();
  return act("push-answer", ({ mid }) => `stored as ${mid}`, async () => {
    const query = { key: shownKey(), expire: at("expire").value, mid: 1 };
    const answer = await call("POST", "/1/admin/push/private", query, at("body").value);
    if (!at("key-view").hidden) act("key-answer", said => said, look);
    return answer;
  });
};

// --- watching: this page as a subscriber ---

const [scheme, port] = document.querySelector("meta[name=gopush-public]").content.split(":");
const PUBLIC = port ? `${scheme}://${location.hostname}:${port}` : location.origin;
/** The subscription; whether it ever was live, why it was lost since, and why it is away. */
let watching = null, lived = false, lost = "", reason = "";

function stopWatching(text, good = true) {
  const mine = watching;
  watching = null;
  if (mine !== null) mine.close();
  at("watch").textContent = "Watch";
  tell("watching", text, good);
}

function showState(key, state, why) {
  if (state === "closed") return stopWatching(`${key}: refused: ${why}`, false);
  if (state === "live") {
    tell("watching", lost === "" ? key : `${key} (resumed: ${lost})`);
    reason = "";
    return lived = true;
  }
  if (state === "away") reason = why;
  if (state === "away" && lived) lost = why;
  // A browser does not tell a page why: it may be the list of origins, which this page is not on.
  const hint = /fetch/i.test(reason) ? `. Where ${PUBLIC} lists origins, its ini file needs: [connections] origins = ${location.origin}` : "";
  return tell("watching", `${key}: ${state}${reason && `: ${reason}`}${hint}`, reason === "");
}

function showMessage({ text, mid }) {
  const item = element("li", text);
  item.append(element("small", "mid " + mid));
  at("arrived").prepend(item);
  while (at("arrived").children.length > SHOWN) at("arrived").lastChild.remove();
}

async function tokenFor(key, refusal) {
  if (refusal === "") return "";
  return (await call("POST", "/1/admin/token", { key, life: WATCH_TOKEN_SECONDS })).token;
}

at("watch").onclick = () => {
  if (watching !== null) return stopWatching("nothing");
  if (!at("look").reportValidity()) return undefined;
  const key = shownKey();
  lived = false;
  lost = reason = "";
  at("watch").textContent = "Stop watching";
  watching = gopush.subscribe(PUBLIC, key, {
    onMessage: showMessage,
    onState: (state, why) => { if (state !== "closed" || watching !== null) showState(key, state, why); },
    token: refusal => tokenFor(key, refusal),
  });
  return undefined;
};

poll();
