// Texts, numbers, sizes and times in the language of the page.

export const t = JSON.parse(document.getElementById("texts").textContent);
const lang = document.documentElement.lang;
const plain = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
const moments = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });
const plurals = new Intl.PluralRules(lang);
const FORMS = ["one", "few", "many", "other"];
const BYTES = t.bytes.split(",");

export const number = (value) => plain.format(value);

export const percent = (part, whole) =>
  whole > 0 ? new Intl.NumberFormat(lang, { style: "percent", maximumFractionDigits: 0 }).format(part / whole) : "–";

/** The text in the form that goes with the number. */
export function counted(key, value) {
  const forms = t[key].split("|");
  const form = plurals.select(value);
  return forms[form === "one" ? 0 : forms.length === 2 ? 1 : FORMS.indexOf(form)];
}

/** What the service says of a part, as a sentence of its own; `in_english` marks what it says in no other language. */
export function showSaid(element, part, name) {
  const text = part[name];
  if (element.dataset.said === text) return;
  element.dataset.said = text;
  element.lang = part.in_english.includes(name) ? "en" : lang;
  const sentence = text && text[0].toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
  element.replaceChildren(...sentence.split("`").map((piece, place) => (place % 2 ? code(piece) : piece)));
}

function code(text) {
  const element = document.createElement("code");
  element.textContent = text;
  return element;
}

/** How much smaller, in words. */
export const smaller = (source, webp) => t.saved_note.replace("{share}", percent(source - webp, source));

/** Sizes count in thousands, as `webpd status` has them. */
export function size(bytes) {
  const sign = bytes < 0 ? "−" : "";
  let value = Math.abs(bytes), unit = 0;
  while (value >= 999.5 && unit < BYTES.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${sign}${new Intl.NumberFormat(lang, { maximumFractionDigits: digits }).format(value)} ${BYTES[unit]}`;
}

/** A length of time, by its two largest units. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} ${t.second}`;
  if (whole < 3600) return `${Math.round(whole / 60)} ${t.minute}`;
  const [large, small, one, other] = whole < 86400 ? [3600, 60, t.hour, t.minute] : [86400, 3600, t.day, t.hour];
  const rest = Math.floor((whole % large) / small);
  return `${number(Math.floor(whole / large))} ${one}${rest ? ` ${rest} ${other}` : ""}`;
}

/** Make a <time> tell how long ago that moment (Unix time, seconds) was, or since then how long (`form` is "lasts");
 * `tick` keeps it true. */
export function showAgo(element, moment, form = "ago") {
  element.dataset.form = form;
  element.dataset.at = moment;
  element.dateTime = new Date(moment * 1000).toISOString();
  element.title = moments.format(moment * 1000);
  tell(element);
}

export function tick() {
  for (const element of document.querySelectorAll("time[data-at]")) tell(element);
}

function tell(element) {
  const seconds = Date.now() / 1000 - Number(element.dataset.at);
  const text = seconds < 2 ? t.just_now : t[element.dataset.form].replace("{time}", duration(seconds));
  if (element.textContent !== text) element.textContent = text;
}
