"""Colours: which profile a sidecar must carry, and the conversions for those that WebP cannot.

An RGB profile goes into the sidecar byte for byte, so that every browser and screen makes of it what it makes of the
original, wide gamut included, and a profile that a browser ignores it ignores in both. It is left out where its numbers
are those of sRGB, which is what browsers take for granted.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageCms

from webpd.convert.png import Png, damaged, icc_profile, unsuited
from webpd.convert.profile import rgb_profile
from webpd.errors import UnsuitedError

_SRGB = ImageCms.createProfile("sRGB")
# Browsers convert without black point compensation. LittleCMS forces it on for perceptual transforms to a profile of
# version 4, as its own sRGB is; declared as version 2, the same profile is left alone.
_SRGB_BYTES = ImageCms.ImageCmsProfile(_SRGB).tobytes()
_SRGB_V2 = ImageCms.ImageCmsProfile(BytesIO(_SRGB_BYTES[:8] + b"\x02\x40\0\0" + _SRGB_BYTES[12:]))
# Levels of 255 by which a profile may differ from sRGB and still be called sRGB: rounding, not colour.
_NO_DIFFERENCE = 2
# gAMA's value for sRGB, and how far off Chromium still takes it to mean sRGB itself where no cHRM stands beside: 5 %.
_SRGB_GAMMA, _SAME_GAMMA = 45_455, 2_272

# White, red, green and blue as x and y, in cHRM's units of 1/100,000, by ITU-T H.273's number of the primaries.
_CHROMATICITIES = {
    1: (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),  # sRGB, BT.709
    9: (31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600),  # BT.2020
    12: (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),  # Display P3
}
# Steps of cHRM's units that are rounding: writers give three decimals.
_SAME_CHROMATICITY = 100
# How far from those of sRGB the chromaticities of spaces in use lie: ROMM's green goes farthest. What lies farther is
# nonsense that browsers take in different ways.
_FARTHEST_CHROMATICITY = 25_000
# H.273's transfer functions that Chromium believes both in cICP chunks and in ICC profiles. Numbers 1, 6 and 11 it
# believes only in chunks; 14 is the same function. Linear light (8) is left out: lossy coding spoils its darks.
_TRANSFERS = {1: 14, 6: 14, 11: 14, **{number: number for number in (4, 5, 7, 13, 14, 15, 16, 17, 18)}}
# The level of sRGB that level 16 of a grey may reach before lossy coding shows in the darks: gamma 1.8 reaches 24,
# linear light 71.
_DARK_LEVEL, _BRIGHTEST_DARK, _NO_GREY, _DARKEST_WHITE = 16, 40, 16, 250


@dataclass(frozen=True, slots=True)
class Colours:
    """What becomes of a picture's colours; nothing at all by default, which is right for sRGB.

    ``profile`` goes into the sidecar. ``table`` maps the 256 levels of every colour channel to sRGB's. ``foreign`` is a
    profile by which the pixels must be converted to sRGB.
    """

    profile: bytes = b""
    table: Sequence[int] | None = None
    foreign: bytes = b""

    def correct(self, image: Image.Image) -> Image.Image:
        """Applies ``table`` or ``foreign`` to the colour channels of an ``L``, ``LA``, ``RGB`` or ``RGBA`` image."""
        if self.table is not None:
            unchanged = range(256)
            bands = image.getbands()
            return image.point([level for band in bands for level in (unchanged if band == "A" else self.table)])
        if self.foreign:
            converted = _transform(self.foreign, "RGB").apply(image.convert("RGB"))
            if image.mode in {"LA", "RGBA"}:
                converted.putalpha(image.getchannel("A"))
            return converted
        return image

    def converted(self) -> "Colours":
        """The same with all pixels in sRGB, for animations: Chromium passes over the profiles of animated WebP.

        Raises:
            UnsuitedError: for colours that only a browser can convert.
        """
        if not self.profile or _shown_lattice(self.profile) is None:
            return Colours(table=self.table, foreign=self.foreign)
        if _names_code_points(self.profile):
            raise unsuited("it is animated in colours that an animated WebP cannot carry")
        return Colours(foreign=self.profile)


def of_profile(profile: bytes, *, grey: bool) -> Colours:
    """The colours of an RGB or grey picture with this ICC profile; one that does not fit it counts for nothing."""
    space = profile[16:20]
    if space == b"RGB ":
        if _names_code_points(profile):
            return Colours(profile)
        shown = _shown_lattice(profile)
        if shown is not None and _is_identity(shown):
            return Colours()
        if shown is not None and _stretches_darks(shown):
            return Colours(foreign=profile)
        return Colours(profile)
    if space == b"GRAY" and grey:
        return Colours(table=_grey_table(profile))
    return Colours()


def of_png(png: Png) -> Colours:
    """The colours of a PNG by its chunks, in Chromium's order: cICP, iCCP, sRGB, gAMA with or without cHRM.

    Raises:
        FailedError: ``DAMAGED`` where a chunk is cut.
        UnsuitedError: where the chunks name colours that browsers do not know, or that a WebP cannot name.
    """
    facts = png.facts
    if not facts.keys() & {b"cICP", b"iCCP", b"gAMA"}:
        return Colours()
    if b"cICP" in facts:
        return _of_code_points(facts[b"cICP"])
    profile = icc_profile(png)
    if profile:
        if profile[16:20] not in {b"RGB ", b"GRAY", b"CMYK"}:
            raise unsuited("its colour profile is not one for pictures on a screen")
        return of_profile(profile, grey=png.is_grey)
    if b"sRGB" in facts or len(facts.get(b"gAMA", b"")) != 4:
        return Colours()
    gamma = int.from_bytes(facts[b"gAMA"], "big")
    return _of_gamma(gamma, facts.get(b"cHRM", b"")) if gamma else Colours()


def _of_code_points(code_points: bytes) -> Colours:
    if len(code_points) != 4:
        raise damaged("its cICP chunk is cut")
    primaries, transfer, matrix, full_range = code_points
    if primaries not in _CHROMATICITIES or transfer not in _TRANSFERS or matrix or full_range != 1:
        raise unsuited(f"its cICP chunk ({'/'.join(map(str, code_points))}) names colours that a WebP cannot carry")
    if (primaries, transfer) == (1, 13):
        return Colours()
    named = bytes((primaries, _TRANSFERS[transfer], 0, 1))
    return Colours(rgb_profile(_CHROMATICITIES[primaries], 2.2, named))


def _of_gamma(gamma: int, chromaticities: bytes) -> Colours:
    if not chromaticities:
        is_srgb = abs(gamma - _SRGB_GAMMA) <= _SAME_GAMMA
        return Colours() if is_srgb else Colours(table=_gamma_table(gamma))
    if len(chromaticities) != 32:
        raise damaged("its cHRM chunk is cut")
    given = struct.unpack(">8I", chromaticities)
    farthest = max(abs(a - b) for a, b in zip(given, _CHROMATICITIES[1], strict=True))
    if farthest <= _SAME_CHROMATICITY:
        return Colours(table=_gamma_table(gamma))
    if farthest > _FARTHEST_CHROMATICITY:
        raise unsuited("its cHRM chunk describes no colour space in use")
    try:
        return of_profile(rgb_profile([value / 100_000 for value in given], 100_000 / gamma), grey=False)
    except ValueError as error:
        raise unsuited("its gAMA and cHRM chunks describe no colour space") from error


def _stretches_darks(shown: Image.Image) -> bool:
    """Whether greys begin too bright, but are greys and end in white: else the profile is nonsense, and is kept."""
    dark, white = (shown.crop((level, 0, level + 1, 1)).tobytes() for level in (_DARK_LEVEL, 255))
    return min(dark) > _BRIGHTEST_DARK and max(dark) - min(dark) < _NO_GREY and min(white) > _DARKEST_WHITE


def _names_code_points(profile: bytes) -> bool:
    """Whether the tag table names a cicp tag, which overrides what LittleCMS reads (ICC.1:2022, 9.2.17)."""
    return b"cicp" in profile[132 : 132 + 12 * int.from_bytes(profile[128:132], "big")]


def cmyk_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A CMYK picture in sRGB, Chromium's way: through plain RGB, of which the profile gets the inks, black being 0.

    Raises:
        UnsuitedError: for a profile whose connection space is XYZ: browsers darken those by half.
    """
    plain = image.convert("RGB")
    if profile[16:20] != b"CMYK":
        return plain
    if profile[20:24] != b"Lab ":
        raise UnsuitedError("its CMYK profile is of a kind that browsers show wrongly; save it as sRGB to change that")
    inks = ImageChops.invert(plain).split()
    try:
        return _transform(profile, "CMYK").apply(Image.merge("CMYK", [*inks, Image.new("L", image.size)]))
    except (OSError, ImageCms.PyCMSError):
        return plain  # a broken profile: browsers pass over it too


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    return ImageCms.buildTransform(source, _SRGB_V2, mode, "RGB", ImageCms.Intent.PERCEPTUAL)


@lru_cache(maxsize=64)
def _shown_lattice(profile: bytes) -> Image.Image | None:
    """The lattice in sRGB, read as colours of this profile; None where the profile cannot be used."""
    try:
        return _transform(profile, "RGB").apply(_lattice())
    except (OSError, ImageCms.PyCMSError):
        return None


def _is_identity(shown: Image.Image) -> bool:
    channels = ImageChops.difference(_lattice(), shown).split()
    return not any(any(channel.histogram()[_NO_DIFFERENCE + 1 :]) for channel in channels)


@lru_cache(maxsize=1)
def _lattice() -> Image.Image:
    """All greys, in order, then colours from the whole cube."""
    steps = range(0, 256, 51)
    colours = [(level, level, level) for level in range(256)]
    colours += [(red, green, blue) for red in steps for green in steps for blue in steps]
    return Image.frombytes("RGB", (len(colours), 1), bytes(level for colour in colours for level in colour))


@lru_cache(maxsize=16)
def _grey_table(profile: bytes) -> tuple[int, ...] | None:
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    try:
        shown = _transform(profile, "L").apply(ramp)
    except (OSError, ImageCms.PyCMSError):
        return None
    return tuple(shown.getchannel("G").tobytes())


@lru_cache(maxsize=16)
def _gamma_table(gamma: int) -> tuple[int, ...]:
    """Levels in sRGB of levels whose light is ``level ** (100,000 / gamma)``."""
    return tuple(round(255 * _srgb_encode((level / 255) ** (100_000 / gamma))) for level in range(256))


def _srgb_encode(light: float) -> float:
    """IEC 61966-2-1."""
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
