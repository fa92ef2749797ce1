"""Whom our clients trust over TLS: the authorities that the environment names, as OpenAI's clients do, or certifi's."""

from __future__ import annotations

import os
import ssl


def certificates() -> ssl.SSLContext:
    """Takes 10 ms. Raises OSError if SSL_CERT_FILE or SSL_CERT_DIR names nothing that can be read."""
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not directory:
        import certifi  # as httpx does

        file = certifi.where()
    return ssl.create_default_context(cafile=file or None, capath=directory or None)
