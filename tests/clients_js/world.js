// What gopush.js finds around it, made by hand: a clock that is moved, a web and comets that say what a test says.
let now = 1000000, timers = [], number = 0;
const calls = [], sockets = [], streams = [], heard = [], listeners = {};
const web = { "/1/server/get": '{"ret":0,"data":{"server":"comet:6968"}}', "/1/msg/get": '{"ret":0}', lookups: 200, status: 200, said: "Not Found\n", type: "text/event-stream", refusal: "text/plain;charset=utf-8" };

Date.now = () => now;
globalThis.performance = { now: () => now };
Math.random = () => 0.5;
globalThis.setTimeout = (callback, ms = 0, ...values) => {
  if (ms > 0x7fffffff) ms = 1; // as the HTML standard has it
  timers.push({ id: ++number, at: now + ms, callback, values });
  return number;
};
globalThis.clearTimeout = id => { timers = timers.filter(timer => timer.id !== id); };
globalThis.setInterval = (callback, ms) => {
  const again = () => {
    timers.push({ id, at: now + ms, callback: again, values: [] });
    callback();
  };
  const id = setTimeout(again, ms);
  return id;
};
globalThis.clearInterval = clearTimeout;
globalThis.location = "https://page/dir/index.html?query";
/** Of what a page may name: an address, or a part of one that is relative to the page's. */
globalThis.URL = class {
  constructor(url, base) {
    const [, scheme, rest] = /^(?:([a-z]+):)?(.*)$/i.exec(url), [, own, host] = /^(\w+):(\/\/[^/]+)/.exec(base || "") || [];
    if (!scheme && !own) throw new TypeError("Invalid URL");
    this.href = (scheme || own).toLowerCase() + ":" + (rest.startsWith("//") ? "" : host) + rest;
  }
  toString() { return this.href; }
};

/** Do the next thing that is due until `end`; whether there was one. */
function step(end) {
  timers.sort((one, other) => one.at - other.at || one.id - other.id);
  if (!timers.length || timers[0].at > end) {
    now = end;
    return false;
  }
  const timer = timers.shift();
  now = Math.max(now, timer.at);
  timer.callback(...timer.values);
  return true;
}

globalThis.AbortController = class {
  constructor() { this.signal = { stop() {} }; }
  abort() { this.signal.stop(); }
};
globalThis.TextDecoder = class { decode(text) { return text; } };

class Stream {
  constructor() {
    this.chunks = [];
    this.next = null;
  }
  say(text) {
    this.chunks.push({ value: text, done: false });
    this.flush();
  }
  end() {
    this.chunks.push({ done: true });
    this.flush();
  }
  flush() {
    if (this.next && this.chunks.length) {
      this.next.done(this.chunks.shift());
      this.next = null;
    }
  }
  getReader() {
    return { read: () => new Promise((done, failed) => {
      this.next = { done, failed };
      this.flush();
    }) };
  }
}

globalThis.fetch = (url, { signal }) => {
  calls.push(url.replace("http://web", ""));
  const path = url.replace(/^\w+:\/\/[^/]+/, "").split("?")[0];
  if (web[path] === null) return Promise.reject(new TypeError("failed to fetch"));
  const stream = new Stream();
  if (path === "/sub" || web[path] === "slow") {
    streams.push(stream);
    if (path === "/sub" && web.status !== 200) stream.say(web.said);
  } else {
    stream.say(web[path]);
    stream.end();
  }
  signal.stop = () => {
    stream.aborted = true;
    if (stream.next) stream.next.failed(new Error("aborted"));
  };
  const status = path === "/sub" ? web.status : web.lookups, type = status === 200 ? web.type : web.refusal;
  return Promise.resolve({ status, headers: { get: () => type }, body: status === 204 ? null : stream });
};

globalThis.WebSocket = class {
  constructor(url) {
    this.url = url;
    this.sent = [];
    this.closed = false;
    sockets.push(this);
  }
  send(text) { this.sent.push(text); }
  close() { this.closed = true; }
  say(text) { if (this.onmessage) this.onmessage({ data: text }); }
  end() { if (this.onclose) this.onclose(); }
  fail() { if (this.onerror) this.onerror(); }
};
globalThis.document = {
  hidden: false,
  addEventListener: (name, callback) => { listeners[name] = callback; },
  removeEventListener: name => { delete listeners[name]; },
};
globalThis.addEventListener = document.addEventListener;
globalThis.removeEventListener = document.removeEventListener;

function subscribe(options) {
  return gopush.subscribe("http://web/", options.key || "k&1", {
    onMessage: message => heard.push(message.mid + " " + message.text + " " + JSON.stringify(message.msg)),
    onGap: () => heard.push("gap"),
    onState: (state, why) => heard.push(state + (why && " " + why)),
    ...options,
  });
}
