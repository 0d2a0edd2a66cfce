"use strict";
/** What both pages have: calls of the admin port, the API key, where the public port is, and words for what went wrong. */
const PATIENCE_MS = 5000, WATCH_TOKEN_SECONDS = 600;
let GOOD_MS = 10000;
const KEY = "gopush-api-key";
/** What a header takes: with another key there would be no call, and so no answer. */
const SENDABLE = /^[!-~]*$/;
const at = id => document.getElementById(id);
const meta = name => document.querySelector(`meta[name=gopush-${name}]`).content;

/** The API key of this tab; where the browser forbids pages to store anything, this page alone has it. */
const apiKey = {
  own: null,
  get() {
    try {
      return sessionStorage.getItem(KEY) ?? this.own;
    } catch {
      return this.own;
    }
  },
  set(key) {
    this.own = key;
    try {
      if (key === null) sessionStorage.removeItem(KEY);
      else sessionStorage.setItem(KEY, key);
    } catch {
      // It lasts until the page is left.
    }
  },
};

/** The call wants an API key; nobody answers at all. */
class Refused extends Error {}
class Away extends Error {}

const WRONG = {
  1001: "no such node", 65534: "not possible", 65535: "no answer in time; try again",
};
const STATUSES = { 403: "not allowed", 413: "too large", 429: "too often: this API key's pushes for this second are used up" };
/** Why a subscription is away or closed, where gopush.js gives a reply of the protocol. */
const REPLIES = {
  "-p": "the server does not accept the key, or the place to go on from",
  "-a": "the token is not valid for this key, or not any more",
  "-c": "this key needs a token, and nobody has made one for it",
  "-n": "another node holds this key now",
  "-l": "this key, or this address, has as many connections as it may have",
};
const inWords = why => REPLIES[why] || (/fetch|abort/i.test(why) ? "the server does not answer" : why);

/** The text of an answer that is good. */
async function ask(method, path, query = {}, body = undefined) {
  const key = apiKey.get();
  if (key !== null && !SENDABLE.test(key)) refuse(key);
  const headers = { Prefer: "why", ...(key === null ? {} : { Authorization: "Bearer " + key }) };
  let answer, text;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    answer = await fetch(`${path}?${new URLSearchParams(query)}`, { method, headers, body, signal, cache: "no-store" });
    text = (await answer.text()).trim();
  } catch {
    throw new Away("the server does not answer");
  }
  if (answer.status === 401) refuse(key);
  if (!answer.ok) throw new Error([STATUSES[answer.status] || `HTTP ${answer.status}`, text.replace(/^[^:]*: /, "")].join(": "));
  const ret = /^\{"ret":(\d+)/.exec(text);
  if (!ret) throw new Error("this is not an answer of gopush");
  if (ret[1] === "0") return text;
  const { why } = JSON.parse(text);
  throw new Error((WRONG[ret[1]] || "ret " + ret[1]) + (why ? ": " + why : ""));
}

/** The data of an answer. An int64 is more than a JavaScript number holds exactly: mids stay text. */
async function call(method, path, query = {}, body = undefined) {
  const text = await ask(method, path, query, body);
  return JSON.parse(text.replace(/"mid":(\d+)/g, '"mid":"$1"')).data || {};
}

/** The text of a kept message, byte for byte. */
async function kept(key, mid) {
  const text = await ask("GET", "/1/admin/key/message", { key, mid });
  return /^\{"ret":0,"data":\{"msg":([^]*),"mid":\d+,"gid":\d+\}\}$/.exec(text)[1];
}

const fading = new Map();

/** Say it there; what went well fades. */
function tell(id, text, good = true, stays = !good) {
  const place = at(id);
  clearTimeout(fading.get(id));
  place.textContent = text;
  place.className = good ? "good" : "bad";
  if (stays || text === "") return;
  fading.set(id, setTimeout(() => {
    place.classList.add("fading");
    fading.set(id, setTimeout(() => tell(id, ""), 1500));
  }, GOOD_MS));
}

/** Do it, and say there what came of it. */
async function act(id, done, work) {
  try {
    const answer = await work();
    const said = typeof done === "function" ? done(answer) : done;
    if (said) tell(id, said);
  } catch (wrong) {
    tell(id, wrong.message, false);
  }
}

function element(tag, text = "", properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== "") made.textContent = text;
  return made;
}

/** Put a line with a small remark at the head of a list, which keeps the newest `most`. */
function note(list, text, small, most, name = "") {
  const item = element("li", text, { className: name });
  item.append(element("small", small));
  at(list).prepend(item);
  while (at(list).children.length > most) at(list).lastChild.remove();
}

/** Copy text: where the page is not served over TLS, browsers have the old way alone. */
async function copy(text) {
  try {
    return await navigator.clipboard.writeText(text);
  } catch {
    // There is none, or it may not be used.
  }
  const field = element("textarea", "", { value: text });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("the browser does not let the page copy: select the text, and copy it");
  return undefined;
}

// --- the API key ---

/** What a page does when it is locked, and when it is opened. */
const doors = { locked: () => {}, opened: () => {} };

function askForKey(given) {
  // Several calls are refused at once: those that used a key which is no longer the one say nothing.
  if (given !== apiKey.get()) return;
  apiKey.set(null);
  at("login").hidden = false;
  at("all").hidden = true;
  at("logout").hidden = true;
  if (given !== null) tell("login-answer", "This key is not known here.", false);
  doors.locked();
}

function refuse(given) {
  askForKey(given);
  throw new Refused("an API key is needed");
}

function letIn() {
  at("login").hidden = true;
  at("all").hidden = false;
  at("logout").hidden = apiKey.get() === null;
}

at("login").querySelector("form").onsubmit = event => {
  event.preventDefault();
  apiKey.set(at("api-key").value.trim());
  at("api-key").value = "";
  tell("login-answer", "");
  doors.opened();
};
at("logout").onclick = () => {
  apiKey.set(null);
  location.reload();
};

// --- as a subscriber ---

async function isPublic(url) {
  try {
    const answer = await fetch(url + "/1/time/get", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    return answer.ok && (await answer.json()).ret === 0;
  } catch {
    return false;
  }
}

/** The public port as this browser reaches it: as the ini file says; at its port on this host; or at this very address,
    where a proxy leads both. A page that came over TLS may ask nobody without. */
async function findPublic() {
  const [scheme, port] = meta("public").split(":"), secure = location.protocol === "https:";
  const host = location.hostname, given = meta("urls").split(" ").filter(Boolean);
  const own = port ? [...(secure ? [] : [`${scheme}://${host}:${port}`]), `https://${host}:${port}`] : [];
  const urls = given.length ? given : secure ? [location.origin, ...own] : [...own.slice(0, 1), location.origin];
  if (urls.length === 1 || !(secure || given.length)) return urls[0];
  for (const url of urls) if (await isPublic(url)) return url;
  return urls[0];
}
const PUBLIC = findPublic();

/** A browser does not tell a page why it has no answer: a tunnel may lack this port, or a list of origins this page. */
const hintOfPublic = url =>
  `. The browser must reach ${url}, through a tunnel too. If that lists origins, its ini file needs: [connections] origins = ${location.origin}`;

async function tokenFor(key, refusal) {
  if (refusal === "") return "";
  return (await call("POST", "/1/admin/token", { key, life: WATCH_TOKEN_SECONDS })).token;
}

PUBLIC.then(url => { at("api").href = url + "/openapi.json"; });
if (meta("docs")) at("docs").href = meta("docs");
else at("docs").hidden = true;
