/** When the client reconnects, when it does not, and how long it waits. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../python/hubbub/client/hubbub.js";
import { record, setGlobal, world } from "./world.js";

/** Numbers from 0 up to 1 that are the same in each run (mulberry32). */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The delays in a socket's `reconnecting` events, in order. */
function delaysOf(socket) {
  const delays = [];
  socket.addEventListener("reconnecting", ({ detail }) => delays.push(detail.delay));
  return delays;
}

test("after a lost connection the events come in order, and the connection opens again", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  assert.equal(socket.state, "connecting");
  world.socket.opens();
  world.socket.ends();
  assert.equal(socket.state, "waiting");
  world.clock.pass(0.5);
  world.socket.opens();
  world.socket.says("back");
  assert.deepEqual(lines, [
    "state open",
    "open",
    "error",
    "state waiting",
    "reconnecting 1 in 0.5",
    "state connecting",
    "state open",
    "open",
    "message back",
  ]);
});

const final = [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3500, 3999, 4400, 4401, 4499];
const passing = [1001, 1004, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 3499, 4000, 4399, 4500, 4999];

for (const code of final) {
  test(`after ${code} there is no other attempt, and the page can read why`, () => {
    const socket = connect("/chat");
    const lines = record(socket);
    world.socket.opens();
    world.socket.ends(code, "why");
    assert.deepEqual(lines, ["state open", "open", "state closed", `close ${code} why clean`]);
    assert.equal(socket.readyState, socket.CLOSED);
    assert.deepEqual([world.clock.timers.size, world.listening], [0, 0]);
    world.online = true;
    world.visible = true;
    assert.equal(world.sockets.length, 1);
    assert.equal(socket.send("too late"), false);
  });
}

for (const code of passing) {
  test(`after ${code} it tries again, and there is no close event`, () => {
    const lines = record(connect("/chat"));
    world.socket.opens();
    world.socket.ends(code);
    world.clock.pass(0.5);
    assert.equal(world.sockets.length, 2);
    assert.deepEqual(lines.filter((line) => line.startsWith("close")), []);
  });
}

test("an error without a close ends the attempt, and an error with a close ends it only once", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  const delays = delaysOf(socket);
  world.socket.fails();
  world.clock.pass(0.5);
  const [first, second] = world.sockets;
  first.ends();
  assert.equal(world.sockets.length, 2);
  second.ends();
  world.clock.pass(1);
  assert.equal(world.sockets.length, 3);
  assert.deepEqual(delays, [0.5, 1]);
  assert.equal(lines.filter((line) => line.startsWith("error")).length, 2);
  assert.deepEqual(lines.filter((line) => line.startsWith("close")), []);
});

test("a listener of such an error may close", () => {
  const socket = connect("/chat");
  socket.onerror = () => socket.close();
  world.socket.fails();
  world.clock.pass(100);
  assert.equal(world.sockets.length, 1);
  assert.equal(socket.state, "closed");
});

test("the waits double from the base up to the cap", () => {
  const delays = delaysOf(connect("/chat"));
  for (let failure = 0; failure < 9; failure++) {
    world.socket.ends();
    world.clock.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]);
  assert.equal(world.sockets.length, 10);
});

test("base and cap are options, and a thousand failures overflow nothing", () => {
  const delays = delaysOf(connect("/chat", { backoffBase: 1, backoffCap: 5 }));
  for (let failure = 0; failure < 1100; failure++) {
    world.socket.ends();
    world.clock.pass(5);
  }
  assert.deepEqual(delays.slice(0, 4), [1, 2, 4, 5]);
  assert.deepEqual(new Set(delays.slice(3)), new Set([5]));
});

test("jitter is full: each wait is anywhere between nothing and its bound", () => {
  world.random = seeded(20260101);
  const firsts = [];
  const sixths = [];
  for (let page = 0; page < 400; page++) {
    const socket = connect("/chat");
    const delays = delaysOf(socket);
    for (let failure = 0; failure < 6; failure++) {
      world.socket.ends();
      world.clock.pass(delays.at(-1));
    }
    socket.close();
    firsts.push(delays[0]);
    sixths.push(delays[5]);
  }
  for (const [delays, bound] of [[firsts, 0.5], [sixths, 16]]) {
    assert.ok(delays.every((delay) => delay >= 0 && delay < bound));
    for (let tenth = 0; tenth < 10; tenth++) {
      const share = delays.filter((delay) => Math.floor((delay / bound) * 10) === tenth).length / delays.length;
      assert.ok(share > 0.05 && share < 0.15, `a tenth of the waits should be in each tenth of ${bound} s: ${share}`);
    }
  }
});

test("for a server that accepts and drops at once, the waits keep growing", () => {
  const delays = delaysOf(connect("/chat"));
  for (let drop = 0; drop < 8; drop++) {
    world.socket.opens();
    world.clock.pass(4.9);
    world.socket.ends(1011);
    world.clock.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [0.5, 1, 2, 4, 8, 16, 30, 30]);
});

test("after a stable connection, the waits start from the base again", () => {
  const delays = delaysOf(connect("/chat"));
  for (let failure = 0; failure < 3; failure++) {
    world.socket.ends();
    world.clock.pass(delays.at(-1));
  }
  world.socket.opens();
  world.clock.pass(5);
  world.socket.ends();
  assert.deepEqual(delays, [0.5, 1, 2, 0.5]);
});

test("how long a stable connection has to last is an option", () => {
  const delays = delaysOf(connect("/chat", { stableAfter: 60 }));
  for (let drop = 0; drop < 3; drop++) {
    world.socket.opens();
    world.clock.pass(59);
    world.socket.ends();
    world.clock.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [0.5, 1, 2]);
});

test("an attempt that does not open is given up, and its later events are ignored", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  const hanging = world.socket;
  world.clock.pass(10);
  assert.deepEqual(lines, ["error", "state waiting", "reconnecting 1 in 0.5"]);
  assert.notEqual(hanging.closedWith, null);
  world.clock.pass(0.5);
  assert.equal(world.sockets.length, 2);

  hanging.opens();
  hanging.says("from the past");
  hanging.ends(4400);
  assert.equal(socket.state, "connecting");
  world.socket.opens();
  assert.deepEqual(lines.slice(3), ["state connecting", "state open", "open"]);
});

test("an attempt that opens in time is not given up", () => {
  const socket = connect("/chat");
  world.clock.pass(9.9);
  world.socket.opens();
  world.clock.pass(3600);
  assert.equal(socket.state, "open");
  assert.equal(world.clock.timers.size, 0);
});

test("while offline there are no attempts; once online again, there is one at once", () => {
  const socket = connect("/chat");
  world.socket.opens();
  world.online = false;
  world.socket.ends();
  world.clock.pass(3600);
  assert.equal(world.sockets.length, 1);
  assert.equal(socket.state, "waiting");
  world.online = true;
  assert.equal(world.sockets.length, 2);
});

test("a page that is loaded offline connects when the network is available", () => {
  world.online = false;
  const socket = connect("/chat");
  assert.equal(socket.state, "waiting");
  assert.equal(world.sockets.length, 0);
  assert.equal(socket.send("kept"), true);
  world.online = true;
  world.socket.opens();
  assert.deepEqual(world.socket.sent, ["kept"]);
});

test("for browsers that do not report it, the client checks now and then whether they are online", () => {
  world.online = false;
  connect("/chat");
  world.navigator.onLine = true;
  world.clock.pass(30);
  assert.equal(world.sockets.length, 1);
});

for (const host of ["localhost:9501", "app.localhost", "127.0.0.1:9501", "[::1]:9501"]) {
  test(`${host} is there without any network`, () => {
    world.online = false;
    connect(`ws://${host}/`);
    assert.equal(world.sockets.length, 1);
  });
}

for (const host of ["localhost.example.com", "example.com:127", "10.127.0.0"]) {
  test(`${host} is not`, () => {
    world.online = false;
    connect(`ws://${host}/`);
    assert.equal(world.sockets.length, 0);
  });
}

for (const [what, happens] of [
  ["the network comes back", () => (world.online = true)],
  ["the tab becomes visible", () => (world.visible = true)],
]) {
  test(`when ${what}, one attempt is made at once, and only one`, () => {
    const delays = delaysOf(connect("/chat"));
    world.socket.ends();
    happens();
    assert.equal(world.sockets.length, 2);
    happens();
    assert.equal(world.sockets.length, 2, "one was under way");

    world.socket.ends();
    world.clock.pass(0.9);
    assert.equal(world.sockets.length, 2, "the next is back-off's again");
    assert.deepEqual(delays, [0.5, 1]);
    world.clock.pass(0.1);
    assert.equal(world.sockets.length, 3);
  });

  test(`when ${what}, an open connection is left alone`, () => {
    connect("/chat");
    world.socket.opens();
    happens();
    assert.deepEqual([world.sockets.length, world.socket.sent, world.clock.timers.size], [1, [], 0]);
  });
}

test("hiding the tab causes no attempt", () => {
  connect("/chat");
  world.socket.ends();
  world.visible = false;
  assert.equal(world.sockets.length, 1);
});

test("close() in a listener of a lost connection ends it", async () => {
  for (const type of ["error", "state", "reconnecting"]) {
    const socket = connect("/chat");
    const lines = record(socket);
    world.socket.opens();
    socket.addEventListener(type, () => socket.close());
    world.socket.ends();
    await null;
    assert.equal(socket.state, "closed");
    assert.equal(lines.at(-1), "close 1006 - broken", type);
    assert.equal(lines.filter((line) => line.startsWith("close")).length, 1);
    assert.deepEqual([world.clock.timers.size, world.listening], [0, 0], type);
  }
});

test("close() in a listener of an attempt that hangs ends it", () => {
  const socket = connect("/chat");
  socket.onerror = () => socket.close();
  world.clock.pass(10);
  assert.equal(socket.state, "closed");
  assert.equal(world.clock.timers.size, 0);
});

test("an error that the browser throws at a later attempt closes the socket, and reaches the console", () => {
  const socket = connect("/chat");
  const lines = record(socket);
  world.socket.ends();
  setGlobal("WebSocket", function () {
    throw new DOMException("not any more", "SecurityError");
  });
  assert.throws(() => world.clock.pass(1), { name: "SecurityError" });
  assert.deepEqual(lines.slice(-2), ["state closed", "close 1006 - broken"]);
  assert.deepEqual([world.clock.timers.size, world.listening], [0, 0]);
});
