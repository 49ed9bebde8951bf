"""Labelled pictures: photographs that a package ships, and graphics drawn by Pillow and by Chromium.

Each is made at sizes that Bitrix's resize_cache has, and in the modes that PNG files decode to.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import skimage.data
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

SIZES = (50, 120, 300, 600, 1000)
ICON_SIZES = (16, 24, 32, 48, 64)


@dataclass(frozen=True)
class Sample:
    """One picture; ``graphic`` is what a person would call it, None where both answers are right."""

    name: str
    kind: str
    image: Image.Image
    graphic: bool | None


def photographs() -> dict[str, Image.Image]:
    """The photographs that scikit-image ships, in colour and in grey, at full size."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
    grey = ("camera", "coins", "moon", "brick", "grass", "gravel", "page", "text", "clock")
    images = {name: Image.fromarray(getattr(skimage.data, name)()) for name in (*names, *grey)}
    left, _, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call]  # it has no hints
    images["motorcycle"] = Image.fromarray(left)
    return images


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The picture made to fit ``side`` × ``side`` pixels, enlarged where it is smaller."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture as it comes back from a JPEG of that IJG quality, 1..100."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).copy()


def ellipse(size: tuple[int, int]) -> Image.Image:
    """An antialiased elliptic mask (mode L) that touches all four sides."""
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(mask).ellipse((0, 0, *mask.size), fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def on_white(image: Image.Image, share: float) -> Image.Image:
    """A product photograph: an object on pure white whose box is ``share`` of the picture in each direction."""
    canvas = Image.new(image.mode, image.size, "white")
    item = image.resize((max(2, int(image.width * share)), max(2, int(image.height * share))), Image.Resampling.LANCZOS)
    place = (image.width - item.width) // 2, (image.height - item.height) // 2
    canvas.paste(item, place, ellipse(item.size))
    return canvas


def cut_out(image: Image.Image) -> Image.Image:
    """The photograph cut out with an antialiased alpha channel (mode RGBA or LA)."""
    result = image.copy()
    result.putalpha(ellipse(image.size))
    return result


def font(pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries, so that no system font is needed."""
    return ImageFont.load_default(max(6, pixels))


def noisy(image: Image.Image) -> Image.Image:
    """The picture with camera noise of 8 grey levels."""
    noise = Image.effect_noise(image.size, 16).convert(image.mode)
    return Image.blend(image, noise, 0.3)


def banner(image: Image.Image, photo_share: float) -> Image.Image:
    """A photograph beside a plain panel with text; the photograph covers ``photo_share`` of the width."""
    result = image.convert("RGB")
    draw = ImageDraw.Draw(result)
    start = int(result.width * photo_share)
    draw.rectangle((start, 0, *result.size), fill=(250, 235, 60))
    size = result.height / 8
    for line, text in enumerate(("Spring", "sale -30 %", "until 1 May")):
        draw.text((result.width * 0.5, size * (1 + 2 * line)), text, fill=(180, 0, 30), font=font(size))
    return result


def _photo_variants(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    yield "photo", image
    yield "photo from a JPEG q60", through_jpeg(image, 60)
    yield "photo from a JPEG q85", through_jpeg(image, 85)
    yield "photo, noisy", noisy(image)
    yield "photo, enlarged", thumbnail(image.resize((image.width // 3 + 1, image.height // 3 + 1)), max(image.size))
    for share in (0.75, 0.4):
        product = on_white(image, share)
        yield f"product on white {share}", product
        yield f"product on white {share} from a JPEG", through_jpeg(product, 85)
        yield f"product on white {share}, palette", product.convert("RGB").quantize(256)
    yield "product cut out", cut_out(image)
    colours = image.convert("RGB").quantize(256)
    yield "photo, palette of 256", colours
    yield "photo, palette of 256, dithered", image.convert("RGB").quantize(palette=colours)
    yield "banner, text on a photo", banner(image, 1.0)
    yield "banner, half a photo", banner(image, 0.5)


def _few_fixed_colours(image: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Photographs for which lossless costs about the same bytes as lossy or fewer, and is exact."""
    yield "product cut out, palette", cut_out(image.convert("RGB")).quantize(256, method=Image.Quantize.FASTOCTREE)
    yield "photo, web palette", image.convert("RGB").convert("P")
    yield "photo, black and white", image.convert("1")


def photo_samples(sides: tuple[int, ...] = SIZES) -> Iterator[Sample]:
    """Every photograph in every size and variant."""
    for name, original in photographs().items():
        for side in sides:
            image = thumbnail(original, side)
            for kind, variant in _photo_variants(image):
                yield Sample(f"{name} {side} px", kind, variant, graphic=False)
            for kind, variant in _few_fixed_colours(image):
                yield Sample(f"{name} {side} px", kind, variant, graphic=None)


def _draw_text(side: int) -> Image.Image:
    image = Image.new("RGB", (side, side * 3 // 4), "white")
    draw = ImageDraw.Draw(image)
    draw.text((4, 2), "Delivery and payment", fill=(200, 20, 20), font=font(18))
    for line in range(side * 3 // 4 // 15):
        words = f"{line} We deliver within the city on the day of the order, {line * 37} roubles."
        draw.text((4, 26 + 15 * line), words, fill=(40, 40, 40), font=font(12))
    return image


def _draw_logo(side: int) -> Image.Image:
    big = side * 4
    image = Image.new("RGBA", (big, big // 2))
    draw = ImageDraw.Draw(image)
    draw.ellipse((big * 0.02, big * 0.02, big * 0.46, big * 0.46), fill=(0, 82, 180, 255))
    draw.polygon([(big * 0.1, big * 0.4), (big * 0.24, big * 0.08), (big * 0.4, big * 0.4)], fill=(255, 200, 0, 255))
    draw.text((big * 0.5, big * 0.14), "ROGA", fill=(30, 30, 30, 255), font=font(big / 7))
    return image.resize((side, side // 2), Image.Resampling.LANCZOS)


def _draw_chart(side: int) -> Image.Image:
    image = Image.new("RGB", (side * 2, side * 3 // 2), "white")
    draw = ImageDraw.Draw(image)
    colours = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f")
    for bar in range(10):
        height = side * (0.3 + 0.1 * (bar * 7 % 10))
        left = side * 0.2 * bar
        draw.rectangle((left, image.height - height, left + side * 0.12, image.height), fill=colours[bar % 5])
    points = [(x, side * (0.5 + 0.3 * math.sin(x / side * 5))) for x in range(0, side * 2, 8)]
    draw.line(points, fill="black", width=3)
    draw.pieslice((side, 0, side * 1.6, side * 0.6), 20, 200, fill=colours[2])
    return image.resize((side, side * 3 // 4), Image.Resampling.LANCZOS)


def _draw_size_chart(side: int) -> Image.Image:
    image = Image.new("RGB", (side, side * 2 // 3), (248, 248, 248))
    draw = ImageDraw.Draw(image)
    step = max(14, side // 9)
    for row in range(image.height // step + 1):
        draw.line((0, row * step, side, row * step), fill=(180, 180, 180))
        for column in range(side // (step * 2) + 1):
            draw.line((column * step * 2, 0, column * step * 2, side), fill=(180, 180, 180))
            place = column * step * 2 + 3, row * step + 2
            draw.text(place, f"{40 + row + column * 2}", fill="black", font=font(step * 0.6))
    return image


def _draw_button(side: int) -> Image.Image:
    image = Image.new("RGBA", (side, max(20, side // 4)))
    shade = Image.linear_gradient("L").resize(image.size)
    face = Image.composite(Image.new("RGBA", image.size, "#2d7a1f"), Image.new("RGBA", image.size, "#8fe07a"), shade)
    mask = Image.new("L", (image.width * 4, image.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *mask.size), mask.height // 4, fill=255)
    image.paste(face, mask=mask.resize(image.size, Image.Resampling.LANCZOS))
    draw = ImageDraw.Draw(image)
    draw.text((side * 0.3, image.height * 0.25), "Buy now", fill="white", font=font(image.height / 2))
    return image


def icon(side: int, which: int) -> Image.Image:
    """One of three icons (mode RGBA) with antialiased edges."""
    big = Image.new("RGBA", (side * 8, side * 8))
    draw = ImageDraw.Draw(big)
    unit = side
    if which == 0:
        draw.polygon([(unit, 3 * unit), (7 * unit, 3 * unit), (6 * unit, 6 * unit), (2 * unit, 6 * unit)], fill="#444")
        draw.ellipse((2 * unit, 6.2 * unit, 3 * unit, 7.2 * unit), fill="#e33")
        draw.ellipse((5 * unit, 6.2 * unit, 6 * unit, 7.2 * unit), fill="#e33")
    elif which == 1:
        draw.ellipse((unit, unit, 5 * unit, 5 * unit), outline="#06c", width=max(1, unit // 2))
        draw.line((4.5 * unit, 4.5 * unit, 7 * unit, 7 * unit), fill="#06c", width=unit)
    else:
        draw.rounded_rectangle((0, 0, 8 * unit - 1, 8 * unit - 1), unit, fill="#25d366")
        draw.text((2 * unit, unit), "W", fill="white", font=font(5 * unit))
    return big.resize((side, side), Image.Resampling.LANCZOS)


def _on(colour: str, image: Image.Image) -> Image.Image:
    background = Image.new("RGBA", image.size, colour)
    return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")


def drawn_samples(sides: tuple[int, ...] = SIZES) -> Iterator[Sample]:
    """Graphics drawn by Pillow, in every size, with alpha where they have it, and in every mode."""
    for side in sides:
        drawn = {
            "text": _draw_text(side),
            "logo": _draw_logo(side),
            "chart": _draw_chart(side),
            "size chart": _draw_size_chart(side),
            "button": _draw_button(side),
        }
        for kind, image in drawn.items():
            yield from _graphic_variants(kind, f"drawn {side} px", image)
    for side in ICON_SIZES:
        for which in range(3):
            yield from _graphic_variants("icon", f"icon {which} {side} px", icon(side, which))


def _graphic_variants(kind: str, name: str, image: Image.Image) -> Iterator[Sample]:
    opaque = _on("white", image)
    yield Sample(name, kind, opaque, graphic=True)
    yield Sample(name, f"{kind}, grey", opaque.convert("L"), graphic=True)
    yield Sample(name, f"{kind}, two colours", opaque.convert("1", dither=Image.Dither.NONE), graphic=True)
    yield Sample(name, f"{kind}, palette", opaque.quantize(64), graphic=True)
    yield Sample(name, f"{kind} through a JPEG", through_jpeg(opaque, 90), graphic=None)
    if image.mode == "RGBA":
        yield Sample(name, f"{kind}, alpha", image, graphic=True)
        yield Sample(name, f"{kind}, grey and alpha", image.convert("LA"), graphic=True)
        yield Sample(name, f"{kind}, palette and alpha", image.quantize(64), graphic=True)


_STYLE = "<style>body{margin:0;font:14px sans-serif} td,th{border:1px solid #999;padding:3px 8px}</style>"
PAGES = {
    "text page": "<div style='padding:12px;width:560px'><h2>Оплата и доставка</h2>"
    + "<p>Доставка по городу - в день заказа. <b>Бесплатно</b> от 3000 ₽. <a href=#>Подробнее</a></p>" * 9
    + "</div>",
    "size table": "<table style='border-collapse:collapse'><tr style='background:#def'>"
    + "".join(f"<th>{name}</th>" for name in ("Размер", "Грудь", "Талия", "Бёдра", "Рост"))
    + "</tr>"
    + "".join("<tr>" + "".join(f"<td>{40 + r * 2 + c * 7}</td>" for c in range(5)) + "</tr>" for r in range(12))
    + "</table>",
    "css button": "<div style='padding:30px'><span style='display:inline-block;padding:24px 60px;font-size:30px;"
    "color:#fff;border-radius:16px;background:linear-gradient(#ff8a00,#c83c00);box-shadow:0 8px 20px rgba(0,0,0,.5)'>"
    "Купить сейчас</span></div>",
    "svg logo": "<svg width=500 height=300><defs><linearGradient id=g><stop stop-color='#0af'/>"
    "<stop offset=1 stop-color='#50c'/></linearGradient></defs><circle cx=150 cy=150 r=130 fill='url(#g)'/>"
    "<path d='M80 200 L150 60 L220 200 Z' fill='#fff'/>"
    "<text x=300 y=180 font-size=70 font-weight=bold fill='#333'>Roga</text></svg>",
    "svg chart": "<svg width=600 height=400>"
    + "".join(
        f"<rect x={i * 50} y={380 - h} width=40 height={h} fill='hsl({i * 30},60%,55%)'/>"
        for i, h in enumerate((120, 300, 90, 210, 340, 60, 180, 260, 140, 310))
    )
    + "<polyline fill=none stroke=black stroke-width=2 points='0,300 60,200 160,240 300,80 420,150 560,30'/>"
    + "".join(f"<text x=0 y={y} font-size=12>{400 - y}</text>" for y in range(20, 400, 40))
    + "</svg>",
    "flat banner": "<div style='width:600px;height:250px;background:linear-gradient(135deg,#123,#36c);color:#fff;"
    "font-size:54px;padding:40px'>Скидки<br>до&nbsp;50&nbsp;%</div>",
}


def screenshots() -> dict[str, Image.Image]:
    """Pages drawn by Chromium, cropped to what they show (mode RGB)."""
    images = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu", "--headless"]
        )
        page = browser.new_page(viewport={"width": 700, "height": 700})
        for name, body in PAGES.items():
            page.set_content(f"<!doctype html><meta charset=utf-8>{_STYLE}{body}")
            shot = page.locator("body > *").first.screenshot()
            images[name] = Image.open(io.BytesIO(shot)).convert("RGB")
        browser.close()
    return images


def screenshot_samples(sides: tuple[int, ...] = SIZES) -> Iterator[Sample]:
    """Pages as Chromium draws them, and made smaller as Bitrix does."""
    for kind, shot in screenshots().items():
        yield from _graphic_variants(kind, "as drawn", shot)
        for side in sides:
            if side < max(shot.size):
                yield from _graphic_variants(kind, f"made smaller to {side} px", thumbnail(shot, side))
