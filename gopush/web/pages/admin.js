"use strict";
/** The cluster: its processes, its busiest keys, its slowest connections. key.js has one key. */
const POLL_MS = 1000, KEYS_MS = 5000, BUSIEST = 50;

// --- asking before what cannot be taken back ---

/** Whether it is to be done: `button` says what. */
function sure(question, button) {
  const dialog = at("confirm");
  at("question").textContent = question;
  at("do-it").textContent = button;
  dialog.returnValue = "";
  dialog.showModal();
  at("do-not").focus();
  return new Promise(done => { dialog.onclose = () => done(dialog.returnValue === "yes"); });
}

// --- tables ---

function span(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${seconds} s`;
}

/** Pushes in words: by the second, or where they are rare by the minute. */
function often(rate) {
  if (rate === 0) return "none";
  return rate >= 1 ? `${rounded(rate)}/s` : `${rounded(60 * rate)}/min`;
}

function cell(name, ...content) {
  const made = document.createElement("td");
  if (name === "buttons") made.className = name;
  else made.dataset.name = name;
  made.append(...content);
  return made;
}

/** Rows of as many cells each. What has not changed stays, and with it whom the pointer or the focus is on. */
function fill(table, rows) {
  const body = at(table).tBodies[0];
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  rows.forEach((cells, i) => {
    const row = body.rows[i] || body.insertRow();
    if (row.cells.length !== cells.length) row.replaceChildren(...cells);
    cells.forEach((cell, j) => {
      if (!row.cells[j].isEqualNode(cell)) row.cells[j].replaceChildren(...cell.childNodes);
    });
  });
}

/** A key's name, which shows it. */
const keyButton = key => element("button", key, { className: "key", title: "show this key", onclick: () => showKey(key) });

// --- nodes ---

/** One row for a process: who is a comet and a message node at one address is drained, and weighed, as both. */
function processes(nodes) {
  const found = new Map();
  for (const node of nodes) {
    const known = found.get(node.rpc[0]);
    if (known) found.set(node.rpc[0], { ...known, role: `${known.role}, ${node.role}`, age: known.age ?? node.age });
    else found.set(node.rpc[0], node);
  }
  return [...found.values()];
}

/** A row is made once for a name and addresses, and then kept up to date: a weight that is being typed stays. */
class Row {
  constructor(node) {
    this.row = document.createElement("tr");
    this.name = node.node;
    this.address = node.rpc[0];
    this.row.dataset.id = Row.id(node);
    const title = this.name === this.address ? this.name : `${this.name} (${this.address})`;
    const button = (what, text, label, work) => element("button", text, { className: what, ariaLabel: label, onclick: work });
    this.state = element("span");
    this.weight = element("input", "", { type: "number", min: 1, max: 1000, value: node.weight, ariaLabel: `weight of ${this.name}` });
    this.weigh = button("weigh", "Set", `Set the weight of ${this.name}`, () => this.tell("weight", this.name, { weight: this.weight.value }));
    this.weighed = node.weight;
    this.connections = element("span");
    this.keys = element("span");
    this.age = element("span");
    this.version = element("span");
    this.drain = button("drain danger", "Drain", `Drain ${title}`, () => this.askToDrain(title));
    this.undrain = button("undrain", "Undrain", `Undrain ${title}`, () => this.tell("undrain", this.address));
    const addresses = [["rpc", node.rpc], ["tcp", node.tcp], ["ws", node.ws]].filter(([, list]) => list.length);
    const shown = addresses.map(([kind, list]) => element("small", `${kind} ${list.join(" ")}`));
    this.row.append(
      cell("", `${node.role} `, element("b", node.node)), cell("", this.state), cell("weight", this.weight, " ", this.weigh),
      cell("connections", this.connections), cell("keys", this.keys), cell("age", this.age), cell("version", this.version),
      cell("", ...shown), cell("buttons", this.drain, this.undrain));
    this.row.children[2].className = "buttons";
  }

  static id({ role, node, rpc, tcp, ws }) { return [role, node, ...rpc, ...tcp, ...ws].join(" "); }

  tell(what, node, more = {}) {
    return act("nodes-answer", `${what} ${node}: done`, async () => {
      await call("POST", "/1/admin/node/" + what, { node, ...more });
      await poll();
    });
  }

  async askToDrain(title) {
    if (await sure(`Drain ${title}? It hands over all that it has: its subscribers move to other nodes, and it takes no new ones until you undrain it.`, "Drain it")) {
      await this.tell("drain", this.address);
    }
  }

  show(node) {
    const silent = node.age === null;
    this.state.textContent = silent ? `${node.state}, silent` : node.state;
    this.state.className = silent || node.state === "draining" ? "bad" : "good";
    if (node.weight !== this.weighed) this.weight.value = this.weighed = node.weight;
    const figures = [
      [this.connections, node.connections], [this.keys, node.channels], [this.age, silent ? null : span(node.age)],
      [this.version, node.version],
    ];
    for (const [place, figure] of figures) {
      place.textContent = figure ?? "";
      place.parentNode.classList.toggle("none", figure === null);
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

function showSlowest(slowest) {
  at("slowest").hidden = slowest.length === 0;
  at("slowest-answer").textContent = slowest.length ? "" : "Nobody is behind: all clients read what they get.";
  fill("slowest", slowest.map(slow => [
    cell("", keyButton(slow.key)), cell("", slow.node), cell("", slow.peer, element("small", slow.kind)),
    cell("messages", String(slow.messages)), cell("bytes", String(slow.bytes)), cell("behind for", span(Math.floor(slow.seconds))),
  ]));
}

// --- busy keys ---

let prefix = "", looking = 0;

async function lookForKeys() {
  clearTimeout(looking);
  try {
    const asked = prefix, { keys, silent } = await call("GET", "/1/admin/keys", { prefix, most: BUSIEST });
    if (asked !== prefix) return;
    const none = prefix ? `No key that begins with ${prefix} has connections, or got a push in the last minute.`
      : "No key has connections, or got a push in the last minute.";
    const missing = silent.length ? ` ${silent.join(", ")} did not answer, or is of an older release: its keys are missing.` : "";
    tell("keys-answer", (keys.length ? "" : none) + missing, !missing, true);
    if (!missing) at("keys-answer").className = "";
    at("keys").hidden = keys.length === 0;
    fill("keys", keys.map(busy => [
      cell("", keyButton(busy.key)), cell("connections", String(busy.connections)), cell("pushes", often(busy.rate)),
      cell("node", busy.node ?? "no comet"),
    ]));
  } catch (wrong) {
    if (wrong instanceof Refused) return;
    if (!(wrong instanceof Away)) tell("keys-answer", wrong.message, false);
  }
  clearTimeout(looking);
  looking = setTimeout(lookForKeys, KEYS_MS);
}

at("find").onsubmit = event => {
  event.preventDefault();
  prefix = at("prefix").value;
  lookForKeys();
};

// --- the round ---

let polling = 0;

function away() {
  drawNothing();
  if (document.body.classList.contains("gone")) return;
  document.body.classList.add("gone");
  at("banner").hidden = false;
  at("banner").textContent = `The server does not answer, since ${new Date().toLocaleTimeString()}. The page shows its last answer, and tries again.`;
  tell("state", "gone", false);
}

function back() {
  if (!document.body.classList.contains("gone")) return;
  document.body.classList.remove("gone");
  at("banner").hidden = true;
  lookForKeys();
}

async function poll() {
  clearTimeout(polling);
  try {
    const [status, { nodes }, { slowest }] =
      await Promise.all(["status", "nodes", "slowest"].map(what => call("GET", "/1/admin/" + what)));
    back();
    letIn();
    if (!looking) lookForKeys();
    const each = processes(nodes), silent = each.filter(node => node.age === null).length;
    at("about").textContent = `${status.cluster ? `cluster ${status.cluster}` : "one process alone"}, version ${status.version}`;
    tell("state", `${each.length} ${each.length === 1 ? "process" : "processes"}` + (silent ? `, ${silent} silent` : ""), silent === 0, true);
    list(each);
    showSlowest(slowest);
    draw(status, nodes);
  } catch (wrong) {
    if (wrong instanceof Refused) return;
    if (wrong instanceof Away) {
      away();
    } else {
      // An API key of a prefix is not good for what is about all; for its keys it is.
      back();
      letIn();
      tell("state", wrong.message, false);
    }
  }
  clearTimeout(polling);
  polling = setTimeout(poll, POLL_MS);
}

const [statScheme, statPort] = meta("stat").split(":");
if (statPort) at("metrics").href = `${statScheme}://${location.hostname}:${statPort}/metrics`;
else at("metrics").hidden = true;
doors.locked = () => {
  back();
  clearTimeout(looking);
  looking = 0;
  tell("state", "locked", false);
  stopWatching("nothing");
};
doors.opened = poll;
poll();
