"""Other people's verifiers, at their strictest, on what we sign."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from soth_mitm.tls.ca import generate_ca, load_ca
from soth_mitm.tls.leaf import LeafStore
from support.certs import TestCA
from support.handshakes import connect

NAMES = ["a.example", "127.0.0.1", "::1", ".".join(["a" * 61, "b" * 63, "c" * 63, "d" * 63])]


def own_ca():
    return generate_ca()


def rsa_ca():
    root = TestCA(key=rsa.generate_private_key(65537, 2048))
    return load_ca(root.cert_pem, root.key_pem)


@pytest.fixture(params=[own_ca, rsa_ca], ids=["own", "rsa"], scope="module")
def ca(request):
    return request.param()


def python_of(minor):
    """Find Python 3.`minor`."""
    own = [sys.executable] if sys.version_info[1] == minor else []
    known = sorted(map(str, Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python3")))
    # last, because pyenv's shims are found too, but run only what was made the default
    return next((path for path in [*own, *known, shutil.which(f"python3.{minor}")] if path), None)


CLIENT = """
import ssl, sys
root, name = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
assert context.verify_flags & ssl.VERIFY_X509_STRICT or sys.version_info < (3, 13), "this Python is not strict by itself"
context.verify_flags |= ssl.VERIFY_X509_STRICT
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
while True:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        sys.stdout.buffer.write(outgoing.read()); sys.stdout.buffer.flush()
        data = sys.stdin.buffer.raw.read(65536)
        if not data: sys.exit("no answer")
        incoming.write(data)
    else:
        break
sys.stdout.buffer.write(outgoing.read()); sys.stdout.buffer.flush()
"""


@pytest.fixture(params=[11, 12, 13, 14], ids="3.{}".format, scope="module")
def strict_python(request):
    python = python_of(request.param)
    if python is None:
        pytest.skip(f"no Python 3.{request.param} on PATH or under ~/.pyenv")
    return python


@pytest.mark.parametrize("name", NAMES)
def test_python_with_the_strict_flag_shakes_hands(ca, strict_python, tmp_path, name):
    root = tmp_path / "root.pem"
    root.write_bytes(ca.cert_pem)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = LeafStore(ca).context_for(name, alpn=()).wrap_bio(incoming, outgoing, server_side=True)
    child = subprocess.Popen(
        [strict_python, "-c", CLIENT, str(root), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        while True:
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                pytest.fail(child.stderr.read().decode())
            incoming.write(data)
            try:
                server.do_handshake()
            except ssl.SSLWantReadError:
                child.stdin.write(outgoing.read())
                child.stdin.flush()
            else:
                break
    assert child.returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_openssl_verifies_strictly(ca, tmp_path, name):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program on PATH")
    (tmp_path / "root.pem").write_bytes(ca.cert_pem)
    leaf = LeafStore(ca).mint(name, mirror=["*.b.example", "10.0.0.1"])
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    check = ["-verify_ip", name] if ":" in name or name[0].isdigit() else ["-verify_hostname", name]
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-auth_level", "2", "-CAfile", "root.pem", *check, "leaf.pem"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_our_own_python_verifies_strictly(ca):
    client = ssl.create_default_context(cadata=ca.cert_pem.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    connect(client, LeafStore(ca).context_for("a.example", alpn=()), "a.example")
