/** Connections that are open but dead, which the browser itself notices late or never. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../python/hubbub/client/hubbub.js";
import { record, world } from "./world.js";

const ASKING = { heartbeat: 30, heartbeatMessage: "ping", heartbeatTimeout: 10 };

function opened(options) {
  const socket = connect("/chat", options);
  world.socket.opens();
  return socket;
}

test("by default silence has no effect", () => {
  const socket = opened({ heartbeatMessage: "ping" });
  world.clock.pass(24 * 3600);
  world.visible = true;
  assert.equal(socket.state, "open");
  assert.deepEqual(world.socket.sent, []);
});

test("after silence the heartbeat message is sent, and any answer is enough", () => {
  const socket = opened(ASKING);
  for (let round = 1; round <= 100; round++) {
    world.clock.pass(30);
    assert.equal(world.socket.sent.length, round);
    world.clock.pass(9);
    world.socket.says("anything");
  }
  assert.equal(socket.state, "open");
  assert.deepEqual(new Set(world.socket.sent), new Set(["ping"]));
});

test("without an answer the connection is replaced, and no kept message is lost", () => {
  const socket = opened(ASKING);
  const lines = record(socket);
  const dead = world.socket;
  world.clock.pass(39.9);
  assert.equal(socket.state, "open");
  world.clock.pass(0.1);
  assert.deepEqual(lines, ["error", "state waiting", "reconnecting 1 in 0.5"]);
  assert.notEqual(dead.closedWith, null);
  socket.send("kept");
  dead.says("from the past");
  dead.ends(4400);
  world.clock.pass(0.5);
  world.socket.opens();
  assert.deepEqual(world.socket.sent, ["kept"]);
  assert.deepEqual(lines.slice(3), ["state connecting", "state open", "open"]);
});

test("messages are kept until the answer comes: over a dead connection they would be lost", () => {
  const socket = opened(ASKING);
  world.clock.pass(30);
  for (const text of ["1", "2"]) assert.equal(socket.send(text), true);
  assert.deepEqual(world.socket.sent, ["ping"]);
  socket.onmessage = () => socket.send("3");
  world.socket.says("pong");
  assert.deepEqual(world.socket.sent, ["ping", "1", "2", "3"]);

  world.clock.pass(30);
  socket.send("4");
  world.clock.pass(10.5);
  world.socket.opens();
  socket.send("5");
  assert.deepEqual(world.sockets.map(({ sent }) => sent), [["ping", "1", "2", "3", "ping"], ["4", "5"]]);
});

test("while messages arrive, no heartbeat message is sent", () => {
  opened(ASKING);
  for (let second = 0; second < 300; second++) {
    world.clock.pass(1);
    world.socket.says("tick");
    assert.ok(world.clock.timers.size <= 1);
  }
  assert.deepEqual(world.socket.sent, []);
  world.clock.pass(29.9);
  assert.deepEqual(world.socket.sent, []);
  world.clock.pass(0.1);
  assert.deepEqual(world.socket.sent, ["ping"]);
});

test("without a heartbeat message, silence alone decides", () => {
  const socket = opened({ heartbeat: 30 });
  world.clock.pass(39.9);
  assert.equal(socket.state, "open");
  world.socket.says("tick");
  world.clock.pass(39.9);
  assert.equal(socket.state, "open");
  socket.send("not kept: it may bring the sign of life");
  assert.equal(world.socket.sent.length, 1);
  world.clock.pass(0.1);
  assert.equal(socket.state, "waiting");
});

test("each new connection is watched from its start", () => {
  const socket = opened(ASKING);
  world.clock.pass(40);
  world.clock.pass(0.5);
  world.socket.opens();
  world.clock.pass(30);
  assert.deepEqual(world.socket.sent, ["ping"]);
  world.clock.pass(10);
  assert.equal(socket.state, "waiting");
});

for (const [what, happens] of [
  ["the network comes back", () => (world.online = true)],
  ["the tab becomes visible", () => (world.visible = true)],
]) {
  test(`when ${what}, the connection is asked at once`, () => {
    const socket = opened(ASKING);
    world.clock.pass(5);
    happens();
    assert.deepEqual(world.socket.sent, ["ping"]);
    world.clock.pass(5);
    happens();
    assert.deepEqual(world.socket.sent, ["ping"], "it was asked already");
    world.clock.pass(5);
    assert.equal(socket.state, "waiting");
  });

  test(`when ${what}, a connection that cannot be asked is left alone`, () => {
    const socket = opened({ heartbeat: 30 });
    world.clock.pass(5);
    happens();
    world.clock.pass(11);
    assert.equal(socket.state, "open");
  });
}

test("close() ends the watch too", () => {
  for (const seconds of [0, 31]) {
    const socket = opened(ASKING);
    world.clock.pass(seconds);
    socket.close();
    assert.deepEqual([world.clock.timers.size, world.listening], [0, 0]);
  }
});

test("the heartbeat message is not kept while a socket is ending", () => {
  opened(ASKING);
  world.socket.readyState = 2;
  world.clock.pass(30);
  world.socket.ends();
  world.clock.pass(1);
  world.socket.opens();
  assert.deepEqual(world.sockets.map(({ sent }) => sent), [[], []]);
});
