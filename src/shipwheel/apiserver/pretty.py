"""JSON for people: indented for those who ask for it, and for browsers and command-line tools that do not say."""

from __future__ import annotations

import orjson

from shipwheel.client.httpserver import Request, Response

_PEOPLE = ("curl", "Wget", "Mozilla/5.0")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def wants_pretty(request: Request) -> bool:
    """What `pretty` says, or else what the user agent lets suppose."""
    if "pretty" in request.raw_query and (given := request.parameter("pretty")):
        return given in _TRUE
    return request.header("user-agent").startswith(_PEOPLE)


def prettify(answer: Response) -> None:
    """Indent a JSON body as Go does, unless it is compressed already."""
    if answer.body and not any(name == "Content-Encoding" for name, _ in answer.headers or ()):
        answer.body = orjson.dumps(orjson.loads(answer.body), option=orjson.OPT_INDENT_2)
