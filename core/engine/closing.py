"""A short way from where an answer stands to its end, so that it is complete before its tokens run out.

The library knows what may come next, not how far the end is. So a way is looked for: byte by byte, what closes first.
What is found is a way, if not always the shortest; where none is found, the answer may end with its tokens.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

#: Tokens to the end of an answer, that which ends it included.
Way = tuple[int, ...]

#: What comes first where JSON is open, outside its strings: each byte before those that make the way longer. A comma
#: ends a number, which would else go on for as long as there is room.
_ORDER = b'}]":,0123456789nft-[{'
#: More bytes than this are allowed within a string only.
_MOST_OUTSIDE = 32
_REST, _BACKSLASH, _FORBIDDEN = 100, 101, 255
#: Where the first byte could be another one: so many of them are tried.
_TRIES = 4


class Closer:
    """`tokenizer`: llguidance's."""

    def __init__(self, tokenizer: Any) -> None:
        tokens: dict[int, int] = {}  # by the byte that each is
        for token in range(tokenizer.vocab_size):
            if not tokenizer.is_special_token(token) and len(text := tokenizer.decode_bytes([token])) == 1:
                tokens.setdefault(text[0], token)
        self._tokens = np.array(list(tokens.values()), dtype=np.int64)
        self._bits = (1 << (self._tokens & 7)).astype(np.uint8)
        self._inside = _ranks(list(tokens), b'"')
        self._outside = _ranks(list(tokens), _ORDER)

    def way(self, matcher: Any, ends: frozenset[int], room: int, *, json: bool) -> Way | None:
        """A way of at most `room` tokens from the state of `matcher`, which is left as it is; None if none is found.

        It ends with one of `ends`, unless nothing could follow anyway or there are none. `json`: what is open
        is JSON.
        """
        for skip in range(_TRIES):
            found, alternatives = self._walk(matcher.deep_copy(), ends, room, skip, json)
            if found is not None:
                return found
            if skip + 1 >= alternatives:
                return None
        return None

    def _walk(self, matcher: Any, ends: frozenset[int], room: int, skip: int, json: bool) -> tuple[Way | None, int]:
        """`skip` of the possible bytes are left out at the first place where there are several; how many those are."""
        way: list[int] = []
        visits: Counter[bytes] = Counter()
        alternatives = 0
        while len(way) <= room:
            if matcher.is_accepting():
                if not matcher.is_stopped() and ends:
                    way.append(min(ends))
                return (tuple(way) if len(way) <= room else None), alternatives
            tokens = matcher.compute_ff_tokens()
            if not tokens:
                mask = matcher.compute_bitmask()
                ranks = self._allowed(mask, json)
                count = int((ranks < _FORBIDDEN).sum())
                if not count:
                    break
                if count > 1 and not alternatives:
                    alternatives = count
                    tokens = [int(self._tokens[ranks.argsort(kind="stable")[skip]])]
                else:
                    # Of bytes that rank the same, another one at each visit: a repetition that is open is left in the
                    # end.
                    best = self._tokens[ranks == ranks.min()].tolist()
                    last = (token for token in best if visits[mask] == 1 and _completes(matcher, token))
                    tokens = [next(last, best[visits[mask] % len(best)])]
                visits[mask] += 1
            if not matcher.consume_tokens(tokens):
                break
            way += tokens
        return None, alternatives

    def _allowed(self, mask: bytes, json: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The rank of each byte, the lowest to be taken first; _FORBIDDEN if it may not come."""
        allowed = (np.frombuffer(mask, dtype=np.uint8)[self._tokens >> 3] & self._bits) != 0
        if not json:
            return np.where(allowed, np.uint8(_REST), np.uint8(_FORBIDDEN))
        ranks = self._inside if allowed.sum() > _MOST_OUTSIDE else self._outside
        return np.where(allowed, ranks, np.uint8(_FORBIDDEN))


def _completes(matcher: Any, token: int) -> bool:
    after = matcher.deep_copy()
    return bool(after.consume_token(token) and after.is_accepting())


def _ranks(known: list[int], order: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    ranks = [_BACKSLASH if byte == ord("\\") else order.find(byte) for byte in known]
    return np.array([_REST if rank < 0 else rank for rank in ranks], dtype=np.uint8)
