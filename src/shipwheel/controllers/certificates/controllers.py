"""The loops that approve, sign and clean up CertificateSigningRequests."""

from __future__ import annotations

import base64
import logging
from datetime import timedelta

from shipwheel.api.clock import rfc3339
from shipwheel.api.errors import ApiError
from shipwheel.api.meta import Obj, name_of, uid_of
from shipwheel.client.client import ConnectionFailed
from shipwheel.client.resources import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS
from shipwheel.controllers.certificates import requests
from shipwheel.controllers.certificates.signing import Authority, CannotSign, expiry_of
from shipwheel.controllers.framework import Context, Retry

log = logging.getLogger(__name__)

_CLEAN_PERIOD = 3600.0


class CsrApprover:
    """Approves kubelets' client certificates for whoever may have them (RBAC decides)."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._csrs = ctx.informer(CERTIFICATE_SIGNING_REQUESTS)
        self._loop = ctx.loop("certificate_csrapproving", self.reconcile, workers=5, informers=(self._csrs,))
        self._csrs.add_handler(self._loop.on_event)

    async def run(self) -> None:
        await self._loop.run()

    async def reconcile(self, key: str) -> float | None:
        csr = self._csrs.get("", key)
        if csr is None or requests.is_issued(csr) or requests.is_decided(csr):
            return None
        try:
            asked = requests.parse(csr)
        except ValueError as error:
            log.warning('unable to parse csr "%s": %s', key, error)
            return None
        candidates = requests.recognized(csr, asked)
        for candidate in candidates:
            if await self._is_allowed(csr, candidate.subresource):
                await self._approve(csr, candidate.message)
                return None
        if candidates:
            tried = " ".join(each.subresource for each in candidates)
            message = f'recognized csr "{key}" as [{tried}] but subject access review was not approved'
            raise Retry(message)
        return None

    async def _is_allowed(self, csr: Obj, subresource: str) -> bool:
        spec = csr["spec"]
        asked = {
            "user": spec.get("username", ""),
            "uid": spec.get("uid", ""),
            "groups": spec.get("groups") or [],
            "extra": spec.get("extra") or {},
            "resourceAttributes": {
                "group": "certificates.k8s.io",
                "resource": "certificatesigningrequests",
                "verb": "create",
                "subresource": subresource,
                "version": "*",
            },
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": asked}
        answer = await self._ctx.client.create(SUBJECT_ACCESS_REVIEWS, review)
        return bool((answer.get("status") or {}).get("allowed"))

    async def _approve(self, csr: Obj, message: str) -> None:
        status = csr.get("status") or {}
        approved = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message}
        conditions = [*(status.get("conditions") or ()), approved]
        await self._ctx.client.update(
            CERTIFICATE_SIGNING_REQUESTS,
            {**csr, "status": {**status, "conditions": conditions}},
            subresource="approval",
        )


class CsrSigner:
    """Signs approved requests for the built-in signers that have a CA."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        pairs = ctx.config.cluster_signing_certificates
        # A signer with a CA of its own does not fall back to the common one, and if any has one nobody does.
        own = any(name for name in pairs)
        self._authorities = {
            name: Authority(*pair) for name in requests.SIGNERS if (pair := pairs.get(name if own else ""))
        }
        self._longest = timedelta(seconds=ctx.config.cluster_signing_duration)
        self._csrs = ctx.informer(CERTIFICATE_SIGNING_REQUESTS)
        self._loop = ctx.loop("certificate_csrsigning", self.reconcile, workers=5, informers=(self._csrs,))
        self._csrs.add_handler(self._loop.on_event)

    async def run(self) -> None:
        await self._loop.run()

    async def reconcile(self, key: str) -> float | None:
        csr = self._csrs.get("", key)
        if csr is None or not requests.is_to_be_signed(csr):
            return None
        signer = csr["spec"].get("signerName", "")
        authority = self._authorities.get(signer)
        if authority is None:
            return None
        try:
            problem = requests.complaint(signer, requests.parse(csr), csr["spec"].get("usages") or ())
            if problem:
                await self._fail(csr, problem)
                return None
            certificate = authority.sign(csr, self._longest, self._ctx.clock.now())
        except (CannotSign, ValueError) as error:
            raise Retry(f"error auto signing csr: {error}") from error
        status = {**(csr.get("status") or {}), "certificate": base64.b64encode(certificate.encode()).decode()}
        await self._write(csr, status)
        return None

    async def _fail(self, csr: Obj, problem: str) -> None:
        status = csr.get("status") or {}
        failed = {
            "type": "Failed",
            "status": "True",
            "reason": "SignerValidationFailure",
            "message": problem,
            "lastUpdateTime": rfc3339(self._ctx.clock.now()),
        }
        await self._write(csr, {**status, "conditions": [*(status.get("conditions") or ()), failed]})

    async def _write(self, csr: Obj, status: Obj) -> None:
        await self._ctx.client.update(CERTIFICATE_SIGNING_REQUESTS, {**csr, "status": status}, subresource="status")


class CsrCleaner:
    """Deletes requests that are over, once an hour."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._csrs = ctx.informer(CERTIFICATE_SIGNING_REQUESTS)

    async def run(self) -> None:
        await self._csrs.wait_synced()
        while True:
            await self.clean()
            await self._ctx.clock.sleep(_CLEAN_PERIOD)

    async def clean(self) -> None:
        now = self._ctx.clock.now()
        for csr in self._csrs.list():
            if not requests.is_spent(csr, now, expiry_of(csr)):
                continue
            try:
                await self._ctx.client.delete(CERTIFICATE_SIGNING_REQUESTS, name_of(csr), uid=uid_of(csr))
            except (ApiError, ConnectionFailed) as error:
                log.warning('unable to delete CSR "%s": %s', name_of(csr), error)
