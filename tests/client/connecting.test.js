/** Addresses and options, and the interface of the browser's WebSocket, which `connect()` has to have. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as client from "../../python/hubbub/client/hubbub.js";
import { record, setGlobal, world } from "./world.js";

const { connect } = client;

for (const [page, given, expected] of [
  ["https://example.com/rooms/index.html", "/chat", "wss://example.com/chat"],
  ["http://example.com:9501/", "/chat?room=1", "ws://example.com:9501/chat?room=1"],
  ["https://example.com/rooms/index.html", "chat", "wss://example.com/rooms/chat"],
  ["https://example.com/", "//other.example/chat", "wss://other.example/chat"],
  ["https://example.com/", "ws://other.example/", "ws://other.example/"],
  ["https://example.com/", "http://other.example/", "ws://other.example/"],
  ["http://example.com/", new URL("https://other.example/"), "wss://other.example/"],
]) {
  test(`${given} in the page ${page} is ${expected}`, () => {
    world.document.baseURI = page;
    assert.equal(connect(given).url, expected);
    assert.equal(world.socket.url, expected);
  });
}

for (const given of ["ftp://example.com/", "mailto:ada@example.com", "wss://", "http://[::1/"]) {
  test(`${given} is no address`, () => {
    assert.throws(() => connect(given), /Not an address|Invalid URL/);
    assert.deepEqual([world.sockets.length, world.listening, world.clock.timers.size], [0, 0, 0]);
  });
}

test("in a worker, which has no document, addresses are relative to the worker's own", () => {
  setGlobal("document", undefined);
  setGlobal("location", new URL("https://example.com/scripts/worker.js"));
  assert.equal(connect("/chat").url, "wss://example.com/chat");
});

test("without page and network events, as in Node, an absolute address is enough", () => {
  for (const name of ["document", "location", "navigator", "addEventListener"]) setGlobal(name, undefined);
  const socket = connect("ws://127.0.0.1:9501/");
  world.socket.opens();
  assert.equal(socket.readyState, socket.OPEN);
  assert.throws(() => connect("/chat"), TypeError);
});

test("without a WebSocket the module can be imported, and connect() says what is missing", () => {
  setGlobal("WebSocket", undefined);
  assert.throws(() => connect("/chat"), /WebSocket/);
  assert.deepEqual([world.listening, world.clock.timers.size], [0, 0]);
});

test("an error that the browser throws at once is thrown on, and nothing is left running", () => {
  const refusal = new DOMException("no such protocol", "SyntaxError");
  setGlobal("WebSocket", function () {
    throw refusal;
  });
  assert.throws(() => connect("/chat", { protocols: "not allowed" }), refusal);
  assert.deepEqual([world.listening, world.clock.timers.size], [0, 0]);
});

for (const protocols of [["chat.v2", "chat.v1"], "chat.v1"]) {
  test(`the subprotocols ${JSON.stringify(protocols)} are offered, at each attempt`, () => {
    const socket = connect("/chat", { protocols });
    assert.equal(socket.protocol, "");
    world.socket.opens("chat.v1");
    assert.equal(socket.protocol, "chat.v1");
    world.socket.ends();
    assert.equal(socket.protocol, "");
    world.clock.pass(1);
    assert.deepEqual(world.sockets.map((each) => each.protocols), [protocols, protocols]);
  });
}

for (const options of [{ backoffCap: -1 }, { connectTimeout: NaN }, { heartbeat: "often" }, { backofBase: 1 }]) {
  test(`${Object.entries(options)} is refused by name`, () => {
    assert.throws(() => connect("/chat", options), { name: "RangeError", message: new RegExp(Object.keys(options)[0]) });
    assert.equal(world.sockets.length, 0);
  });
}

test("an option that is undefined has its default", () => {
  connect("/chat", { connectTimeout: undefined, protocols: undefined });
  assert.deepEqual(world.socket.protocols, []);
  world.clock.pass(9.9);
  assert.equal(world.socket.closedWith, null);
  world.clock.pass(0.1);
  assert.notEqual(world.socket.closedWith, null);
});

test("Infinity means never", () => {
  connect("/chat", { connectTimeout: Infinity });
  world.clock.pass(24 * 3600);
  assert.equal(world.socket.closedWith, null);
});

test("extensions are those of the connection", () => {
  const socket = connect("/chat");
  assert.equal(socket.extensions, "");
  world.socket.extensions = "permessage-deflate";
  world.socket.opens();
  assert.equal(socket.extensions, "permessage-deflate");
  world.socket.ends();
  assert.equal(socket.extensions, "");
});

test("constants and readyState are those of a WebSocket", async () => {
  const socket = connect("/chat");
  assert.deepEqual([socket.CONNECTING, socket.OPEN, socket.CLOSING, socket.CLOSED], [0, 1, 2, 3]);
  const seen = [socket.readyState];
  world.socket.opens();
  seen.push(socket.readyState);
  world.socket.ends();
  seen.push(socket.readyState);
  world.clock.pass(1);
  seen.push(socket.readyState);
  world.socket.opens();
  socket.close();
  seen.push(socket.readyState);
  world.socket.ends(1000);
  seen.push(socket.readyState);
  assert.deepEqual(seen, [0, 1, 0, 0, 2, 3]);
});

test("binaryType is blob until it is set, holds for later connections, and ignores nonsense", () => {
  const socket = connect("/chat");
  assert.equal(socket.binaryType, "blob");
  assert.equal(world.socket.binaryType, "blob");
  socket.binaryType = "arraybuffer";
  socket.binaryType = "text";
  assert.equal(world.socket.binaryType, "arraybuffer");
  world.socket.ends();
  world.clock.pass(1);
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.binaryType, "arraybuffer");
});

test("events are those of a WebSocket, for listeners and for on… alike", () => {
  const socket = connect("/chat");
  const seen = [];
  for (const type of ["open", "message", "error", "close"]) {
    assert.equal(socket[`on${type}`], null);
    socket[`on${type}`] = function (event) {
      assert.equal(this, socket);
      assert.equal(event.target, socket);
      seen.push(`on${type}`);
    };
    socket.addEventListener(type, () => seen.push(type));
  }
  world.socket.opens();
  world.socket.says("hello");
  world.socket.ends();
  world.clock.pass(1);
  world.socket.ends(4400, "go away");
  assert.deepEqual(
    seen,
    ["open", "message", "error", "close"].flatMap((type) => [`on${type}`, type]),
  );

  socket.onopen = null;
  socket.dispatchEvent(new Event("open"));
  assert.equal(seen.at(-1), "open");
});

test("a message event has the unchanged data, and its origin", () => {
  const socket = connect("/chat");
  const events = [];
  socket.onmessage = (event) => events.push(event);
  world.socket.opens();
  const data = new ArrayBuffer(3);
  world.socket.says(data);
  assert.ok(events[0] instanceof MessageEvent);
  assert.equal(events[0].data, data);
  assert.equal(events[0].origin, "wss://example.com");
});

test("a close event is the browser's CloseEvent where there is one", () => {
  class CloseEvent extends Event {
    constructor(type, details) {
      super(type);
      Object.assign(this, details);
    }
  }
  setGlobal("CloseEvent", CloseEvent);
  const socket = connect("/chat");
  const events = [];
  socket.onclose = (event) => events.push(event);
  world.socket.ends(4401, "log in first");
  assert.ok(events[0] instanceof CloseEvent);
  assert.deepEqual([events[0].code, events[0].reason, events[0].wasClean], [4401, "log in first", true]);
});

test("a listener that throws is reported, and affects nothing else", async () => {
  const reported = [];
  process.setUncaughtExceptionCaptureCallback((error) => reported.push(error.message));
  const socket = connect("/chat");
  for (const type of ["state", "open", "message", "error", "close", "reconnecting"]) {
    socket.addEventListener(type, () => {
      throw new Error(`from ${type}`);
    });
  }
  socket.onmessage = () => {
    throw new Error("from onmessage");
  };
  const lines = record(socket);
  socket.send("kept");
  world.socket.opens();
  world.socket.says("one");
  world.socket.says("two");
  assert.deepEqual(world.socket.sent, ["kept"]);
  world.socket.ends();
  world.clock.pass(1);
  world.socket.ends(4400);
  assert.deepEqual(lines, [
    "state open",
    "open",
    "message one",
    "message two",
    "error",
    "state waiting",
    "reconnecting 1 in 0.5",
    "state connecting",
    "state closed",
    "close 4400 - clean",
  ]);
  await new Promise(setImmediate);
  process.setUncaughtExceptionCaptureCallback(null);
  assert.ok(reported.includes("from onmessage") && reported.includes("from close"), reported.join());
});

test("the module exports what its types declare", () => {
  const types = readFileSync(new URL("../../python/hubbub/client/hubbub.d.ts", import.meta.url), "utf8");
  const declared = [...types.matchAll(/^export (?:declare )?(?:function|const|let|class) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(client).sort(), declared.sort());
});
