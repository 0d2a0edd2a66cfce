/** A message. `msg` is what was pushed; `text` its JSON, digit for digit; `mid` ascends within a key. */
export interface Message<T = unknown> {
  msg: T;
  mid: string;
  text: string;
}

/** "closed" is the last one: by close(), or because coming back is pointless (`why` says so). */
export type State = "connecting" | "live" | "away" | "closed";

export interface Options<T = unknown> {
  onMessage?: ((message: Message<T>) => void) | undefined;
  /** Messages were trimmed away before they could be read. */
  onGap?: (() => void) | undefined;
  onState?: ((state: State, why: string) => void) | undefined;
  /** Begin after this mid; 0: with all that is kept; nothing: with what is new. */
  since?: string | number | bigint | null | undefined;
  /** The subscriber's token, or what fetches one: called once, and anew when one is refused ("-a" or "-c"). */
  token?: string | ((refusal: "" | "-a" | "-c") => string | Promise<string>) | undefined;
  /** A whole number of seconds between heartbeats, from 30 on; a stream asks for 240 at most. */
  heartbeat?: number | undefined;
  /** Nothing: WebSocket, and server-sent events where that does not come through. */
  transport?: "ws" | "sse" | undefined;
}

export interface Subscription {
  /** That of the last message; null: not known yet. */
  readonly mid: string | null;
  close(): void;
}

/** Receive the messages of a key. `url`: of a web node's public port; in a browser it may be relative to the page's. */
export function subscribe<T = unknown>(url: string | { readonly href: string }, key: string, options?: Options<T>): Subscription;

export as namespace gopush;
