"""How single tokens are spelled: in bytes, as one token may be a part of a character."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """Of a `transformers` tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._spelled: dict[int, tuple[str, tuple[int, ...]]] = {}
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        # Byte-level tokens are spelled in an alphabet of printable characters, in which "\u0120" is a space.
        self._byte_level = decoder is not None and decoder.decode(["\u0120a"]) == " a"

    def spell(self, token: int) -> tuple[str, tuple[int, ...]]:
        """Text and bytes of a token; nothing for an id that only pads the model's table."""
        found = self._spelled.get(token)
        if found is None:
            raw = self._bytes(token)
            found = self._spelled[token] = (raw.decode("utf-8", "replace"), tuple(raw))
        return found

    def _bytes(self, token: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        if token in self._special or token in self._added:
            return str(piece).encode()
        if self._byte_level:
            table = _bytes_of_characters()
            return b"".join(table.get(character) or character.encode() for character in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return str(piece.replace("\u2581", " ")).encode()


@cache
def _bytes_of_characters() -> dict[str, bytes]:
    """GPT-2's byte-level alphabet: a printable byte stands for itself, the others come after 255, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = (byte for byte in range(256) if byte not in printable)
    table = {chr(byte): bytes([byte]) for byte in printable}
    return table | {chr(256 + n): bytes([byte]) for n, byte in enumerate(rest)}
