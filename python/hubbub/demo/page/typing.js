/** The line that shows who is typing. */

// A page reports typing more often than this (milliseconds).
const FORGOTTEN_AFTER = 4000;

export class TypingLine {
  #element;
  #names = new Map();
  #timers = new Map();

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  heard(who, name) {
    this.#names.set(who, name);
    clearTimeout(this.#timers.get(who));
    this.#timers.set(who, setTimeout(() => this.stopped(who), FORGOTTEN_AFTER));
    this.#show();
  }

  stopped(who) {
    clearTimeout(this.#timers.get(who));
    this.#timers.delete(who);
    this.#names.delete(who);
    this.#show();
  }

  clear() {
    for (const who of [...this.#names.keys()]) this.stopped(who);
  }

  #show() {
    const names = [...this.#names.values()].map((name) => {
      const element = document.createElement("bdi");
      element.textContent = name;
      return element;
    });
    const parts = { 0: [], 1: [names[0], " is typing"], 2: [names[0], " and ", names[1], " are typing"] };
    this.#element.replaceChildren(...(parts[names.length] ?? ["Several people are typing"]));
    this.#element.hidden = names.length === 0;
  }
}
