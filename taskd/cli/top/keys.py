"""What a terminal sends, as the names of keys; sans-IO.

A key that is a character is named by it, the others are ``up``, ``down``, ``left``, ``right``, ``pgup``, ``pgdn``,
``home``, ``end``, ``enter``, ``esc``, ``backspace``; what is none of these is passed over. A sequence may be cut
anywhere. Its first byte is the key ``esc`` where nothing follows for a moment, and only who reads knows that.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

import attrs

SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~]|[^\[O\x1b])")
BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")

# The longest sequence that is waited for; what is longer is none.
LONGEST: Final = 32

LAST: Final = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
NUMBERED: Final = {"1": "home", "4": "end", "5": "pgup", "6": "pgdn", "7": "home", "8": "end"}
PLAIN: Final = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}


@attrs.define(eq=False)
class Keys:
    """The bytes of one terminal."""

    _decoder: codecs.IncrementalDecoder = attrs.field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("ignore")
    )
    _text: str = ""

    @property
    def begun(self) -> bool:
        """What has come may be the key ``esc``, or the start of more."""
        return bool(self._text)

    def receive(self, data: bytes) -> list[str]:
        """The keys that are complete now."""
        self._text += self._decoder.decode(data)
        return list(self._complete())

    def _complete(self) -> list[str]:
        found: list[str] = []
        while self._text:
            if self._text[0] != "\x1b":
                found += _plain(self._text[0])
                self._text = self._text[1:]
            elif match := SEQUENCE.match(self._text):
                self._text = self._text[match.end() :]
                found += _sequence(match[0])
            elif BEGUN.match(self._text) and len(self._text) < LONGEST:
                break
            else:
                found.append("esc")
                self._text = self._text[1:]
        return found

    def nothing_follows(self) -> list[str]:
        """The keys that are meant, when nothing has come for a moment."""
        begun, self._text = self._text, ""
        return ["esc"] if begun else []


def _plain(char: str) -> list[str]:
    name = PLAIN.get(char, char)
    return [name] if name.isprintable() or name == "\x0c" else []


def _sequence(text: str) -> list[str]:
    if text[1] not in "[O":
        return ["esc", *_plain(text[1])]
    name = LAST.get(text[-1]) if text[-1] != "~" else NUMBERED.get(text[2:-1].split(";", 1)[0])
    return [name] if name else []
