/** `close()` in each state: the page gets the right events, and no timers or listeners remain. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { connect } from "../../python/hubbub/client/hubbub.js";
import { record, world } from "./world.js";

afterEach(() => {
  assert.equal(world.clock.timers.size, 0, "a timer was left running");
  assert.equal(world.listening, 0, "a listener was left on the page");
});

test("while open: the browser does the closing handshake, and the close event has the outcome", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  world.socket.opens();
  socket.close(4000, "bye");
  assert.deepEqual(world.socket.closedWith, [4000, "bye"]);
  assert.equal(socket.readyState, socket.CLOSING);
  world.socket.says("after close()");
  world.socket.ends(4000, "bye");
  assert.equal(socket.readyState, socket.CLOSED);
  assert.deepEqual(lines, ["state open", "open", "state closed", "close 4000 bye clean"]);
});

test("while open, and the server does not answer: there is no other attempt", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  world.socket.opens();
  socket.close();
  assert.deepEqual(world.socket.closedWith, []);
  world.socket.ends(1006);
  assert.deepEqual(lines, ["state open", "open", "state closed", "error", "close 1006 - broken"]);
  assert.equal(world.sockets.length, 1);
});

test("the lowest and highest codes that a page may send are sent", () => {
  for (const code of [1000, 3000, 4999]) {
    const socket = connect("/chat");
    world.socket.opens();
    socket.close(code);
    assert.deepEqual(world.socket.closedWith, [code, ""]);
  }
});

test("while open, with a reason and no code: the code is 1000", () => {
  const socket = connect("/chat");
  world.socket.opens();
  socket.close(undefined, "bye");
  assert.deepEqual(world.socket.closedWith, [1000, "bye"]);
});

test("while connecting: the attempt is given up", async () => {
  const socket = connect("/chat");
  const lines = record(socket);
  socket.close();
  assert.notEqual(world.socket.closedWith, null);
  assert.equal(socket.state, "closed");
  assert.deepEqual(lines, ["state closed"]);
  await null;
  world.socket.opens();
  world.socket.ends();
  assert.deepEqual(lines, ["state closed", "close 1006 - broken"]);
});

test("while waiting: there is no other attempt, whatever happens", async () => {
  const socket = connect("/chat");
  world.socket.ends();
  const lines = record(socket);
  socket.close(1000, "bye");
  await null;
  world.online = true;
  world.visible = true;
  world.clock.pass(3600);
  assert.deepEqual(lines, ["state closed", "close 1006 - broken"]);
  assert.equal(world.sockets.length, 1);
});

test("while offline", () => {
  world.online = false;
  connect("/chat").close();
  world.online = true;
  assert.equal(world.sockets.length, 0);
});

test("twice, and when closed: the second changes nothing", async () => {
  for (const end of [() => world.socket.ends(1000), () => {}]) {
    const socket = connect("/chat");
    const lines = record(socket);
    world.socket.opens();
    socket.close(4000);
    socket.close(4001);
    end();
    socket.close(4002);
    assert.deepEqual(world.socket.closedWith, [4000, ""]);
    await null;
    assert.ok(lines.filter((line) => line.startsWith("close")).length <= 1);
  }
});

test("a listener added after close() still gets the event", async () => {
  const socket = connect("/chat");
  socket.close();
  const lines = record(socket);
  await null;
  assert.deepEqual(lines, ["close 1006 - broken"]);
});

test("in a listener of open: kept messages are no longer sent", () => {
  for (const type of ["state", "open"]) {
    const socket = connect("/chat");
    socket.send("kept");
    socket.addEventListener(type, () => socket.close());
    const lines = record(socket);
    world.socket.opens();
    assert.deepEqual(world.socket.sent, [], type);
    assert.equal(socket.state, "closed");
    assert.equal(lines.includes("open"), type === "open");
  }
});

test("kept messages are discarded, and new ones are refused", () => {
  const socket = connect("/chat");
  socket.send("kept");
  socket.close();
  assert.equal(socket.bufferedAmount, 0);
  assert.equal(socket.send("more"), false);
});

test("codes and reasons that a page may not send are refused in each state, as the browser does", () => {
  const socket = connect("/chat");
  const refuse = () => {
    for (const code of [0, 999, 1001, 1005, 2999, 5000, NaN]) {
      assert.throws(() => socket.close(code), { name: "InvalidAccessError" });
    }
    assert.throws(() => socket.close(1000, "好".repeat(42)), { name: "SyntaxError" });
  };
  refuse();
  world.socket.opens();
  refuse();
  assert.equal(socket.state, "open");
  world.socket.ends();
  refuse();
  assert.equal(socket.state, "waiting");
  world.clock.pass(1);
  world.socket.opens();
  socket.close(1000, "好".repeat(41));
  refuse();
  assert.deepEqual(world.socket.closedWith, [1000, "好".repeat(41)]);
});
