/**
 * gopush in a browser or in Node: receive the messages of a key, each once and in order.
 *
 *     const subscription = gopush.subscribe("http://localhost:8090", "Terry-Mao", {
 *       onMessage: message => console.log(message.mid, message.msg),
 *     });
 *
 * As a plain script it is `gopush`; gopush.mjs is the same as an ES module. README.md tells the rest.
 */
(root => {
  "use strict";
  /** In milliseconds, as all here. */
  const FIRST = 500, WAIT = 1e4,
    /** So long after one was heard a WebSocket that fails is its server's fault; six times as long a stream stands in. */
    TRUST = 1e5,
    /** How gopush refuses a stream for good: its status, and that in words, in plain text. */
    REPLY = { "400 Bad Request": "-p", "401 Unauthorized": "-a", "403 Forbidden": "-c" },
    /** What a page knows of each web node, for all its keys: its streams, and when each comet was heard by WebSocket. */
    sites = {},
    now = () => performance.now();
  /** Without what is empty. What cannot be written, half a surrogate pair, gopush would refuse: it is no UTF-8. */
  const form = query => {
    try {
      return Object.keys(query).filter(name => query[name])
        .map(name => name + "=" + encodeURIComponent(query[name])).join("&");
    } catch ({ message }) {
      throw { reply: "-p", message };
    }
  };

  function subscribe(url, key, options = {}) {
    const { onMessage, onGap, onState, since, heartbeat = 30, transport } = options;
    const base = new URL(url + "/", root.location).href.replace(/\/+$/, ""),
      sse = transport ? transport === "sse" : !root.WebSocket, fetched = options.token?.call,
      { heard, streams } = sites[base] ||= { heard: {}, streams: new Set() };
    let mid = since?.toString() ?? null, token = fetched ? null : options.token || "", comet = "",
      closed, old = null, renewed, moved, blocked, standsIn, eager, liveAt, lost = true, least = 0, stop, probe, hurry;

    /** Mids are more than JavaScript's numbers hold exactly: they stay text. */
    const isNew = id => BigInt(id) > BigInt(mid ?? -1),
      /** Whether a WebSocket that fails may be one that does not come through. */
      doubt = () => !(now() - heard[comet] < TRUST);

    /** What the user does wrong is reported where such things are, and ends nothing here. */
    const call = (callback, ...args) => {
      try {
        callback?.(...args);
      } catch (wrong) {
        setTimeout(() => { throw wrong; });
      }
    };

    const live = () => {
      eager = false;
      // NaN where it is not live: no comparison holds.
      if (closed || liveAt >= 0) return;
      liveAt = now();
      lost = renewed = moved = blocked = false;
      // Below every mid, and gopush rounds it to 16: who comes back with 0 asks for what is kept, and hears of no gap.
      if (mid === "0") mid = "15";
      call(onState, "live", "");
    };

    /** Take a message or a reply; gives a reply that ends the connection, if it is one. */
    const take = text => {
      if (text[0] === "{") {
        const [, json, id] = /^\{"msg":([^]*),"mid":(\d+),"gid":\d\}$/.exec(text) || [];
        if (!id) return "no message";
        if (isNew(id)) {
          mid = id;
          call(onMessage, { msg: JSON.parse(json), mid, text: json });
        }
      } else if (text === "+h") live();
      else if (text === "+g") call(onGap);
      else return text;
    };

    /** Fetch, and give the text piece by piece, as long as the first comes soon, and each further one in `ms`. */
    async function* pieces(path, query, ms = WAIT) {
      const abort = new AbortController(), utf8 = new TextDecoder();
      stop = () => abort.abort();
      let doom = setTimeout(stop, WAIT);
      try {
        const { status, headers, body } = await fetch(base + path + "?" + query, { signal: abort.signal, cache: "no-store" }),
          type = headers.get("content-type"), reader = body?.getReader(), sub = path === "/sub";
        if (status !== 200) {
          // What a proxy says in gopush's place, in HTML or in other words, is no refusal of gopush's.
          const words = sub && /^text\/plain/.test(type) && utf8.decode((await reader.read()).value).match(/^[\w ]+/);
          throw { reply: REPLY[status + " " + words] || "HTTP " + status };
        }
        if (sub && !/^text\/event-stream/i.test(type)) throw "no stream";
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          clearTimeout(doom);
          doom = setTimeout(stop, ms);
          yield utf8.decode(value, { stream: true });
        }
      } finally {
        clearTimeout(doom);
        stop();
      }
    }

    /** Ask web; gives what it answers, as text. */
    const ask = async (path, query) => {
      let text = "";
      for await (const piece of pieces(path, form({ k: key, why: 1, ...query }))) text += piece;
      return text;
    };

    const check = ({ ret, why }, reply) => {
        if (ret !== 0) throw { reply: ret === 65534 && reply, message: why || "ret " + ret };
      },
      query = heartbeat => form({ key, ver: 1, token, mid, heartbeat });

    /** One connection over WebSocket; gives the reply that ended it, if there was one. */
    const socket = async () => {
      // Where it is, and where what is new begins.
      const found = JSON.parse(await ask("/1/server/get", { p: 1 }));
      blocked = found.ret && doubt();
      check(found, "-p");
      if (!mid) {
        const kept = await ask("/1/msg/get", { m: "0", head: 1, t: token }),
          last = /"mid":(\d+),"gid":\d\}\]\}\}$/.exec(kept);
        if (!last) check(JSON.parse(kept), "-a");
        mid = last?.[1] || "0";
      }
      comet = found.data.server;
      if (closed) return;
      blocked = doubt();
      return new Promise(done => {
        // A page in the background has its timers slowed down to one a minute: the server waits for longer.
        const open = new WebSocket(`ws${/s?:/.exec(base)}//${comet}/sub?${query(3 * heartbeat)}`);
        let beat, doom, came = 0;
        const expect = () => {
          doom ||= setTimeout(() => {
            // The answer may stand behind a message that takes long: only a stream shows that it is coming.
            blocked ||= came === 1;
            stop();
          }, WAIT);
        };
        stop = reply => {
          clearInterval(beat);
          clearTimeout(doom);
          open.onmessage = open.onclose = open.onerror = null;
          open.close();
          done(reply);
        };
        const send = () => {
          open.send("h");
          expect();
        };
        open.onmessage = ({ data }) => {
          clearTimeout(doom);
          doom = 0;
          came++;
          heard[""] = heard[comet] = now();
          beat ||= setInterval(send, Math.min(heartbeat * 1e3, 2e9));
          probe = send;
          const reply = take(data.trimEnd());
          if (reply) stop(reply);
        };
        // One that the page's policy forbids fires no more than an error.
        open.onclose = open.onerror = () => stop();
        expect();
      });
    };

    /** One stream of server-sent events, over fetch: EventSource shows neither heartbeats nor what is refused. */
    const stream = async () => {
      // Node's fetch gives up what is silent for five minutes.
      let rest = "", event = {}, calm = Math.max(30, Math.min(heartbeat, 240));
      streams.add(stream);
      for await (const piece of pieces("/sub", query(calm), calm * 1e3 + WAIT)) {
        rest += piece;
        // A long message comes in many pieces: it is not searched anew for each of them.
        const lines = /[\r\n]/.test(piece) ? rest.split(/\r\n|\n|\r(?!$)/) : [rest];
        rest = lines.pop();
        if (!lines.includes("event: refused")) live();
        for (const line of lines) {
          if (closed) return;
          const [, name, text] = /^([^:]*):? ?([^]*)$/.exec(line);
          if (line) {
            if (name === "data" && "data" in event) event.data += "\n" + text;
            else if (/^\d+$/.test(text) || !/^(id|retry)$/.test(name)) event[name] = text;
            continue;
          }
          const { event: type = "message", data, id, retry } = event;
          if (retry) least = +retry;
          if (data) {
            if (type === "refused") return String(JSON.parse(data).reason);
            if (type === "gap") call(onGap);
            else if (type === "message") take(data);
          } else if (id && isNew(id)) mid = id;
          event = {};
        }
        // A stream is one of the browser's six connections to web: a WebSocket may come through by now, or does.
        // Nobody wants to be left alone then.
        if (!sse && !rest && (now() - liveAt > 6 * TRUST || heard[comet] > liveAt)) return least = 0;
      }
    };

    const pause = ms => ms > 0 && !closed && new Promise(done => {
      const timer = setTimeout(done, Math.min(ms, 2e9));
      hurry = () => {
        clearTimeout(timer);
        done();
      };
    });

    const run = async () => {
      let bound = FIRST, refusal = "";
      // A callback may use what subscribe() gives.
      await null;
      while (!closed) {
        call(onState, "connecting", "");
        liveAt = NaN;
        blocked = false;
        let reply, why;
        try {
          token ??= closed || await options.token(refusal) || "";
          if (closed) return;
          // A browser has six connections to web: the other keys need one for their look-ups.
          reply = await (sse || standsIn && streams.size < 5 ? stream() : socket());
        } catch (wrong) {
          reply = wrong?.reply;
          why = String(wrong?.message || reply || wrong);
        }
        stop = probe = null;
        streams.delete(stream);
        if (closed) return;
        why ||= reply || "the connection ended";
        if (reply === "-p") {
          if (lost || why !== reply) return close(why);
          // It was live with this mid: the store, or its clock, is another one. Or a token that was fetched anew is none.
          lost = true;
          old = mid;
          mid = null;
          call(onGap);
        } else if (/^-[ac]$/.test(reply)) {
          if (renewed || !fetched) return close(why);
          renewed = eager = true;
          token = null;
          refusal = reply;
        } else if (reply === "-n") {
          eager ||= !moved;
          moved = true;
        }
        // After so long it has worked.
        if (now() - liveAt > 3e3) bound = FIRST;
        // Where no WebSocket comes through, a stream may.
        if (reply?.[0] !== "-") standsIn = !transport && blocked;
        if (!closed) call(onState, "away", why);
        if (reply === "-l") least = 2e4 * (0.75 + Math.random() / 2);
        const more = bound * (0.5 + Math.random() / 2) - least;
        // So long gopush wants to be left alone, whoever wakes.
        await pause(least);
        least = 0;
        if (!eager) await pause(more);
        eager = false;
        bound = Math.min(2 * bound, 3e4);
      }
    };

    /** The network is back, or somebody looks: now is the time to see what is alive. */
    const wake = () => {
      if (root.document?.hidden) return;
      eager = true;
      if (!least) hurry?.();
      probe?.();
    };
    /** A page that is left may be kept for who comes back: its connection is not. */
    const leave = () => {
        blocked = false;
        stop?.();
      },
      /** What cannot be asked whether it is alive begins anew. */
      online = () => {
        if (!probe) leave();
        wake();
      },
      events = {
        online, pageshow: wake, resume: wake, visibilitychange: wake, pagehide: leave, freeze: leave,
      },
      listen = what => {
        // A window captures its document's events, too. Chromium never resumes the fetch of a page that was frozen.
        for (const name in events) root[what + "EventListener"]?.(name, events[name], true);
      };

    function close(why = "") {
      if (closed) return;
      closed = true;
      if (why) mid ??= old;
      listen("remove");
      stop?.();
      hurry?.();
      call(onState, "closed", why);
    }

    listen("add");
    run();
    return { close: () => close(), get mid() { return mid; } };
  }

  root.gopush = { subscribe };
  if (typeof module === "object" && module.exports) module.exports = root.gopush;
})(globalThis);
