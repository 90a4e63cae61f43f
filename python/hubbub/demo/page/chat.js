/**
 * The chat: the connection, the messages sent and received over it, and the form.
 *
 * A message written here stays in `outbox` until the server has sent it back. If the connection breaks before that, the
 * message is sent again. If the first copy had arrived, every page recognizes the second by its id.
 *
 * What is said comes with its position in the room. When the connection comes back, the page tells the last position, and
 * the server sends what was said since.
 */

import { connect } from "./hubbub.js";
import { Log } from "./log.js";
import { People } from "./people.js";
import { TypingLine } from "./typing.js";

const MAX_WAITING = 200;
const TYPING_INTERVAL = 2000;

const [banner, composer, latest, message, nickname, problem, room, state, welcome] =
  ["banner", "composer", "latest", "message", "nickname", "problem", "room", "state", "welcome"]
    .map((id) => document.getElementById(id));

const log = new Log(document.getElementById("log"), latest);
const people = new People(document.getElementById("people"));
const typing = new TypingLine(document.getElementById("typing"));
const title = document.title;

/** @type {{ id: string, room: string, text: string }[]} */
let outbox = [];
// The ids of all messages written here: a client that joins a room again gets the room's recent messages again.
const ownIds = new Set();
// The server sends these limits, and enforces them.
let limits = { name: Infinity, room: Infinity, text: Infinity };
let name = "";
let joined = "";
// The position behind the last message of the joined room, and whether the server was asked for what came after it.
let position = null;
let resuming = false;
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
  const back = joined === here;
  if (!back) position = null;
  tell("join", { room: here, name, back, since: position });
  joined = here;
  resuming = position !== null;
  for (const { id, room, text } of outbox) if (room === here) tell("say", { id, text });
}

socket.addEventListener("open", () => {
  console.log(`The connection to ${socket.url} is open`);
  join();
});

socket.addEventListener("reconnecting", () => log.interrupted());

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
    people.clear();
  }
  if (socket.state === "open") banner.textContent = "";
}

// ---- messages from the server -----------------------------------------------------------------------------

const hear = {
  limits({ name, room, text }) {
    limits = { name, room, text };
    nickname.maxLength = name;
  },

  joined({ who, people: there, position: [epoch, offset], recovered }) {
    people.enter(who, there);
    if (resuming && !recovered) log.gap();
    // Newer messages may have come since.
    if (position?.[0] !== epoch || position[1] < offset) position = [epoch, offset];
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

  came({ who, name, back, time }) {
    people.came(who, name);
    log.notice(name, back ? "is back" : "joined", time);
  },

  went({ who, name, time }) {
    people.went(who);
    typing.stopped(who);
    log.notice(name, "left", time);
  },

  typing({ who, name }) {
    typing.heard(who, name);
  },

  alive() {},
};

socket.addEventListener("message", ({ data }) => {
  const received = JSON.parse(data);
  // What is said comes in an envelope, which tells its position.
  const content = received.data ?? received;
  // It may have been on its way when this page left that room.
  if (typeof content.room === "string" && content.room !== joined) return;
  if (received.data) position = [received.epoch, received.offset];
  hear[content.type](content);
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
  people.clear();
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
