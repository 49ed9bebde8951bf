// The slider: an original and its WebP, one above the other.

import { ask } from "./service.js";
import { size, smaller, t } from "./words.js";

const byId = (id) => document.getElementById(id);
const [stage, before, after, at, note, caption] = ["stage", "before", "after", "at", "stage-note", "caption"].map(byId);
let shown = "";
let urls = [];

at.addEventListener("input", () => stage.style.setProperty("--at", `${at.value}%`));

/** Show the conversion, and return 200 or the status for which it can't be had; what was asked for last is shown. */
export async function compare(image) {
  shown = image.key;
  note.hidden = !stage.hidden;
  note.textContent = t.loading;
  let pictures;
  try {
    pictures = await Promise.all(["original", "webp"].map((kind) => picture(image.ref, kind)));
  } catch (error) {
    if (shown !== image.key) return error.status;
    stage.hidden = caption.hidden = true;
    note.hidden = false;
    note.textContent = `${image.path}: ${t[`no_picture_${error.status}`] ?? `${t.no_picture} (${error.message})`}`;
    return error.status;
  }
  if (shown !== image.key) {
    pictures.forEach((each) => URL.revokeObjectURL(each.url));
    return 200;
  }
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = pictures.map((each) => each.url);
  [before.src, after.src] = urls;
  await Promise.allSettled([before.decode(), after.decode()]);
  before.alt = `${t.original}: ${image.path}`;
  after.alt = `WebP: ${image.path}`;
  fit();
  caption.hidden = stage.hidden = false;
  note.hidden = true;
  const [source, webp] = pictures.map((each) => each.bytes);
  byId("before-size").textContent = size(source);
  byId("after-size").textContent = size(webp);
  byId("gain").textContent = webp < source ? smaller(source, webp) : "";
  byId("shown-path").textContent = `${image.path} · ${before.naturalWidth} × ${before.naturalHeight}`;
  return 200;
}

export const isShown = (key) => shown === key;

/** Forget what is shown, so that it is asked for again. */
export function forget() {
  shown = "";
  if (stage.hidden) note.textContent = t.choose;
}

async function picture(ref, kind) {
  const blob = await (await ask(`/picture?${ref}&kind=${kind}`)).blob();
  return { url: URL.createObjectURL(blob), bytes: blob.size };
}

/** The stage has the picture's shape, and is at most twice its size: small ones are not blown up to a blur. */
function fit() {
  const { naturalWidth: width, naturalHeight: height } = before;
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.width = `min(100%, ${Math.max(width * 2, 240)}px, 60vh * ${width / height})`;
}
