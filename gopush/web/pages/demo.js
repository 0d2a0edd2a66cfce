"use strict";
/** A publisher and a subscriber side by side: what is pushed while the connection is broken arrives all the same. */
const BROKEN_MS = 3000, MEANWHILE = 3, GRACE_MS = 300, LATE_MS = 10000, SHOWN = 200;

/** The subscription and its key; its state; whether the page itself made a token for it. */
let subscription = null, subscribed = null, state = "", tokens = false, again = 0;
/** Since when it was away: the mids that were pushed meanwhile and have not arrived, and how many messages have. */
let gap = null, patience = 0;
/** What has arrived may do so before its push is answered. */
const arrived = new Set();

// --- the subscriber ---

function show(now, detail = "") {
  state = now;
  tell("state", now, now === "live", true);
  at("detail").textContent = detail;
  at("break").disabled = now !== "live";
}

function changed(now, why) {
  if (now === "live") {
    show(now, tokens ? "with a token that the page made for it" : "");
    clearTimeout(patience);
    if (gap !== null) patience = setTimeout(judge, GRACE_MS);
    return;
  }
  if (state === "live") beginGap();
  show(now, inWords(why));
  if (now === "away" && /fetch/i.test(why)) explain();
}

/** The public port says nothing to this page: where the admin port does, it may be for the list of origins. */
async function explain() {
  const answers = await call("GET", "/1/admin/status").then(() => true, wrong => !(wrong instanceof Away));
  if (answers && state === "away") at("detail").textContent += hintOfPublic(await PUBLIC);
}

function beginGap() {
  gap ||= { awaited: new Set(), caught: 0 };
  tell("verdict", "");
}

/** Is all there that was pushed while it was away? It is asked as often as something arrives, and when it is late. */
function judge(late = false) {
  if (gap === null || state !== "live") return;
  const { awaited, caught } = gap, left = awaited.size;
  clearTimeout(patience);
  if (left && !late) {
    patience = setTimeout(judge, LATE_MS, true);
    return;
  }
  const messages = caught === 1 ? "1 message" : `${caught} messages`;
  if (left) tell("verdict", `${messages} caught up; ${left} that ${left === 1 ? "was" : "were"} pushed meanwhile did not arrive`, false);
  else tell("verdict", caught ? `${messages} caught up, none lost` : "nothing was pushed meanwhile", true, true);
  gap = null;
}

function take({ text, mid }) {
  arrived.add(mid);
  note("messages", text, (gap ? "caught up, mid " : "mid ") + mid, SHOWN, gap ? "away" : "");
  if (gap === null) return;
  gap.caught += 1;
  gap.awaited.delete(mid);
  if (gap.awaited.size === 0 && state === "live") {
    clearTimeout(patience);
    patience = setTimeout(judge, GRACE_MS);
  }
}

async function connect(key, since) {
  const url = await PUBLIC;
  if (subscription !== null) return;
  subscribed = key;
  differs();
  subscription = gopush.subscribe(url, key, {
    since,
    onMessage: take,
    onGap: () => note("messages", "some messages were trimmed away before they could be read", "", SHOWN),
    onState: changed,
    token: async refusal => {
      const token = await tokenFor(key, refusal);
      tokens = token !== "";
      return token;
    },
  });
}

/** End it without a word: what it says of its end is nobody's. */
function leave() {
  clearTimeout(again);
  clearTimeout(patience);
  const mine = subscription;
  subscription = null;
  if (mine === null) return;
  const said = state;
  mine.close();
  state = said;
}

at("subscribe").onsubmit = event => {
  event.preventDefault();
  leave();
  gap = null;
  tokens = false;
  tell("verdict", "");
  show("connecting");
  connect(at("key").value);
};

at("break").onclick = async () => {
  const { mid } = subscription, key = subscribed;
  leave();
  beginGap();
  show("away", `you broke it; back in ${BROKEN_MS / 1000} seconds`);
  again = setTimeout(connect, BROKEN_MS, key, mid);
  for (let number = 1; number <= MEANWHILE && subscribed === key; number++) {
    await push(key, JSON.stringify({ "pushed while you were away": number }));
  }
};

// --- the publisher ---

async function push(key, body) {
  const meanwhile = state !== "live";
  await act("answer", `stored, for the key ${key}`, async () => {
    const { mid } = await call("POST", "/1/admin/push/private", { key, expire: 600, mid: 1 }, body);
    note("pushed", body, (meanwhile ? "while the subscriber was away, mid " : "mid ") + mid, SHOWN, meanwhile ? "away" : "");
    if (gap !== null && key === subscribed && !arrived.has(mid)) gap.awaited.add(mid);
  });
}

at("push").onsubmit = event => {
  event.preventDefault();
  if (at("key").reportValidity()) push(at("key").value, at("message").value);
};

/** The publisher takes the key from the field; the subscriber keeps its own until it subscribes anew. */
async function differs() {
  const key = at("key").value, differ = key !== subscribed && key !== "";
  at("differs").textContent = differ
    ? `The subscriber has the key ${subscribed}: what you push now goes to ${key}, and it will not see it. Press Subscribe.` : "";
  const url = await PUBLIC, text = JSON.stringify(key || subscribed).replace(/</g, "\\u003c");
  at("code").textContent = `<script src="${url}/gopush.js" crossorigin></scr` + `ipt>
<script>
  const onMessage = ({ msg, mid }) => console.log(mid, msg);
  gopush.subscribe("${url}", ${text}, { onMessage });
</scr` + "ipt>";
}

at("key").oninput = differs;
at("copy").onclick = () => act("copied", "copied", () => copy(at("code").textContent));

// --- the beginning ---

/** Whether it needs an API key is told by any call: one that may only push is good enough. */
async function begin() {
  try {
    await call("GET", "/1/admin/status");
  } catch (wrong) {
    if (wrong instanceof Refused) return;
  }
  letIn();
  connect(at("key").value);
}

doors.locked = () => {
  leave();
  show("locked");
};
doors.opened = begin;
begin();
