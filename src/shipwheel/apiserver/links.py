"""The links of what is proxied: those that lead to the root of the other side must lead through the proxy.

A page that a pod serves at `/` is seen at `.../pods/p/proxy/`. Its link to `/next` would leave the pod, so it is
turned into one to `.../pods/p/proxy/next`; the same with redirections. Relative links, and those to other hosts, are
right as they are.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

_LINKS = {
    "a": {"href"},
    "applet": {"codebase"},
    "area": {"href"},
    "audio": {"src"},
    "base": {"href"},
    "blockquote": {"cite"},
    "body": {"background"},
    "button": {"formaction"},
    "command": {"icon"},
    "del": {"cite"},
    "embed": {"src"},
    "form": {"action"},
    "frame": {"longdesc", "src"},
    "head": {"profile"},
    "html": {"manifest"},
    "iframe": {"longdesc", "src"},
    "img": {"longdesc", "src", "usemap"},
    "input": {"src", "usemap", "formaction"},
    "ins": {"cite"},
    "link": {"href"},
    "object": {"classid", "codebase", "data", "usemap"},
    "q": {"cite"},
    "script": {"src"},
    "source": {"src"},
    "video": {"poster", "src"},
}
"""HTML's attributes that hold URLs, by element."""

_START_TAG = re.compile(rb"""<([a-zA-Z][a-zA-Z0-9]*)(\s(?:[^<>"']|"[^"]*"|'[^']*')*)>""")
_ATTRIBUTE = re.compile(rb"""([^\s=/"'>]+)(\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)""")


def through_proxy(url: str, *, prefix: str, hosts: frozenset[str]) -> str:
    """The URL as seen through a proxy at the path `prefix`. `hosts` are the names of the other side."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    elsewhere = bool(parts.netloc) and parts.netloc not in hosts
    if elsewhere or not parts.path.startswith("/"):
        return url
    path = parts.path if parts.path.startswith(prefix) else prefix + parts.path
    return urlunsplit(SplitResult("", "", path, parts.query, parts.fragment))


def rewrite_page(page: bytes, *, prefix: str, hosts: frozenset[str]) -> bytes:
    """An HTML page, its links led through the proxy; all else stays byte for byte."""

    def tag(found: re.Match[bytes]) -> bytes:
        names = _LINKS.get(found[1].decode().lower())
        if names is None:
            return found[0]

        def attribute(each: re.Match[bytes]) -> bytes:
            if each[1].decode("latin-1").lower() not in names:
                return each[0]
            quote = each[3][:1] if each[3][:1] in (b'"', b"'") else b""
            url = each[3].strip(quote).decode("latin-1") if quote else each[3].decode("latin-1")
            seen = through_proxy(url, prefix=prefix, hosts=hosts).encode("latin-1")
            return each[1] + each[2] + quote + seen + quote

        return b"<" + found[1] + _ATTRIBUTE.sub(attribute, found[2]) + b">"

    return _START_TAG.sub(tag, page)
