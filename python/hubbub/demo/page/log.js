/**
 * The messages of the room, and notices of people joining and leaving, in the order of the server's time.
 *
 * Messages that the server has not sent back yet are at the end. Names and texts are always inserted as text, never as
 * markup, whatever tags they contain.
 */

const MAX_SHOWN = 500;
// Messages of one person within this many seconds are grouped under one name.
const TOGETHER = 300;
const NEAR_END = 40;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const characters = new Intl.Segmenter();
const FEW_EMOJI = /^\p{RGI_Emoji}{1,3}$/v;

/** Create an element with a class that contains text or other elements. */
function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

function timeElement(seconds) {
  const date = new Date(seconds * 1000);
  const element = make("time", "", clock.format(date));
  element.dateTime = date.toISOString();
  element.title = calendar.format(date);
  return element;
}

/** Return a hue for a name, the same on every page. */
function hueOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}

function avatar(name) {
  const [first] = characters.segment(name);
  const element = make("span", "avatar", first.segment.toLocaleUpperCase());
  element.ariaHidden = "true";
  return element;
}

export class Log {
  #area;
  #list;
  #latest;
  #items = new Map();
  #entries = new WeakMap();
  #isAtEnd = true;
  #unseen = 0;
  #interruptedAt = 0;

  /**
   * @param {HTMLElement} area The scrolling element, which contains the list.
   * @param {HTMLButtonElement} latest Shown while there are new messages below.
   */
  constructor(area, latest) {
    this.#area = area;
    this.#list = area.querySelector("ol");
    this.#latest = latest;
    area.addEventListener("scroll", () => this.#scrolled());
    latest.addEventListener("click", () => this.toEnd());
    // The banner, a long message or a phone's keyboard make the list smaller.
    new ResizeObserver(() => this.#stayAtEnd()).observe(area);
  }

  /**
   * Show a message, or mark your own message as sent back by the server.
   *
   * @returns Whether the message is new here; a duplicate, sent again because no answer came, is not.
   */
  said({ id, who, name, text, own, time = Infinity }) {
    const known = this.#items.get(id);
    if (known) {
      if (this.#entries.get(known).time === Infinity) this.#settle(known, time);
      return false;
    }
    const head = make("p", "head", make("bdi", "name", own ? "You" : name));
    const body = make("p", FEW_EMOJI.test(text) ? "text emoji" : "text", text);
    body.dir = "auto";
    const item = make("li", own ? "said own" : "said", head, body);
    if (!own) item.prepend(avatar(name));
    item.style.setProperty("--hue", hueOf(name));
    this.#items.set(id, item);
    this.#entries.set(item, { id, author: own ? "own" : String(who), time });
    if (time === Infinity) this.#wait(item);
    else head.append(timeElement(time));
    this.#add(item);
    if (!own && !this.#isAtEnd) this.#showUnseen(this.#unseen + 1);
    return true;
  }

  refused(id, why) {
    const item = this.#items.get(id);
    item?.querySelector(".note").replaceChildren(`Refused: ${why}`);
    item?.classList.add("refused");
  }

  /** Show that somebody joined or left. */
  notice(name, what, time) {
    const item = make("li", "notice", make("bdi", "", name), ` ${what} `, timeElement(time));
    this.#entries.set(item, { time });
    this.#add(item);
  }

  /** Note that the connection is broken: messages may be missing before whatever comes next. */
  interrupted() {
    const times = [...this.#list.children].map((item) => this.#entries.get(item).time).filter(Number.isFinite);
    this.#interruptedAt = Math.max(0, ...times);
  }

  /** Show that messages are missing since the connection broke. */
  gap() {
    const item = make("li", "notice", "Some messages may be missing here");
    this.#entries.set(item, { time: this.#interruptedAt });
    this.#add(item);
  }

  clear() {
    this.#list.replaceChildren();
    this.#items.clear();
    this.toEnd();
  }

  toEnd() {
    this.#isAtEnd = true;
    this.#showUnseen(0);
    this.#stayAtEnd();
  }

  #wait(item) {
    item.classList.add("waiting");
    item.append(make("p", "note", "Waiting to be sent"));
  }

  #settle(item, time) {
    this.#entries.get(item).time = time;
    item.classList.remove("waiting");
    item.querySelector(".note").remove();
    item.querySelector(".head").append(timeElement(time));
    this.#place(item);
  }

  #add(item) {
    this.#place(item);
    if (this.#list.childElementCount > MAX_SHOWN) {
      const first = this.#list.firstElementChild;
      this.#items.delete(this.#entries.get(first).id);
      first.remove();
    }
    this.#stayAtEnd();
  }

  /** Put the item after the last one that is not later. */
  #place(item) {
    const { time } = this.#entries.get(item);
    let before = this.#list.lastElementChild;
    while (before && (before === item || this.#entries.get(before).time > time)) before = before.previousElementSibling;
    const wasNext = item.nextElementSibling;
    // Do not move an item that is already in place: a screen reader would read it out again.
    if (!before) this.#list.prepend(item);
    else if (before.nextElementSibling !== item) before.after(item);
    for (const each of [item, item.nextElementSibling, wasNext]) if (each) this.#group(each);
  }

  #group(item) {
    const own = this.#entries.get(item);
    const before = item.previousElementSibling && this.#entries.get(item.previousElementSibling);
    const follows = own.author !== undefined && own.author === before?.author && !(own.time - before.time > TOGETHER);
    item.classList.toggle("follows", follows);
  }

  #stayAtEnd() {
    if (this.#isAtEnd) this.#area.scrollTop = this.#area.scrollHeight;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#area;
    this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    if (this.#isAtEnd) this.#showUnseen(0);
  }

  #showUnseen(count) {
    this.#unseen = count;
    this.#latest.hidden = count === 0;
    this.#latest.textContent = count === 1 ? "1 new message" : `${count} new messages`;
  }
}
