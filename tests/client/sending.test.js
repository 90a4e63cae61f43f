/** Sending: which messages are sent, kept or refused, and in which order they are sent. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../python/hubbub/client/hubbub.js";
import { world } from "./world.js";

/** Everything that was handed to any socket, in order. */
const handedOver = () => world.sockets.flatMap((socket) => socket.sent);

function opened(options) {
  const socket = connect("/chat", options);
  world.socket.opens();
  return socket;
}

/** Break the connection, let the wait pass, and let the next attempt open. */
function comeBack() {
  const before = world.sockets.length;
  world.socket.ends();
  while (world.sockets.length === before) world.clock.pass(0.5);
  world.socket.opens();
}

test("on an open connection a message goes out at once, as it is", () => {
  const socket = opened();
  const blob = new Blob(["blob"]);
  const buffer = new ArrayBuffer(2);
  const view = new DataView(buffer);
  for (const data of ["text", blob, buffer, view]) assert.equal(socket.send(data), true);
  assert.deepEqual(world.socket.sent, ["text", blob, buffer, view]);
  assert.equal(world.socket.sent[3], view);
});

test("a value that is neither text nor binary becomes text, as with a WebSocket", () => {
  const socket = opened();
  for (const data of [7, null, undefined, { toString: () => "object" }]) socket.send(data);
  assert.deepEqual(world.socket.sent, ["7", "null", "undefined", "object"]);
});

test("messages sent before and between connections arrive once, in the order of the calls", () => {
  const socket = connect("/chat");
  assert.equal(socket.send("1"), true);
  assert.equal(socket.send("2"), true);
  world.socket.opens();
  socket.send("3");
  world.socket.ends();
  socket.send("4");
  world.clock.pass(1);
  socket.send("5");
  world.socket.ends();
  socket.send("6");
  assert.deepEqual(handedOver(), ["1", "2", "3"]);
  world.clock.pass(1);
  world.socket.opens();
  socket.send("7");
  comeBack();
  assert.deepEqual(handedOver(), ["1", "2", "3", "4", "5", "6", "7"]);
});

test("a socket that has ended, but has not fired close yet, gets no messages: it would drop them", () => {
  const socket = opened();
  world.socket.readyState = 2;
  assert.equal(socket.send("kept"), true);
  world.socket.readyState = 3;
  assert.equal(socket.send("too"), true);
  comeBack();
  assert.deepEqual(world.sockets.map(({ sent }) => sent), [[], ["kept", "too"]]);
});

test("a connection that ends while the kept messages go out keeps the rest", () => {
  const socket = connect("/chat");
  for (const text of ["1", "2", "3"]) socket.send(text);
  world.socket.send = function (data) {
    this.sent.push(data);
    this.readyState = 3;
  };
  world.socket.opens();
  comeBack();
  assert.deepEqual(world.sockets.map(({ sent }) => sent), [["1"], ["2", "3"]]);
});

test("messages from a listener of open go before kept ones", () => {
  const socket = opened();
  socket.addEventListener("open", () => socket.send("I am Ada"));
  world.socket.ends();
  socket.send("hello");
  world.clock.pass(1);
  world.socket.opens();
  assert.deepEqual(world.socket.sent, ["I am Ada", "hello"]);
});

test("a message handed to a connection that broke is not sent again", () => {
  const socket = opened();
  socket.send("who knows");
  world.socket.bufferedAmount = 9;
  comeBack();
  assert.deepEqual(handedOver(), ["who knows"]);
});

test("the queue has a limit in messages", () => {
  const socket = connect("/chat", { queueMessages: 2 });
  assert.deepEqual(["1", "2", "3"].map((text) => socket.send(text)), [true, true, false]);
  world.socket.opens();
  assert.deepEqual(world.socket.sent, ["1", "2"]);
  assert.equal(socket.send("4"), true);
});

test("the queue has a limit in bytes, for every type of data; text counts as UTF-8", () => {
  const socket = connect("/chat", { queueBytes: 10 });
  assert.equal(socket.send("你好"), true);
  assert.equal(socket.send("12345"), false);
  assert.equal(socket.send(new Uint16Array(2)), true);
  for (const data of ["1", new Uint8Array(1), new ArrayBuffer(1), new Blob(["1"])]) {
    assert.equal(socket.send(data), false);
  }
  assert.equal(socket.bufferedAmount, 10);
  world.socket.opens();
  assert.deepEqual(world.socket.sent, ["你好", new Uint8Array(4)]);
});

test("by default a thousand messages and a mebibyte are kept", () => {
  const many = connect("/chat");
  for (let sent = 0; sent < 1000; sent++) assert.equal(many.send(""), true);
  assert.equal(many.send(""), false);
  const much = connect("/chat");
  assert.equal(much.send("x".repeat(1024 * 1024)), true);
  assert.equal(much.send("x"), false);
});

test("there is room again after the queue was sent", () => {
  const socket = connect("/chat", { queueMessages: 1, queueBytes: 5 });
  world.socket.opens();
  for (const text of ["first", "other"]) {
    world.socket.readyState = 2;
    assert.equal(socket.send(text), true);
    assert.equal(socket.send(""), false);
    comeBack();
    assert.equal(socket.bufferedAmount, 0);
  }
  assert.deepEqual(handedOver(), ["first", "other"]);
});

test("a queue with a limit of 0 keeps nothing", () => {
  const socket = connect("/chat", { queueMessages: 0 });
  assert.equal(socket.send("now or never"), false);
  world.socket.opens();
  assert.equal(socket.send("now"), true);
});

test("a message that the server would not take is refused, open or not", () => {
  const socket = connect("/chat", { maxMessageSize: 6 });
  for (const state of ["connecting", "open"]) {
    assert.equal(socket.state, state);
    assert.equal(socket.send("你好"), true);
    assert.equal(socket.send("你好!"), false);
    assert.equal(socket.send(new ArrayBuffer(7)), false);
    world.socket.opens();
  }
  assert.deepEqual(world.socket.sent, ["你好", "你好"]);
});

test("a kept buffer is copied, because the caller may write into it again", () => {
  const socket = connect("/chat");
  const bytes = new Uint8Array([1, 2, 3, 4]);
  socket.send(bytes.buffer);
  socket.send(bytes.subarray(1, 3));
  socket.send(new DataView(bytes.buffer, 2));
  bytes.fill(9);
  world.socket.opens();
  assert.deepEqual(
    world.socket.sent.map((data) => [...new Uint8Array(data)]),
    [[1, 2, 3, 4], [2, 3], [3, 4]],
  );
});

test("bufferedAmount counts kept bytes and those that the browser has not sent", () => {
  const socket = connect("/chat");
  socket.send("hello");
  assert.equal(socket.bufferedAmount, 5);
  world.socket.opens();
  assert.equal(socket.bufferedAmount, 0);
  world.socket.bufferedAmount = 7;
  assert.equal(socket.bufferedAmount, 7);
  world.socket.ends();
  assert.equal(socket.bufferedAmount, 0);
});
