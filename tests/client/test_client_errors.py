"""Errors whose answer was no Status: what client-go would say of them."""

from __future__ import annotations

import pytest

from shipwheel.client.client import _error_of


@pytest.mark.parametrize(
    ("status", "method", "path", "body", "reason", "message"),
    [
        (404, "GET", "/apis/metrics.k8s.io/v1beta1/namespaces/d/pods", b"404 page not found", "NotFound",
         "the server could not find the requested resource (get pods.metrics.k8s.io)"),
        (404, "GET", "/api/v1/namespaces/d/pods/p/log", b"", "NotFound",
         "the server could not find the requested resource (get pods p)"),
        (404, "GET", "/api/v1/namespaces/d", b"", "NotFound",
         "the server could not find the requested resource (get namespaces d)"),
        (404, "GET", "/healthz/nothing", b"", "NotFound", "the server could not find the requested resource"),
        (500, "PUT", "/apis/apps/v1/namespaces/d/deployments/w/scale", b"oops", "InternalError",
         'an error on the server ("oops") has prevented the request from succeeding (put deployments.apps w)'),
        (418, "GET", "/api/v1/nodes", b"", "",
         "the server responded with the status code 418 but did not return more information (get nodes)"),
        (403, "GET", "/api/v1/nodes", b"no", "Forbidden", "no (get nodes)"),
    ],
)  # fmt: skip
def test_messages(status, method, path, body, reason, message):
    error = _error_of(status, [], body, method, path)
    assert (error.code, error.reason, error.message) == (status, reason, message)
