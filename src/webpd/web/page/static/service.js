// Talking to the service: the token, questions, and the stream of news.

const KEY = "token";
const AGAIN = 2000, REFUSED_AGAIN = 10000; // milliseconds
const SILENT = 40000; // the service says something every 15 s

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Return the answer to a request; throws `Refused` unless it is a good one. */
export async function ask(url, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const answer = await fetch(url, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim().slice(0, 500));
  return answer;
}

export const retry = async (order) =>
  (await ask("/retry", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(order) })).json();

/** Follow the stream for ever: `on.news(section, value)`, `on.up()`, `on.down(status)`. Returns a function that begins
 * anew, with the token as it is now. */
export function follow(on) {
  let current = new AbortController();
  let wake = () => {};

  async function run() {
    for (;;) {
      current = new AbortController();
      let pause = AGAIN;
      try {
        await read(current, on);
      } catch (error) {
        if (error instanceof Refused) pause = REFUSED_AGAIN;
        if (!current.signal.aborted || current.signal.reason === "silent") on.down(error instanceof Refused ? error.status : 0);
        else pause = 0;
      }
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, pause);
      });
    }
  }

  run();
  return () => {
    current.abort("anew");
    wake();
  };
}

async function read(controller, on) {
  const answer = await ask(`/events?lang=${document.documentElement.lang}`, { signal: controller.signal });
  on.up();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const watchdog = setTimeout(() => controller.abort("silent"), SILENT);
    const { value, done } = await reader.read().finally(() => clearTimeout(watchdog));
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const found = /^event: (.*)\ndata: (.*)$/.exec(event);
      if (found) on.news(found[1], JSON.parse(found[2]));
    }
  }
}
