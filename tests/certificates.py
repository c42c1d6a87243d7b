"""Certificates for servers on 127.0.0.1."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that nobody else vouches for, and its key; needs openssl."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    ask = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    names = ["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*ask.split(), *names], check=True, capture_output=True, timeout=20)
    return certificate, key
