// Questions to the explorer: one at a time, and of those that wait only the newest. An answer that
// comes after a newer one was shown is dropped.

const KEY = new URLSearchParams(location.search).get("key") ?? "";

/** What the explorer refuses: text, the nearest tissue ([m, m, m] or null), which electrode. */
export class Refusal extends Error {
  constructor({ error, nearest = null, electrode = "" }) {
    super(error);
    Object.assign(this, { nearest, electrode });
  }
}

/** POST a message. Throws Refusal. */
export async function post(path, message, signal) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Explorer-Key": KEY },
      body: JSON.stringify(message, orText),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal({
      error: "The explorer does not answer: was it ended? Start it again and open its address.",
    });
  }
  if (reply.ok) return reply;
  if (reply.headers.get("Content-Type") === "application/json") {
    throw new Refusal(await reply.json());
  }
  throw new Refusal({ error: (await reply.text()).trim() });
}

/** JSON turns NaN into null without a word: it is sent as text, which is refused by name. */
function orText(_, value) {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

export class Asking {
  /** shown(answer, question), bounded(answer, question), refused(refusal, question). */
  constructor({ shown, bounded, refused }) {
    Object.assign(this, { shown, bounded, refused });
    this.count = 0;
    this.dropped = 0;
    this.waiting = null;
    this.busy = false;
    this.judging = null;
  }

  /** Ask for a scene; began : when the event was that asks, ms. */
  ask(scene, began) {
    this.judging?.abort();
    this.count += 1;
    if (this.waiting) this.dropped += 1;
    this.waiting = { number: this.count, scene, began };
    if (!this.busy) this.next();
  }

  async next() {
    const question = this.waiting;
    this.waiting = null;
    this.busy = true;
    try {
      const reply = await post("field", question.scene);
      const answer = await reply.json();
      // the bound is asked for before the picture is drawn: both go on at once
      if (!this.waiting) this.judge(question);
      this.shown(answer, question);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (!this.waiting) this.refused(error, question);
    } finally {
      this.busy = false;
      if (this.waiting) this.next();
    }
  }

  /** The bound, once no newer scene is asked for. */
  async judge(question) {
    this.judging = new AbortController();
    try {
      const reply = await post("bound", question.scene, this.judging.signal);
      const answer = await reply.json();
      if (question.number === this.count) this.bounded(answer, question);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Refusal)) throw error;
      if (question.number === this.count) this.bounded({ relative: null, why: error.message });
    }
  }
}
