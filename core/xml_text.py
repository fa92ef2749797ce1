"""The text between two XML tags, as a parser reads it."""

from __future__ import annotations

from xml.parsers import expat

from semantic_parrot.core.errors import NoMatch
from semantic_parrot.core.value import shown


def xml_text(text: str) -> str:
    """`text` as it is read inside an element: character references resolved, line ends folded to ``\\n``. Raises
    NoMatch where there is a tag, or what no XML document may contain. No document type can stand there, so the only
    entities are XML's own."""
    found: list[str] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.CharacterDataHandler = found.append
    try:
        parser.Parse("<t>", False)
        parser.StartElementHandler = _refuse_tag
        parser.Parse(text, False)
        parser.Parse("</t>", True)
    except (expat.ExpatError, UnicodeEncodeError, _Markup) as error:
        raise NoMatch(f"not the text of an XML element ({str(error) or 'a tag'}): {shown(text)}") from None
    return "".join(found)


class _Markup(Exception):
    pass


def _refuse_tag(name: str, attributes: object) -> None:
    raise _Markup(f"the tag {name[:40]!r}")
