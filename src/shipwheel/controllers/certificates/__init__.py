"""CertificateSigningRequests: approve the kubelets' own, sign for the built-in signers, clean up.

`requests` reads and judges requests, `signing` makes certificates: pure but for randomness. `controllers` has the
three loops.
"""

from shipwheel.controllers.certificates.controllers import CsrApprover, CsrCleaner, CsrSigner

__all__ = ["CsrApprover", "CsrCleaner", "CsrSigner"]
