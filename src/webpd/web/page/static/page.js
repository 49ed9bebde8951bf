// What the service tells, put into the page.

import { bars, line } from "./charts.js";
import { compare, forget, isShown } from "./compare.js";
import { ask, follow, Refused, retry, token } from "./service.js";
import { chooseTheme } from "./theme.js";
import { counted, duration, number, percent, showAgo, showSaid, size, smaller, t, tick } from "./words.js";

const byId = (id) => document.getElementById(id);
const set = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
};
const count = (id, key, value) => {
  set(id, number(value));
  set(`${id}-unit`, counted(key, value));
};
const canWrite = document.body.dataset.token === "yes";
const exposed = document.body.dataset.exposed === "yes";
const tried = new Map(); // refs of failures that were sent again, and when each had failed
let again = 0; // how many of those failed once more
let parts = [];
let connected = false;
let gone = "";
let asked = false; // for the token, since it was last refused

function make(kind, name, text = "") {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** Make the list show the items in order; those that stay keep their elements, and the focus with them. */
function sync(list, items, key, build, fill) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const child = old.get(name) ?? build(item);
    child.dataset.key = name;
    fill(child, item);
    if (child === place) place = place.nextElementSibling;
    else list.insertBefore(child, place);
    old.delete(name);
  }
  for (const child of old.values()) child.remove();
}

// How it is

const RANK = { down: 2, degraded: 1 };
const PASSING = new Set(["starting", "stopping", "first_look", "codecs_starting"]);

function showParts(told) {
  parts = told;
  sync(byId("parts"), told, (part) => `${part.part} ${part.subject}`, buildPart, fillPart);
  showVerdict();
  showOneUnasked();
}

function buildPart(part) {
  const item = make("li"), text = make("div");
  const more = make("span", "fine more");
  more.append(make("time"), make("span", "reason"));
  text.append(make("span", "subject", subjectOf(part)), make("span", "how"), more);
  item.append(make("span", "dot"), text);
  item.firstChild.setAttribute("aria-hidden", "true");
  return item;
}

function fillPart(item, part) {
  item.dataset.is = part.state;
  const [how, more, reason] = [".how", ".more", ".reason"].map((name) => item.querySelector(name));
  how.textContent = ` – ${howOf(part)}`;
  more.hidden = part.state === "ok";
  showSaid(reason, part, "reason");
  showAgo(item.querySelector("time"), part.since, "lasts");
}

const subjectOf = (part) => (part.subject ? `${t[`part_${part.part}`]} ${part.subject}` : t[`part_${part.part}`]);
const howOf = (part) => t[`how_${part.how}`] ?? part.how;

function showVerdict() {
  const trouble = parts.filter((part) => RANK[part.state]).sort((one, other) => RANK[other.state] - RANK[one.state]);
  const state = !connected && gone ? "lost" : trouble.length ? trouble[0].state : parts.length ? "ok" : "asking";
  document.body.dataset.state = state;
  const passing = trouble.every((part) => PASSING.has(part.how));
  const text = { ok: t.well, degraded: passing ? t.getting_ready : t.degraded, down: t.down, asking: t.asking, lost: gone }[state];
  set("verdict", text);
  document.title = `${{ ok: "✓", degraded: "!", down: "✕" }[state] ?? "…"} webpd · ${t.title}`;
  sync(byId("problems"), state === "lost" ? [] : trouble, (part) => `${part.part} ${part.subject} ${part.how}`, () => {
    const item = make("li");
    item.append(make("span", "what"), make("span", "do"));
    return item;
  }, (item, part) => {
    item.querySelector(".what").textContent = `${subjectOf(part)}: ${howOf(part)}.`;
    showSaid(item.querySelector(".do"), part, "cure");
  });
}

// The numbers

function showWork(work) {
  count("rate", "rate_unit", work.pace < 10 ? work.pace : Math.round(work.pace));
  count("waiting", "backlog_unit", work.waiting);
  set("in-flight", number(work.in_flight));
  set("folders", number(work.folders));
  set("left", work.left === 0 ? t.left_none : work.left === null ? t.left_unknown : duration(work.left));
  line(byId("backlog-chart"), work.backlog, number);
}

function showTotals(totals) {
  const saved = (sums) => sums.source - sums.webp;
  set("saved", size(saved(totals.all)));
  set("saved-share", totals.all.source ? smaller(totals.all.source, totals.all.webp) : "");
  set("saved-day", size(saved(totals.day)));
  set("saved-hour", size(saved(totals.hour)));
  set("converted", number(totals.all.images));
}

function showCharts(charts) {
  bars(byId("saved-chart"), charts.saved, size);
  bars(byId("rate-chart"), charts.rate, number);
}

// Conversions

const recent = byId("recent");
// A finger that has left still counts as :hover.
const CHOOSING = matchMedia("(hover: hover)").matches ? ":hover, :has(:focus-visible)" : ":has(:focus-visible)";

function showRecent(images) {
  byId("recent-none").hidden = images.length > 0;
  const choosing = recent.matches(CHOOSING) && recent.childElementCount > 0;
  byId("paused").hidden = !choosing;
  if (!choosing) sync(recent, images.map((image) => ({ ...image, key: keyOf(image) })), (image) => image.key, buildRecent, fillRecent);
  newest = images.map((image) => ({ ...image, key: keyOf(image) }));
  showOneUnasked();
}

const vain = new Set(); // conversions that could not be shown
let newest = [];
const LATER = new Set([401, 503, 504, undefined]); // of which none tells anything of the picture
let showing = false;
let picked = false; // by whoever looks

/** Until something is compared, compare the newest that can be; where the mount does not answer, when a part changes. */
async function showOneUnasked() {
  if (showing) return;
  showing = true;
  for (const image of newest) {
    if (picked || !byId("stage").hidden) break;
    if (vain.has(image.key)) continue;
    const status = await choose(image);
    if (LATER.has(status) && !picked) {
      forget();
      markShown();
      break;
    }
    if (status !== 200) vain.add(image.key);
  }
  showing = false;
}

const keyOf = (image) => `${image.ref} ${image.at}`;

function choose(image) {
  const status = compare(image);
  markShown();
  return status;
}

function markShown() {
  for (const item of recent.children) item.firstChild.setAttribute("aria-pressed", String(isShown(item.dataset.key)));
}

function buildRecent(image) {
  const item = make("li"), button = make("button");
  button.type = "button";
  const name = make("span", "file", image.path.split("/").at(-1));
  name.title = `${image.root}/${image.path}`;
  button.append(name, make("span", "gain", `−${percent(image.source - image.webp, image.source)}`));
  button.append(make("span", "sizes", `${size(image.source)} → ${size(image.webp)}`), make("time"));
  button.addEventListener("click", async () => {
    picked = true;
    await choose(image);
    byId("figure").scrollIntoView({ block: "nearest" }); // on a phone it is above the list
  });
  item.append(button);
  return item;
}

function fillRecent(item, image) {
  showAgo(item.querySelector("time"), image.at);
  item.firstChild.setAttribute("aria-pressed", String(isShown(image.key)));
}

// Failures

function showFailures(told) {
  count("failed", "failed_unit", told.total);
  const reasons = Object.entries(told.reasons).sort((one, other) => other[1] - one[1]);
  sync(byId("reasons"), reasons, ([reason]) => reason, ([reason]) => {
    const item = make("li");
    item.append(make("span", "", t[`reason_${reason}`] ?? reason), make("b"));
    return item;
  }, (item, [, count]) => {
    item.lastChild.textContent = number(count);
  });
  byId("failures-none").hidden = told.total > 0;
  byId("failures-more").hidden = told.total <= told.shown.length;
  if (canWrite) byId("retry-all").hidden = told.total === 0;
  else byId("token-unset").hidden = told.total === 0;
  showOutcome(told.shown);
  sync(byId("failures"), told.shown, (failure) => failure.ref, buildFailure, fillFailure);
}

/** Tell how another try went, of those that wait for it no more. */
function showOutcome(failures) {
  if (!tried.size) return;
  const failed = new Map(failures.map((failure) => [failure.ref, String(failure.at)]));
  for (const [ref, at] of tried) {
    if (failed.get(ref) === at) continue;
    tried.delete(ref);
    if (failed.has(ref)) again += 1;
  }
  if (again) set("answer", `${t.failed_again} ${number(again)}`);
  else if (!tried.size) set("answer", "");
}

function buildFailure(failure) {
  const item = make("li"), line_ = make("p", "file"), detail = make("p", "detail");
  line_.append(make("span", "why"), ` ${failure.path}`);
  line_.title = `${failure.root}/${failure.path}`;
  detail.append(make("time"), make("span"));
  item.append(line_, make("p", "cure"), detail);
  if (canWrite) {
    const button = make("button", "", t.retry);
    button.type = "button";
    button.setAttribute("aria-label", `${t.retry_of} ${failure.path}`);
    button.addEventListener("click", () => send({ refs: [failure.ref] }, [failure.ref]));
    item.append(button);
  }
  return item;
}

function fillFailure(item, failure) {
  const [why, cure, detail] = [".why", ".cure", ".detail span"].map((name) => item.querySelector(name));
  why.textContent = `${t[`reason_${failure.reason}`] ?? failure.reason}:`;
  cure.textContent = t[`cure_${failure.reason}`] ?? "";
  detail.textContent = failure.detail ? ` · ${failure.detail}` : "";
  detail.lang = failure.in_english.length ? "en" : document.documentElement.lang;
  item.dataset.at = failure.at;
  showAgo(item.querySelector("time"), failure.at);
  showTried(item);
}

function showTried(item) {
  const button = item.querySelector("button");
  if (!button) return;
  const waits = tried.has(item.dataset.key);
  button.disabled = waits;
  button.textContent = waits ? t.retrying : t.retry;
}

async function send(order, refs) {
  if (!token.get()) return askToken(() => send(order, refs));
  const items = [...byId("failures").children].filter((item) => !refs || refs.includes(item.dataset.key));
  try {
    const { retried } = await retry(order);
    again = 0;
    set("answer", `${t.retried} ${number(retried)}`);
    for (const item of items) {
      tried.set(item.dataset.key, item.dataset.at);
      showTried(item);
    }
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return askToken(() => send(order, refs), t.token_wrong);
    set("answer", `${t.retry_failed} ${error.message}`);
  }
}

// What lies beside the originals

function showLeftovers(told) {
  for (const kind of ["orphans", "foreign"]) {
    set(kind, number(told[kind]));
    document.querySelector(`details[data-kind="${kind}"]`).hidden = told[kind] === 0;
  }
  byId("refused").hidden = told.refused === 0;
}

for (const details of document.querySelectorAll("details[data-kind]")) {
  details.addEventListener("toggle", () => details.open && list(details));
}

async function list(details) {
  const note = details.querySelector("p");
  note.textContent = t.loading;
  try {
    const { files } = await (await ask(`/leftovers?kind=${details.dataset.kind}`)).json();
    note.textContent = !files.length ? t.list_none : files.length >= 100 ? t.list_first : "";
    details.querySelector("ul").replaceChildren(...files.map((file) => make("li", "", `${file.root}/${file.path}`)));
  } catch (error) {
    note.textContent = error.message;
  }
}

// The token

let then = () => {};

function askToken(after, wrong = "") {
  then = after;
  asked = true;
  set("token-wrong", wrong);
  byId("given").value = "";
  if (!byId("ask").open) byId("ask").showModal();
}

function showToken() {
  if (canWrite) set("token", token.get() ? t.token_forget : t.token_enter);
}

if (canWrite) {
  byId("token").addEventListener("click", () => {
    if (!token.get()) return askToken(() => {});
    token.forget();
    showToken();
    if (exposed) location.reload();
  });
  byId("retry-all").addEventListener("click", () => send({ all: true }));
}
byId("ask-cancel").addEventListener("click", () => byId("ask").close());
byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = byId("given").value.trim();
  // No header can carry it: every request would end before it is sent.
  if (/[^\x20-\x7e]/.test(given)) return set("token-wrong", t.token_letters);
  token.set(given);
  byId("ask").close();
  asked = false;
  showToken();
  forget();
  then();
  if (exposed) anew();
});

// The stream

function showService(service) {
  set("where", `${t.host} ${service.host} · ${t.version} ${service.version}`);
}

function showTrouble(trouble) {
  const text = { slow: t.slow, no_history: t.no_history }[trouble] ?? (trouble ? `${t.history_broken} ${trouble}` : "");
  set("trouble", text);
  byId("trouble").hidden = !text;
}

const SHOW = {
  service: showService, parts: showParts, work: showWork, totals: showTotals, charts: showCharts, recent: showRecent,
  failures: showFailures, leftovers: showLeftovers, trouble: showTrouble,
};

function down(status) {
  connected = false;
  gone = status === 503 ? t.busy : status === 401 ? t.token_needed : status === 403 ? t.shows_nothing : t.lost;
  showVerdict();
  if (status === 401 && !asked) askToken(() => {}, token.get() ? t.token_wrong : "");
}

showToken();
chooseTheme();
setInterval(tick, 1000);
const anew = follow({
  news: (section, value) => SHOW[section]?.(value),
  up: () => {
    connected = true;
    gone = "";
    showVerdict();
  },
  down,
});
