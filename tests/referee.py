"""The independent judges of a picture: Chromium, which is what the visitors of the shop see, and libvips.

Chromium shows the original and the sidecar side by side inside one page and compares the pixels there, so thousands of
pairs are cheap. The numbers that it gives are judged here, in Python, where the tolerances can be read.
"""

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, Playwright, sync_playwright

CHROMIUM = "/usr/bin/chromium"
_ORIGIN = "http://localhost/"  # a secure context, which WebCodecs asks for; nothing listens there, the page is routed
_PAGE = """<!doctype html><script>
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const mime = data => data[0] === 0xff ? 'image/jpeg' : data[0] === 0x89 ? 'image/png' : 'image/webp';

async function pixels(text, space) {
  const data = bytes(text);
  const url = URL.createObjectURL(new Blob([data], {type: mime(data)}));
  const image = new Image();
  try {
    image.src = url;
    await image.decode();
    return draw(image, image.naturalWidth, image.naturalHeight, space);
  } catch (error) {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}

function draw(image, width, height, space) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', {willReadFrequently: true, colorSpace: space || 'srgb'});
  context.drawImage(image, 0, 0);
  return {width, height, data: context.getImageData(0, 0, width, height).data};
}

// Laid over black, then over white: what lies under full transparency is no difference. Blocks of 8x8 find faults.
function compare(one, two) {
  const {width, height} = one;
  const columns = Math.ceil(width / 8), rows = Math.ceil(height / 8);
  const sums = new Float64Array(columns * rows * 3), counts = new Float64Array(columns * rows);
  let total = 0, worst = 0, alpha = 0, bias = [0, 0, 0];
  const histogram = new Uint32Array(256);
  const a = one.data, b = two.data;
  for (let y = 0, i = 0; y < height; y++) for (let x = 0; x < width; x++, i += 4) {
    const block = (y >> 3) * columns + (x >> 3);
    counts[block]++;
    alpha = Math.max(alpha, Math.abs(a[i + 3] - b[i + 3]));
    let most = 0;
    for (let c = 0; c < 3; c++) {
      const black = (b[i + c] * b[i + 3] - a[i + c] * a[i + 3]) / 255;
      const white = black + a[i + 3] - b[i + 3];
      const signed = Math.abs(black) > Math.abs(white) ? black : white;
      sums[block * 3 + c] += signed;
      bias[c] += signed;
      total += Math.abs(signed);
      most = Math.max(most, Math.abs(signed));
    }
    histogram[Math.min(255, Math.round(most))]++;
    worst = Math.max(worst, most);
  }
  let block = 0;
  // A partial block at the edge has few pixels to average: its difference counts by the pixels it has.
  for (let i = 0; i < counts.length; i++) for (let c = 0; c < 3; c++)
    block = Math.max(block, Math.abs(sums[i * 3 + c]) / Math.max(32, counts[i]));
  const count = width * height;
  return {
    width: [one.width, two.width], height: [one.height, two.height], mean: total / count / 3, worst, alpha, block,
    bias: Math.max(...bias.map(value => Math.abs(value) / count)),
    far: histogram.slice(33).reduce((x, y) => x + y, 0) / count,
  };
}

async function pair(original, sidecar, space) {
  const [one, two] = [await pixels(original, space), await pixels(sidecar, space)];
  if (!one || !two) return {shown: [!!one, !!two]};
  if (one.width !== two.width || one.height !== two.height)
    return {shown: [true, true], width: [one.width, two.width], height: [one.height, two.height]};
  return {shown: [true, true], ...compare(one, two)};
}

async function pairs(list, space) {
  const answers = [];
  for (const [original, sidecar] of list) answers.push(await pair(original, sidecar, space));
  return answers;
}

async function one(text, space) {
  const picture = await pixels(text, space);
  return picture && {...picture, data: base64(picture.data)};
}

function base64(data) {
  let text = '';
  for (let i = 0; i < data.length; i += 0x8000) text += String.fromCharCode(...data.subarray(i, i + 0x8000));
  return btoa(text);
}

async function animation(text) {
  const data = bytes(text);
  const decoder = new ImageDecoder({data, type: mime(data), preferAnimation: true});
  try {
    await decoder.completed;
    await decoder.tracks.ready;
    const track = decoder.tracks.selectedTrack;
    const frames = [];
    for (let frameIndex = 0; frameIndex < track.frameCount; frameIndex++) {
      const {image} = await decoder.decode({frameIndex});
      const {width, height, data} = draw(image, image.displayWidth, image.displayHeight);
      frames.push({width, height, milliseconds: image.duration / 1000, data: base64(data)});
      image.close();
    }
    const repetitions = track.repetitionCount === Infinity ? -1 : track.repetitionCount;
    return {animated: track.animated, repetitions, frames};
  } catch (error) {
    return null;
  } finally {
    decoder.close();
  }
}
</script>"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Chromium sees of an original and its sidecar; differences in levels of 0..255, on the worse ground.

    ``mean``: over all pixels; ``block``: the worst mean of an 8x8 block, signed differences; ``bias``: the mean signed
    difference of the worst channel; ``far``: the share of pixels more than 32 levels off; ``alpha``: the worst alpha.
    """

    original_shown: bool
    sidecar_shown: bool
    same_size: bool = False
    mean: float = 255.0
    worst: float = 255.0
    alpha: float = 255.0
    block: float = 255.0
    bias: float = 255.0
    far: float = 1.0

    def same(self, *, mean: float = 6.0, block: float = 14.0, bias: float = 1.5, far: float = 0.02) -> bool:
        """Whether the two are one picture, but for what a lossy coder takes."""
        return (
            self.original_shown
            and self.sidecar_shown
            and self.same_size
            and self.mean <= mean
            and self.block <= block
            and self.bias <= bias
            and self.far <= far
        )


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as Chromium shows it: 8-bit RGBA, not premultiplied, rows from the top."""

    width: int
    height: int
    rgba: bytes

    def pixel(self, x: int, y: int) -> tuple[int, ...]:
        start = 4 * (y * self.width + x)
        return tuple(self.rgba[start : start + 4])


@dataclass(frozen=True, slots=True)
class Animation:
    """``repetitions`` counts what follows the first showing; -1 is for ever. ``milliseconds`` is one per frame."""

    animated: bool
    repetitions: int
    frames: tuple[Shown, ...]
    milliseconds: tuple[float, ...]


class Chromium:
    """A real browser; every answer comes from its own decoders.

    Playwright lives in one thread of its own: it keeps an event loop running, which no other test must find in its way.
    """

    def __init__(self, thread: Executor, page: Page) -> None:
        self._thread = thread
        self._page = page

    def _ask(self, script: str, argument: Any) -> Any:
        return self._thread.submit(self._page.evaluate, script, argument).result()

    def compare(self, original: bytes, sidecar: bytes, space: str = "srgb") -> Verdict:
        return self.compare_all([(original, sidecar)], space)[0]

    def compare_all(self, pairs: Sequence[tuple[bytes, bytes]], space: str = "srgb") -> list[Verdict]:
        """Judges many pairs; ``space`` is the canvas's colour space, ``srgb`` or ``display-p3``."""
        verdicts: list[Verdict] = []
        for start in range(0, len(pairs), 50):
            texts = [[_text(original), _text(sidecar)] for original, sidecar in pairs[start : start + 50]]
            verdicts += map(_verdict, self._ask("([list, space]) => pairs(list, space)", [texts, space]))
        return verdicts

    def show(self, image: bytes, space: str = "srgb") -> Shown | None:
        """The picture, or None where Chromium shows none."""
        answer = self._ask("([text, space]) => one(text, space)", [_text(image), space])
        return answer and Shown(answer["width"], answer["height"], base64.b64decode(answer["data"]))

    def play(self, image: bytes) -> Animation | None:
        """All frames of an animation, or None where Chromium decodes none."""
        answer = self._ask("text => animation(text)", _text(image))
        if answer is None:
            return None
        frames = answer["frames"]
        return Animation(
            answer["animated"],
            answer["repetitions"],
            tuple(Shown(frame["width"], frame["height"], base64.b64decode(frame["data"])) for frame in frames),
            tuple(frame["milliseconds"] for frame in frames),
        )


@contextmanager
def open_chromium() -> Iterator[Chromium]:
    """Starts a headless Chromium with no network: its one page is handed to it from memory."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        playwright = thread.submit(sync_playwright().start).result()
        try:
            yield Chromium(thread, thread.submit(_open_page, playwright).result())
        finally:
            thread.submit(playwright.stop).result()


def _open_page(playwright: Playwright) -> Page:
    browser = playwright.chromium.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]
    )
    page = browser.new_page()
    page.route("**/*", lambda route: route.fulfill(body=_PAGE, content_type="text/html"))
    page.goto(_ORIGIN)
    return page


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _verdict(answer: dict[str, Any]) -> Verdict:
    original_shown, sidecar_shown = answer["shown"]
    if "mean" not in answer:
        return Verdict(original_shown, sidecar_shown)
    return Verdict(True, True, True, *(answer[name] for name in ("mean", "worst", "alpha", "block", "bias", "far")))
