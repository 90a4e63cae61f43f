/**
 * The chat: the connection, what comes and goes over it, and the form.
 *
 * What is said here waits in `outbox` until the server has told it back, so that whatever breaks on the way, it is sent
 * once more. Should it have arrived already, its id tells everybody's page.
 */

import { connect } from "./hubbub.js";
import { Log } from "./log.js";
import { TypingLine } from "./typing.js";

const MAX_WAITING = 200;
const TYPING_INTERVAL = 2000;

const [banner, composer, latest, message, nickname, people, problem, room, state, welcome] =
  ["banner", "composer", "latest", "message", "nickname", "people", "problem", "room", "state", "welcome"]
    .map((id) => document.getElementById(id));

const log = new Log(document.getElementById("log"), latest);
const typing = new TypingLine(document.getElementById("typing"));
const title = document.title;

/** @type {{ id: string, room: string, text: string }[]} */
let outbox = [];
// The ids of all that was said here: who comes back into a room is told again what was said in it.
const ownIds = new Set();
// The server tells them; it is the one that has them kept.
let limits = { name: Infinity, room: Infinity, text: Infinity };
let name = "";
let joined = "";
let unread = 0;
let typingToldAt = -Infinity;

// Nothing is kept in there, because everything is kept here.
const socket = connect("chat", {
  queueMessages: 0,
  heartbeat: 30,
  heartbeatMessage: JSON.stringify({ type: "alive" }),
});

// ---- the connection ---------------------------------------------------------------------------------------

const tell = (type, what = {}) => socket.send(JSON.stringify({ type, ...what }));

function join() {
  if (socket.state !== "open" || name === "") return;
  const here = currentRoom();
  tell("join", { room: here, name, back: joined === here });
  joined = here;
  for (const { id, room, text } of outbox) if (room === here) tell("say", { id, text });
}

socket.addEventListener("open", () => {
  console.log(`The connection to ${socket.url} is open`);
  join();
});

socket.addEventListener("state", showState);

socket.addEventListener("close", ({ code, reason }) => {
  banner.textContent = `The server has ended the connection: ${reason || "no reason given"} (${code}). Reload to try again.`;
});

function showState() {
  const words = { connecting: "Connecting", open: "Connected", waiting: "Reconnecting", closed: "Not connected" };
  // It says "Reconnecting" until there is a connection, not only between two attempts.
  state.dataset.state = socket.state === "connecting" && banner.textContent ? "waiting" : socket.state;
  state.textContent = words[state.dataset.state];
  if (state.dataset.state === "waiting") {
    const waiting = outbox.length === 1 ? "1 message is" : `${outbox.length} messages are`;
    banner.textContent = `The connection is lost, and will be back. ${outbox.length ? `${waiting} waiting to be sent.` : ""}`;
    typing.clear();
    people.textContent = "";
  }
  if (socket.state === "open") banner.textContent = "";
}

// ---- what the server tells --------------------------------------------------------------------------------

const hear = {
  limits({ name, room, text }) {
    limits = { name, room, text };
    nickname.maxLength = name;
  },

  said(said) {
    const own = ownIds.has(said.id);
    outbox = outbox.filter(({ id }) => id !== said.id);
    typing.stopped(said.who);
    if (log.said({ ...said, own }) && !own && document.hidden) {
      unread += 1;
      showTitle();
    }
  },

  refused({ id, why }) {
    outbox = outbox.filter((waiting) => waiting.id !== id);
    log.refused(id, why);
  },

  came({ name, back, time }) {
    log.notice(name, back ? "is back" : "came in", time);
  },

  went({ who, name, time }) {
    typing.stopped(who);
    log.notice(name, "left", time);
  },

  people({ count }) {
    people.textContent = count === 1 ? "Only you are here" : `${count} people are here`;
  },

  typing({ who, name }) {
    typing.heard(who, name);
  },

  alive() {},
};

socket.addEventListener("message", ({ data }) => {
  const { type, ...what } = JSON.parse(data);
  hear[type](what);
});

// ---- the room ---------------------------------------------------------------------------------------------

function currentRoom() {
  let text = location.hash.slice(1);
  try {
    text = decodeURIComponent(text);
  } catch {
    // Not percent-encoded, so it means itself.
  }
  return [...text.toWellFormed().trim()].slice(0, limits.room).join("") || "lobby";
}

function showRoom() {
  room.textContent = `#${currentRoom()}`;
  people.textContent = "";
  log.clear();
  typing.clear();
  for (const { id, room, text } of outbox) if (room === currentRoom()) log.said({ id, name, text, own: true });
  showTitle();
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}#${currentRoom()} · ${title}`;
}

window.addEventListener("hashchange", () => {
  showRoom();
  join();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) unread = 0;
  showTitle();
});

// ---- writing ----------------------------------------------------------------------------------------------

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  message.focus();
  const text = message.value.toWellFormed().trim();
  if (text === "") return;
  const why = whyNot([...text].length);
  showProblem(why);
  if (why) return;

  const said = { id: newId(), room: currentRoom(), text };
  outbox.push(said);
  ownIds.add(said.id);
  log.said({ ...said, name, own: true });
  log.toEnd();
  if (socket.state === "open") tell("say", { id: said.id, text });
  else showState();
  message.value = "";
  typingToldAt = -Infinity;
  fit();
});

function whyNot(length) {
  if (length > limits.text) {
    const [given, most] = [length, limits.text].map((count) => count.toLocaleString("en"));
    return `This message is too long: it has ${given} characters, and ${most} are allowed. Shorten it, or send it in parts.`;
  }
  return outbox.length >= MAX_WAITING ? "Too many messages are waiting. This one can be sent when they are." : "";
}

function showProblem(why) {
  problem.textContent = why;
  message.setAttribute("aria-invalid", String(why !== ""));
}

// Browsers make no UUID for a page without TLS, unless it is this machine's own.
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");

message.addEventListener("keydown", (event) => {
  // While an input method is open, Enter chooses what is written: Chinese, for example.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});

message.addEventListener("input", () => {
  fit();
  if (problem.textContent) showProblem("");
  const now = performance.now();
  if (message.value.trim() === "" || name === "" || now - typingToldAt < TYPING_INTERVAL) return;
  typingToldAt = now;
  tell("typing");
});

/** Make the field as high as what is written; the style sheet has the limits. */
function fit() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight + message.offsetHeight - message.clientHeight}px`;
}

// ---- the beginning ----------------------------------------------------------------------------------------

// Runs after the Escape key too.
welcome.addEventListener("close", () => {
  name = nickname.value.toWellFormed().trim() || `Guest ${100 + Math.floor(Math.random() * 900)}`;
  localStorage.setItem("nickname", nickname.value);
  join();
});

if (!location.hash) history.replaceState(null, "", "#lobby");
showRoom();
nickname.value = localStorage.getItem("nickname") ?? "";
nickname.select();
// A dialog that closes puts the cursor back to where it was, before the next key arrives.
message.focus();
welcome.showModal();
