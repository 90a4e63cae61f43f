/**
 * The environment of a page, controlled by the tests: the clock, the sockets, the network, the tab.
 *
 * Importing this module creates a new environment, `world`, before each test, and removes it afterwards.
 */

import { afterEach, beforeEach } from "node:test";

class Clock {
  now = 0;
  timers = new Map();
  #lastId = 0;

  setTimeout = (callback, milliseconds) => {
    this.timers.set(++this.#lastId, { callback, at: this.now + milliseconds });
    return this.#lastId;
  };

  clearTimeout = (id) => this.timers.delete(id);

  /** Let time pass, and call the timers that are due, in order. */
  pass(seconds) {
    const end = this.now + seconds * 1000;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [id, { callback, at }] = due;
      this.timers.delete(id);
      this.now = at;
      callback();
    }
    this.now = end;
  }
}

/** A browser's WebSocket as a page sees it; a test calls `opens`, `says` and `ends` in place of the network. */
class FakeWebSocket extends EventTarget {
  static all = [];

  readyState = 0;
  binaryType = "blob";
  protocol = "";
  extensions = "";
  bufferedAmount = 0;
  /** The messages handed over, including those that a closing socket then dropped. */
  sent = [];
  closedWith = null;

  constructor(url, protocols) {
    super();
    this.url = url;
    this.protocols = protocols;
    FakeWebSocket.all.push(this);
  }

  send(data) {
    if (this.readyState === 0) throw new DOMException("Still connecting", "InvalidStateError");
    this.sent.push(data);
  }

  close(...codeAndReason) {
    if (codeAndReason.length && codeAndReason[0] === undefined) throw new DOMException("0", "InvalidAccessError");
    this.closedWith = codeAndReason;
    this.readyState = 2;
  }

  opens(protocol = "") {
    this.readyState = 1;
    this.protocol = protocol;
    this.dispatchEvent(new Event("open"));
  }

  says(data) {
    this.dispatchEvent(new MessageEvent("message", { data, origin: "wss://example.com" }));
  }

  /** Fail to connect, as in Node 22: without a `close` event, and with `readyState` still `CONNECTING`. */
  fails() {
    this.dispatchEvent(new Event("error"));
  }

  ends(code = 1006, reason = "") {
    this.readyState = 3;
    if (code === 1006) this.dispatchEvent(new Event("error"));
    const details = { code, reason, wasClean: code !== 1006 };
    this.dispatchEvent(Object.assign(new Event("close"), details));
  }
}

/** The page, or its document; counts its listeners, so that tests notice any that are not removed. */
class FakePage extends EventTarget {
  listening = 0;

  addEventListener(type, listener, { signal }) {
    super.addEventListener(type, listener, { signal });
    this.listening += 1;
    signal.addEventListener("abort", () => (this.listening -= 1));
  }
}

class FakeDocument extends FakePage {
  baseURI = "https://example.com/rooms/index.html";
  visibilityState = "visible";
}

class World {
  clock = new Clock();
  window = new FakePage();
  document = new FakeDocument();
  navigator = { onLine: true };
  sockets = (FakeWebSocket.all = []);

  /** The globals that this world replaces; a worker has no document. */
  get globals() {
    return {
      WebSocket: FakeWebSocket,
      document: this.document,
      navigator: this.navigator,
      addEventListener: this.window.addEventListener.bind(this.window),
      setTimeout: this.clock.setTimeout,
      clearTimeout: this.clock.clearTimeout,
      performance: { now: () => this.clock.now },
      Math: Object.create(Math, { random: { value: () => this.random(), writable: true } }),
    };
  }

  /** The value for which jitter gives the longest wait; a test may set another function. */
  random = () => 1;

  get socket() {
    return this.sockets.at(-1);
  }

  get listening() {
    return this.window.listening + this.document.listening;
  }

  set online(value) {
    this.navigator.onLine = value;
    this.window.dispatchEvent(new Event(value ? "online" : "offline"));
  }

  set visible(value) {
    this.document.visibilityState = value ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }
}

export let world;
let before = {};

/** Set a global, or delete it with `undefined`, until the end of the test. */
export function setGlobal(name, value) {
  before[name] ??= Object.getOwnPropertyDescriptor(globalThis, name) ?? { value: undefined };
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

/** All events of a socket in order, each as one line. */
export function record(socket) {
  const lines = [];
  const note = (type, describe) => socket.addEventListener(type, (event) => lines.push(describe(event)));
  note("state", ({ detail }) => `state ${detail}`);
  note("open", () => "open");
  note("message", ({ data }) => `message ${data}`);
  note("error", () => "error");
  note("close", ({ code, reason, wasClean }) => `close ${code} ${reason || "-"} ${wasClean ? "clean" : "broken"}`);
  note("reconnecting", ({ detail }) => `reconnecting ${detail.attempt} in ${detail.delay}`);
  return lines;
}

beforeEach(() => {
  world = new World();
  before = {};
  for (const [name, value] of Object.entries(world.globals)) setGlobal(name, value);
});

afterEach(() => {
  for (const [name, descriptor] of Object.entries(before)) Object.defineProperty(globalThis, name, descriptor);
});
