"""Settings of the inference port, read by gateways."""

from __future__ import annotations

import msgspec

from headrace.core.keys import Signatures


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    """Address of the inference port."""
    port: int = 8000
    """Inference port: REST and gRPC. 0 takes a free one."""
    gateways: int = 1
    """Gateway processes."""
    tls_cert: str | None = None
    """PEM file with the certificate chain; turns TLS on together with `tls_key`."""
    tls_key: str | None = None
    """PEM file with the private key."""
    max_body_bytes: int = 64 << 20
    """Largest request body, after decompression too."""
    max_bodies_bytes: int = 1 << 30
    """All bodies that one gateway may be reading or holding at once."""
    body_idle_s: float = 30.0
    """A client that sends nothing of an announced body for this long is dropped."""
    drain_s: float = 30.0
    """On SIGTERM: seconds to finish accepted requests."""
    drain_delay_s: float = 0.0
    """On SIGTERM: seconds to report not-ready while still accepting, for load balancers to notice."""
    access_log: bool = False
    """Log one line per request."""
    offload_bytes: int = 256 << 10
    """JSON bodies larger than this are decoded outside the event loop."""
    no_auth: bool = False
    """Ask for no keys at all, also on a host that is not loopback."""
    sigv4: Signatures = Signatures.REFUSE
    """What to do with requests that AWS clients have signed."""
