"""Our pictures as what they draw: an image's SVG in the place of the image."""

from __future__ import annotations

import base64
import re

PICTURE = re.compile(r'<img class="parrot-picture"[^>]* src="data:image/svg\+xml;base64,([A-Za-z0-9+/=\n]+)">')


def drawn(html: str) -> str:
    """HTML with the SVG of each picture inline, less the colours that it brings along."""
    return PICTURE.sub(lambda found: re.sub(r"<style>.*?</style>", "", decoded(found[1]), count=1), html)


def pictures(html: str) -> list[str]:
    """The SVG of each picture, as a browser decodes it."""
    return [decoded(found) for found in PICTURE.findall(html)]


def decoded(data: str) -> str:
    return "".join(base64.b64decode(line, validate=True).decode() for line in data.split("\n"))
