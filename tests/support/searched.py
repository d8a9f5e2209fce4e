"""Search what a stack leaves behind for texts that must not be there."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote


def forms(text: str) -> set[bytes]:
    """Return the forms in which a text can be in a file: plain, escaped, in a URL, in UTF-16, in base64 and in hex."""
    plain = text.encode()
    written = {text, json.dumps(text)[1:-1], json.dumps(json.dumps(text))[1:-1], quote(text), quote(text, safe="")}
    found = {form.encode() for form in written} | {text.encode("utf-16-le"), plain.hex().encode()}
    for before in range(3):
        # Of three bytes come four letters: those that hold bits of the neighbours are left out.
        letters = slice(-(-before * 8 // 6), (before + len(plain)) * 8 // 6)
        for encoded in (b64encode(bytes(before) + plain), urlsafe_b64encode(bytes(before) + plain)):
            found.add(encoded[letters])
    return found


def files_with(text: str, files: Iterable[Path]) -> set[str]:
    """Return the names of the files that hold a text in any of its forms."""
    sought = forms(text)
    return {file.name for file in files if any(form in content for content in [file.read_bytes()] for form in sought)}
