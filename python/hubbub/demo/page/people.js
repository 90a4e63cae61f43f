/** The line that shows who is in the room. */

const MAX_NAMES = 20;

export class People {
  #element;
  #own = 0;
  #names = new Map();
  // Those who have left: they may still be in a list that was made before.
  #gone = new Set();

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /**
   * Show the list that the server sends to somebody who joins.
   *
   * @param {number} own The id of this page's connection.
   * @param {Record<string, { name: string }>} there Everybody who is there, by id.
   */
  enter(own, there) {
    this.#own = own;
    for (const [id, { name }] of Object.entries(there)) if (!this.#gone.has(Number(id))) this.#names.set(Number(id), name);
    this.#show();
  }

  came(id, name) {
    this.#gone.delete(id);
    this.#names.set(id, name);
    this.#show();
  }

  went(id) {
    this.#gone.add(id);
    this.#names.delete(id);
    this.#show();
  }

  clear() {
    this.#own = 0;
    this.#names.clear();
    this.#gone.clear();
    this.#show();
  }

  #show() {
    const others = [...this.#names].filter(([id]) => id !== this.#own).map(([, name]) => name);
    this.#element.title = others.join(", ");
    // Without the list, nobody knows how many there are.
    if (!this.#own) this.#element.replaceChildren();
    else if (others.length === 0) this.#element.replaceChildren("Only you are here");
    else this.#element.replaceChildren(`${others.length + 1} people are here: you`, ...others.slice(0, MAX_NAMES).flatMap(after));
  }
}

/** Return a comma and a name, whose direction does not change that of the rest of the line. */
function after(name) {
  const element = document.createElement("bdi");
  element.textContent = name;
  return [", ", element];
}
