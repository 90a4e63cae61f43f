/**
 * What was said in the room, and who came and went, in the order of the server's time.
 *
 * What the server has not told back yet stands at the end. Names and texts only ever become text, never markup,
 * whatever tags are in them.
 */

const MAX_SHOWN = 500;
// Somebody's messages within so many seconds stand together, under one name.
const TOGETHER = 300;
const NEAR_END = 40;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const characters = new Intl.Segmenter();
const FEW_EMOJI = /^\p{RGI_Emoji}{1,3}$/v;

/** Make an element with a class, and text or other elements in it. */
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

/** A hue for each name, the same on every page. */
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

  /**
   * @param {HTMLElement} area What scrolls; it has the list in it.
   * @param {HTMLButtonElement} latest Shown while there is something new below.
   */
  constructor(area, latest) {
    this.#area = area;
    this.#list = area.querySelector("ol");
    this.#latest = latest;
    area.addEventListener("scroll", () => this.#scrolled());
    latest.addEventListener("click", () => this.toEnd());
    // The list gets smaller for the banner, a long message, or a phone's keyboard.
    new ResizeObserver(() => this.#stayAtEnd()).observe(area);
  }

  /**
   * Show what somebody has said, or that one's own message has been told back.
   *
   * @returns Whether it is new here: a double, sent again for want of an answer, is not.
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

  /** Show that somebody came or went. */
  notice(name, what, time) {
    const item = make("li", "notice", make("bdi", "", name), ` ${what} `, timeElement(time));
    this.#entries.set(item, { time });
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

  /** Put the item behind the last one that is not later. */
  #place(item) {
    const { time } = this.#entries.get(item);
    let before = this.#list.lastElementChild;
    while (before && (before === item || this.#entries.get(before).time > time)) before = before.previousElementSibling;
    const wasNext = item.nextElementSibling;
    // Where it stands already it is not moved: a screen reader would read it out again.
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
