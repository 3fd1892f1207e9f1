"""Links of proxied pages."""

from __future__ import annotations

import pytest

from shipwheel.apiserver.links import rewrite_page, through_proxy

PREFIX = "/api/v1/namespaces/n/pods/p/proxy"
HOSTS = frozenset(("10.0.0.1:80", "127.0.0.1:6443"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/next", f"{PREFIX}/next"),
        ("/", f"{PREFIX}/"),
        ("/a/?q=1#f", f"{PREFIX}/a/?q=1#f"),
        ("next", "next"),
        ("", ""),
        ("#top", "#top"),
        ("http://10.0.0.1:80/next", f"{PREFIX}/next"),
        ("http://example.com/next", "http://example.com/next"),
        (f"{PREFIX}/next", f"{PREFIX}/next"),
        ("http://[broken/next", "http://[broken/next"),
        ("mailto:a@example.com", "mailto:a@example.com"),
    ],
)
def test_a_link(url: str, expected: str) -> None:
    assert through_proxy(url, prefix=PREFIX, hosts=HOSTS) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="/next">go</a>', f'<a href="{PREFIX}/next">go</a>'),
        ("<A HREF='/next' class=x>", f"<A HREF='{PREFIX}/next' class=x>"),
        ("<img alt='a > b' src=/i.png>", f"<img alt='a > b' src={PREFIX}/i.png>"),
        ('<img src="/i.png"/>', f'<img src="{PREFIX}/i.png"/>'),
        ('<p title="/not/a/link">1 < 2 & /x</p>', '<p title="/not/a/link">1 < 2 & /x</p>'),
        ("<a href=>", "<a href=>"),
        ("é<a\nhref='/é'>", f"é<a\nhref='{PREFIX}/é'>"),
    ],
)
def test_a_page(page: str, expected: str) -> None:
    assert rewrite_page(page.encode(), prefix=PREFIX, hosts=HOSTS).decode() == expected
