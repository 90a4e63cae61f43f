/**
 * The browser's side of Hubbub: a WebSocket that reconnects.
 *
 * The public interface is documented in hubbub.d.ts, and the types come from there. In each state there is at most one
 * current socket of the browser (`#socket`) and one timer (`#timer`); events of an abandoned socket are ignored.
 *
 * @import { HubbubSocket, HubbubState, Options, Sendable } from "./hubbub.js"
 */

/** @satisfies {Required<Omit<Options, "protocols" | "heartbeatMessage">>} */
const DEFAULTS = {
  connectTimeout: 10,
  backoffBase: 0.5,
  backoffCap: 30,
  stableAfter: 5,
  queueBytes: 1024 * 1024,
  queueMessages: 1000,
  maxMessageSize: 1024 * 1024,
  heartbeat: 0,
  heartbeatTimeout: 10,
};

// Seconds between checks whether the browser is still offline: not every browser reports it to a worker.
const OFFLINE_CHECK = 30;

// Milliseconds. A longer timeout would fire at once.
const MAX_TIMEOUT = 2 ** 31 - 1;

// The end of a connection without a closing handshake (RFC 6455 §7.1.5).
const BROKEN = { code: 1006, reason: "", wasClean: false };

/**
 * Whether another attempt after this code could only end in the same way.
 *
 * @param {number} code
 */
const isFinal = (code) =>
  [1000, 1002, 1003].includes(code) ||
  (code >= 1007 && code <= 1010) ||
  (code >= 3500 && code <= 3999) ||
  (code >= 4400 && code <= 4499);

/** @param {Sendable} data */
const sizeOf = (data) =>
  data instanceof Blob ? data.size : typeof data === "string" ? new TextEncoder().encode(data).length : data.byteLength;

/**
 * Copies a buffer: a kept message must not change when the caller writes into its buffer again.
 *
 * @param {Sendable} data
 */
const copyOf = (data) =>
  data instanceof ArrayBuffer
    ? data.slice(0)
    : ArrayBuffer.isView(data)
      ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice()
      : data;

/** @param {Partial<typeof DEFAULTS>} options */
function withDefaults(options) {
  const limits = { ...DEFAULTS };
  for (const name of /** @type {(keyof typeof DEFAULTS)[]} */ (Object.keys(options))) {
    const value = options[name] ?? DEFAULTS[name];
    // A misspelt option would do nothing for years. (Put this way round, NaN is refused too.)
    if (!(name in DEFAULTS && value >= 0)) throw new RangeError(`There is no option ${name} with the value ${value}`);
    limits[name] = value;
  }
  return limits;
}

/** @param {string | URL} address */
function webSocketUrl(address) {
  const url = new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (!/^wss?:$/.test(url.protocol)) throw new DOMException(`Not an address of a WebSocket: ${url}`, "SyntaxError");
  return url;
}

/**
 * Node 22 has WebSocket but no CloseEvent.
 *
 * @param {{ code: number, reason: string, wasClean: boolean }} details
 */
const closeEvent = ({ code, reason, wasClean }) =>
  globalThis.CloseEvent
    ? new CloseEvent("close", { code, reason, wasClean })
    : Object.assign(new Event("close"), { code, reason, wasClean });

/** @implements {HubbubSocket} */
class Socket extends EventTarget {
  CONNECTING = /** @type {const} */ (0);
  OPEN = /** @type {const} */ (1);
  CLOSING = /** @type {const} */ (2);
  CLOSED = /** @type {const} */ (3);

  /** @type {HubbubSocket["onopen"]} */
  onopen = null;
  /** @type {HubbubSocket["onmessage"]} */
  onmessage = null;
  /** @type {HubbubSocket["onclose"]} */
  onclose = null;
  /** @type {HubbubSocket["onerror"]} */
  onerror = null;

  #limits;
  #protocols;
  #heartbeatMessage;
  #url;

  /** @type {HubbubState} */
  #state = "waiting";
  /** @type {BinaryType} */
  #binaryType = "blob";
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #page = new AbortController();

  /** @type {{ data: Sendable, size: number }[]} */
  #queue = [];
  #queuedBytes = 0;

  // The attempts that failed since the last stable connection; when this connection opened, when it last received
  // something, and whether it may be dead because it was silent for so long.
  #failures = 0;
  #openedAt = 0;
  #heardAt = 0;
  #suspected = false;

  /**
   * @param {string | URL} address
   * @param {Options} options
   */
  constructor(address, { protocols = [], heartbeatMessage, ...limits }) {
    super();
    this.#protocols = protocols;
    this.#heartbeatMessage = heartbeatMessage;
    this.#limits = withDefaults(limits);
    this.#url = webSocketUrl(address);

    for (const type of /** @type {const} */ (["open", "message", "close", "error"])) {
      // If it throws, the EventTarget reports that, as for any listener.
      this.addEventListener(type, (/** @type {any} */ event) => this[`on${type}`]?.(event));
    }
    const { signal } = this.#page;
    const wake = () => this.#wake();
    globalThis.addEventListener?.("online", wake, { signal });
    globalThis.document?.addEventListener(
      "visibilitychange",
      () => document.visibilityState === "visible" && wake(),
      { signal },
    );
    this.#attempt();
  }

  get url() {
    return this.#url.href;
  }

  get state() {
    return this.#state;
  }

  get readyState() {
    if (this.#state === "open") return this.OPEN;
    if (this.#state !== "closed") return this.CONNECTING;
    return this.#socket ? this.CLOSING : this.CLOSED;
  }

  get protocol() {
    return this.#socket?.protocol ?? "";
  }

  get extensions() {
    return this.#socket?.extensions ?? "";
  }

  get bufferedAmount() {
    return this.#queuedBytes + (this.#socket?.bufferedAmount ?? 0);
  }

  get binaryType() {
    return this.#binaryType;
  }

  set binaryType(type) {
    if (type !== "blob" && type !== "arraybuffer") return;
    this.#binaryType = type;
    if (this.#socket) this.#socket.binaryType = type;
  }

  /** @param {Sendable} message */
  send(message) {
    const binary = message instanceof ArrayBuffer || ArrayBuffer.isView(message) || message instanceof Blob;
    const data = binary ? message : String(message);
    const size = sizeOf(data);
    if (this.#state === "closed" || size > this.#limits.maxMessageSize) return false;
    if (this.#canSend()) {
      this.#socket?.send(data);
      return true;
    }
    const { queueBytes, queueMessages } = this.#limits;
    if (this.#queue.length >= queueMessages || this.#queuedBytes + size > queueBytes) return false;
    this.#queue.push({ data: copyOf(data), size });
    this.#queuedBytes += size;
    return true;
  }

  /**
   * @param {number} [code]
   * @param {string} [reason]
   */
  close(code, reason = "") {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException(`A page may close with 1000 or 3000 to 4999, not ${code}`, "InvalidAccessError");
    }
    if (sizeOf(reason) > 123) throw new DOMException("A reason has at most 123 bytes", "SyntaxError");
    if (this.#state === "closed") return;

    const closing = this.#state === "open" ? this.#socket : null;
    if (!closing) this.#abandon();
    this.#end();
    // Later, as in a browser: the caller may add its listener after this call.
    if (!closing) queueMicrotask(() => this.dispatchEvent(closeEvent(BROKEN)));
    // Chromium rejects an undefined code.
    else if (code === undefined && !reason) closing.close();
    else closing.close(code ?? 1000, reason);
  }

  #attempt() {
    // Without a network only this machine can be reached.
    const local = /(^|\.)localhost$|^127\.|^\[::1\]$/.test(this.#url.hostname);
    if (!local && globalThis.navigator?.onLine === false) return this.#arm(OFFLINE_CHECK, () => this.#attempt());

    let socket;
    try {
      socket = new WebSocket(this.url, this.#protocols);
    } catch (error) {
      // The same mistake (a protocol's name, the page's security policy) would be refused again.
      this.#finish(BROKEN);
      throw error;
    }
    socket.binaryType = this.#binaryType;
    this.#socket = socket;
    this.#arm(this.#limits.connectTimeout, () => this.#giveUp());

    /**
     * @template {keyof WebSocketEventMap} T
     * @param {T} type
     * @param {(event: WebSocketEventMap[T]) => void} listener
     */
    const on = (type, listener) =>
      socket.addEventListener(type, (event) => {
        if (socket === this.#socket) listener(event);
      });
    on("open", () => this.#opened());
    on("message", (event) => this.#received(event));
    // For a connection that never opened, Node 22 fires only this event. If a `close` follows, it adds nothing.
    on("error", () => (this.#state === "connecting" ? this.#giveUp() : this.dispatchEvent(new Event("error"))));
    on("close", (event) => this.#closed(event));
    this.#enter("connecting");
  }

  #opened() {
    this.#openedAt = this.#heardAt = performance.now();
    this.#suspected = false;
    clearTimeout(this.#timer);
    this.#watch();
    this.#enter("open");
    // Listeners go first: on a new connection an application has to identify itself before it continues.
    if (this.#state === "open") this.dispatchEvent(new Event("open"));
    this.#sendKept();
  }

  /** @param {MessageEvent} event */
  #received({ data, origin }) {
    // A browser's own socket fires no more messages after close(), either.
    if (this.#state !== "open") return;
    this.#heardAt = performance.now();
    if (this.#suspected) {
      this.#suspected = false;
      this.#watch();
      this.#sendKept();
    }
    this.dispatchEvent(new MessageEvent("message", { data, origin }));
  }

  /** @param {CloseEvent} event */
  #closed(event) {
    this.#socket = null;
    if (this.#state !== "closed" && !isFinal(event.code)) return this.#retry();
    this.#finish(event);
  }

  /** Called if the socket has failed, or hangs, which the browser may notice only minutes later. */
  #giveUp() {
    this.#abandon();
    this.dispatchEvent(new Event("error"));
    // A listener may have called close().
    if (this.#state !== "closed") this.#retry();
  }

  #abandon() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #retry() {
    const { backoffBase, backoffCap, stableAfter } = this.#limits;
    // Otherwise a server that accepts and drops at once would be called again at once, forever.
    if (this.#state === "open" && performance.now() - this.#openedAt >= stableAfter * 1000) this.#failures = 0;
    // Full jitter: pages that lost the same server return at different times.
    const delay = Math.random() * Math.min(backoffCap, backoffBase * 2 ** this.#failures);
    this.#failures += 1;
    this.#arm(delay, () => this.#attempt());
    this.#enter("waiting");
    const detail = { attempt: this.#failures, delay };
    if (this.#state === "waiting") this.dispatchEvent(new CustomEvent("reconnecting", { detail }));
  }

  #wake() {
    if (this.#state === "waiting") this.#attempt();
    // After sleep or a change of network, the connection may be dead, and the browser may not know.
    else if (this.#state === "open" && this.#heartbeatMessage !== undefined) this.#suspect();
  }

  /** Wait until nothing was received for `heartbeat` seconds, and then check whether the connection is alive. */
  #watch() {
    // The timer is not reset for each message; when it fires, this checks how long the silence was.
    const left = this.#limits.heartbeat - (performance.now() - this.#heardAt) / 1000;
    if (left > 0) this.#arm(left, () => this.#watch());
    else this.#suspect();
  }

  #suspect() {
    const { heartbeat, heartbeatTimeout } = this.#limits;
    // Without a heartbeat no connection is suspected.
    if (!heartbeat || this.#suspected) return;
    if (this.#heartbeatMessage !== undefined && this.#canSend()) this.#socket?.send(this.#heartbeatMessage);
    this.#suspected = true;
    this.#arm(heartbeatTimeout, () => this.#giveUp());
  }

  #canSend() {
    // Between a socket's end and its `close` event the browser would silently drop messages.
    if (this.#state !== "open" || this.#socket?.readyState !== this.OPEN) return false;
    // Keep messages until the server has answered: over a dead connection they would be lost.
    return !this.#suspected || this.#heartbeatMessage === undefined;
  }

  #sendKept() {
    let kept;
    while (this.#canSend() && (kept = this.#queue.shift())) {
      this.#queuedBytes -= kept.size;
      this.#socket?.send(kept.data);
    }
  }

  /** @param {Parameters<typeof closeEvent>[0]} details */
  #finish(details) {
    this.#end();
    this.dispatchEvent(closeEvent(details));
  }

  /** End everything: no further attempts, no further messages. */
  #end() {
    clearTimeout(this.#timer);
    this.#page.abort();
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#enter("closed");
  }

  /**
   * @param {number} seconds
   * @param {() => void} then
   */
  #arm(seconds, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, Math.min(seconds * 1000, MAX_TIMEOUT));
  }

  /** @param {HubbubState} state */
  #enter(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/** @type {typeof import("./hubbub.js").connect} */
export const connect = (url, options = {}) => new Socket(url, options);
