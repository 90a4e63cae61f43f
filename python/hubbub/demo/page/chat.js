/**
 * The chat: the connection, the messages sent and received over it, and the form.
 *
 * A message written here stays in `outbox` until the server has sent it back. If the connection breaks before that, the
 * message is sent again. If the first copy had arrived, every page recognizes the second by its id.
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
// The ids of all messages written here: a client that rejoins a room gets the room's recent messages again.
const ownIds = new Set();
// The server sends these limits, and enforces them.
let limits = { name: Infinity, room: Infinity, text: Infinity };
let name = "";
let joined = "";
let unread = 0;
let typingToldAt = -Infinity;

// The client library queues nothing, because `outbox` keeps every message.
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
  banner.textContent = `The server closed the connection: ${reason || "no reason given"} (${code}). Reload to try again.`;
});

function showState() {
  const words = { connecting: "Connecting", open: "Connected", waiting: "Reconnecting", closed: "Not connected" };
  // Show "Reconnecting" until there is a connection, not only between two attempts.
  state.dataset.state = socket.state === "connecting" && banner.textContent ? "waiting" : socket.state;
  state.textContent = words[state.dataset.state];
  if (state.dataset.state === "waiting") {
    const waiting = outbox.length === 1 ? "1 message is" : `${outbox.length} messages are`;
    banner.textContent = `Connection lost. Reconnecting… ${outbox.length ? `${waiting} waiting to be sent.` : ""}`;
    typing.clear();
    people.textContent = "";
  }
  if (socket.state === "open") banner.textContent = "";
}

// ---- messages from the server -----------------------------------------------------------------------------

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
    log.notice(name, back ? "is back" : "joined", time);
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
    // It is not percent-encoded, so use it unchanged.
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
  return outbox.length >= MAX_WAITING ? "Too many messages are waiting. Try again when they are sent." : "";
}

function showProblem(why) {
  problem.textContent = why;
  message.setAttribute("aria-invalid", String(why !== ""));
}

// Browsers offer no `crypto.randomUUID` to a page without TLS, unless the page is from this machine.
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");

message.addEventListener("keydown", (event) => {
  // While an input method is composing (Chinese, for example), Enter selects the text to insert.
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

/** Make the field as high as its text; the style sheet sets the limits. */
function fit() {
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight + message.offsetHeight - message.clientHeight}px`;
}

// ---- the beginning ----------------------------------------------------------------------------------------

// This event also follows the Escape key.
welcome.addEventListener("close", () => {
  name = nickname.value.toWellFormed().trim() || `Guest ${100 + Math.floor(Math.random() * 900)}`;
  localStorage.setItem("nickname", nickname.value);
  join();
});

if (!location.hash) history.replaceState(null, "", "#lobby");
showRoom();
nickname.value = localStorage.getItem("nickname") ?? "";
nickname.select();
// When the dialog closes, it returns the focus to this field before the next key arrives.
message.focus();
welcome.showModal();
