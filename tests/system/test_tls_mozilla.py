"""sslyze's judgement: what is served complies with Mozilla's intermediate profile."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from harness import Gateway
from tls_tools import listen

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
NOW = datetime.datetime.now(datetime.timezone.utc)


def _certificate(
    name: str, key: Key, issuer: x509.Certificate | None, issuer_key: Key, days: int
) -> x509.Certificate:
    """Return a certificate as the CA/Browser Forum wants it (trustme's are not quite)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ca = issuer is None
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if not ca:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(server, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _write(folder: Path, name: str, certificate: x509.Certificate, key: Key) -> dict[str, str]:
    path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {"certificate_file": str(path), "key_file": str(key_path)}


@pytest.mark.parametrize("kind", ["rsa", "both"])
def test_mozilla_intermediate(
    gateway_factory: Callable[..., Gateway], tmp_path: Path, kind: str
) -> None:
    """Versions, ciphers, curves, resumption, renegotiation: compliant, with either kind of key."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("tailrace test authority", ca_key, None, ca_key, 300)
    ca_file = _write(tmp_path, "ca", ca, ca_key)["certificate_file"]
    keys: dict[str, Key] = {}
    if kind != "rsa":
        keys["ecdsa"] = ec.generate_private_key(ec.SECP256R1())
    if kind != "ecdsa":
        keys["rsa"] = rsa.generate_private_key(65537, 2048)
    certificates = [
        _write(tmp_path, name, _certificate("localhost", key, ca, ca_key, 90), key)
        for name, key in keys.items()
    ]
    gateway = gateway_factory(["127.0.0.1:9"], listener=listen(*certificates))
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "sslyze", "--mozilla_config=intermediate"),
            *("--certinfo_ca_file", ca_file, f"localhost:{gateway.port}"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "OK - Compliant" in done.stdout, done.stdout[-3000:] + done.stderr
    assert "OK - Not vulnerable to Heartbleed" in done.stdout
    assert "Client Renegotiation DoS Attack:   OK - Not vulnerable" in done.stdout
    assert done.returncode == 0
