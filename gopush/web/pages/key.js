"use strict";
/** One key: what there is of it, and what can be done with it. All of that is done with the key that is shown. */
const SHOWN = 100;
const when = seconds => new Date(seconds * 1000).toLocaleString();

/** The key that is shown, and the bodies of its messages that are, by mid. */
let shown = null;
const bodies = new Map();

function messageRows({ mid, size }) {
  const open = bodies.has(mid), label = `${open ? "Hide" : "Show"} message ${mid}`;
  const button = element("button", open ? "Hide" : "Show", { className: "show-body", ariaLabel: label, onclick: () => toggle(mid) });
  const row = element("tr");
  row.dataset.mid = mid;
  row.append(cell("mid", mid), cell("pushed", when(Number(mid) / 1e7)), cell("bytes", String(size)), cell("buttons", button));
  if (!open) return [row];
  const body = element("tr", "", { className: "body" }), place = element("td", "", { colSpan: 4 });
  place.append(element("pre", bodies.get(mid), { tabIndex: 0 }));
  body.append(place);
  return [row, body];
}

let messages = [];

const showMessages = () => at("messages").tBodies[0].replaceChildren(...messages.flatMap(messageRows));

/** A message's body, which is fetched only when somebody wants to see it. */
function toggle(mid) {
  return act("key-answer", "", async () => {
    if (!bodies.delete(mid)) {
      const key = shown, body = await kept(key, mid);
      if (key !== shown) return;
      bodies.set(mid, body);
    }
    showMessages();
    at("messages").querySelector(`tr[data-mid="${mid}"] button`).focus();
  });
}

async function look() {
  const key = shown, found = await call("GET", "/1/admin/key", { key });
  if (key !== shown) return "";
  at("key-view").hidden = false;
  at("shown-key").textContent = key;
  differs();
  const counts = found.subscribers.map(comet => `${comet.node} (${comet.rpc[0]}): ${comet.count ?? "silent"}`);
  at("subscribers").textContent = "Subscribers: " + (counts.join(", ") || "there is no comet");
  messages = found.messages.slice(-SHOWN).reverse();
  showMessages();
  at("no-messages").hidden = messages.length > 0;
  at("messages").hidden = messages.length === 0;
  at("tokens").hidden = found.tokens.length === 0;
  fill("tokens", found.tokens.map(({ digest, expires }) => {
    const short = digest.slice(0, 16) + "…";
    const revoke = element("button", "Revoke", { className: "revoke danger", ariaLabel: `Revoke token ${short}`, title: digest, onclick: () => askToRevoke(digest, short) });
    return [cell("", short), cell("ends", when(expires)), cell("buttons", revoke)];
  }));
  const all = found.more ? "the oldest 1000 and more" : found.messages.length;
  return `${key}: messages kept: ${all}, tokens: ${found.tokens.length}`;
}

function showKey(key) {
  if (key !== shown) {
    bodies.clear();
    at("token").value = "";
    at("new-token").hidden = true;
    tell("push-answer", "");
    at("key-view").hidden = true;
  }
  shown = key;
  at("key").value = key;
  differs();
  return act("key-answer", said => said, look).then(() => { if (!at("key-view").hidden) at("key-view").scrollIntoView({ block: "nearest" }); });
}

/** What is typed is not what buttons act on, as long as it is not shown. */
function differs() {
  const typed = at("key").value, differ = !at("key-view").hidden && typed !== "" && typed !== shown;
  at("differs").textContent = differ ? `The page shows ${shown}, and all buttons below act on it: press Show for ${typed}.` : "";
}

/** Change something of the key that is shown, and show it anew. */
function change(done, method, what, query = {}, body = undefined, key = shown) {
  return act("key-answer", said => said, async () => {
    const answer = await call(method, "/1/admin/" + what, { key, ...query }, body);
    if (answer.token) {
      at("token").value = answer.token;
      at("new-token").hidden = false;
    }
    const counted = answer.closed === undefined ? "" : ` ${answer.closed}`;
    return `${done}${counted}. ${await look()}`;
  });
}

async function askToDelete() {
  const key = shown;
  if (await sure(`Delete all kept messages of ${key}, for good? This closes its connections, too.`, "Delete them")) {
    await change("deleted", "POST", "msg/del", {}, new URLSearchParams({ key }), key);
  }
}

async function askToRevoke(digest, short) {
  const key = shown;
  if (await sure(`Revoke the token ${short} of ${key}? Clients with it cannot subscribe any more.`, "Revoke it")) {
    await change("revoked", "DELETE", "token", { digest }, undefined, key);
  }
}

at("look").onsubmit = event => {
  event.preventDefault();
  showKey(at("key").value);
};
at("key").oninput = differs;
at("close").onclick = () => change("closed", "POST", "key/close");
at("delete").onclick = askToDelete;
at("create-token").onsubmit = event => {
  event.preventDefault();
  change("created", "POST", "token", { life: at("life").value });
};
at("copy-token").onclick = () => act("copied", "copied", () => copy(at("token").value));
at("push").onsubmit = event => {
  event.preventDefault();
  const key = shown;
  return act("push-answer", ({ mid }) => `stored as ${mid}`, async () => {
    const query = { key, expire: at("expire").value, mid: 1 };
    const answer = await call("POST", "/1/admin/push/private", query, at("body").value);
    act("key-answer", said => said, look);
    return answer;
  });
};

// --- watching: this page as a subscriber ---

/** The subscription, or what stands for one that is about to begin; whether it ever was live, why it was lost since, and why it is away. */
let watching = null, lived = false, lost = "", reason = "";

function stopWatching(text, good = true) {
  const mine = watching;
  watching = null;
  if (mine !== null) mine.close();
  at("watch").textContent = "Watch";
  tell("watching", text, good, true);
}

async function showState(key, state, why) {
  if (state === "closed") return stopWatching(`${key}: refused: ${inWords(why)}`, false);
  if (state === "live") {
    tell("watching", lost === "" ? key : `${key} (resumed: ${lost})`, true, true);
    reason = "";
    return lived = true;
  }
  if (state === "away") reason = why;
  if (state === "away" && lived) lost = inWords(why);
  const hint = /fetch/i.test(reason) && !document.body.classList.contains("gone") ? hintOfPublic(await PUBLIC) : "";
  return tell("watching", `${key}: ${state}${reason && `: ${inWords(reason)}`}${hint}`, reason === "", true);
}

at("watch").onclick = async () => {
  if (watching !== null) return stopWatching("nothing");
  if (!at("look").reportValidity()) return undefined;
  const key = at("key").value;
  lived = false;
  lost = reason = "";
  at("watch").textContent = "Stop watching";
  showKey(key);
  const begun = watching = { close: () => {} }, url = await PUBLIC;
  if (watching !== begun) return undefined;
  watching = gopush.subscribe(url, key, {
    onMessage: ({ text, mid }) => note("arrived", text, "mid " + mid, SHOWN),
    onState: (state, why) => { if (state !== "closed" || watching !== null) showState(key, state, why); },
    token: refusal => tokenFor(key, refusal),
  });
  return undefined;
};
