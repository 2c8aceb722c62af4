"""The system's store on Linux for real: Debian's own tool on a directory of ours, and a whole installation in a mount namespace.

In a namespace of its own a process sees copies of the directories that are changed, mounted over the real ones. Nothing of it is visible
outside, and nothing of it is left when the process ends, whatever happens in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.trust.command import Output, run_command
from soth_mitm.tls.trust.linux import LinuxStore
from support.certs import TestCA

TOOL = shutil.which("update-ca-certificates", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
LOCAL = Path("/usr/local/share/ca-certificates")
pytestmark = pytest.mark.skipif(
    TOOL is None or b"--etccertsdir" not in Path(TOOL).read_bytes(), reason="no update-ca-certificates of Debian's kind"
)


def test_debians_tool_on_directories_of_ours(tmp_path: Path) -> None:
    certificates = tmp_path / "etc/ssl/certs"
    for directory in (certificates, tmp_path / "usr/local/share/ca-certificates", tmp_path / "usr/share/ca-certificates"):
        directory.mkdir(parents=True)
    own = TestCA("The System's")
    # two: the tool's `openssl rehash` takes a bundle with a single certificate for one more certificate
    for name, authority in (("own", own), ("further", TestCA("A further one"))):
        (tmp_path / f"usr/share/ca-certificates/{name}.crt").write_bytes(authority.cert_pem)
    (tmp_path / "etc/ca-certificates.conf").write_text("own.crt\nfurther.crt\n")
    options = {"certsconf": "etc/ca-certificates.conf", "certsdir": "usr/share/ca-certificates", "hooksdir": "none"}
    options |= {"localcertsdir": "usr/local/share/ca-certificates", "etccertsdir": "etc/ssl/certs"}

    def run(argv: tuple[str, ...], stdin: str = "") -> Output:
        return run_command((*argv, *(word for name, path in options.items() for word in (f"--{name}", str(tmp_path / path)))), stdin)

    store = LinuxStore(run, tmp_path)  # type: ignore[arg-type]
    first, second = generate_ca().certificate, generate_ca().certificate
    run(("update-ca-certificates", "--fresh"))
    links = sorted(path.name for path in certificates.iterdir())
    assert [store.install(first), store.install(first)] == [True, False]
    assert [store.install(second), store.is_trusted(first), store.is_trusted(second)] == [True, False, True]
    assert store.is_trusted(own.certificate)
    # the directory that OpenSSL looks into by hash has the second one
    done = subprocess.run(
        ("openssl", "verify", "-no-CAfile", "-CApath", certificates, tmp_path / "usr/local/share/ca-certificates/soth-mitm-local-ca.crt"),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [store.uninstall(second), store.uninstall(second)] == [True, False]
    assert not store.is_trusted(second)
    assert store.is_trusted(own.certificate)
    assert sorted(path.name for path in certificates.iterdir()) == links


IN_NAMESPACE = """
set -e
scratch=$1; shift
for directory in /etc/ssl /etc/ca-certificates /usr/local/share/ca-certificates /var/lib/ca-certificates-java /var/lib/dpkg; do
    [ -d "$directory" ] || continue
    copy=$scratch$directory
    mkdir -p "$copy"
    cp -a "$directory/." "$copy/"
    mount --bind "$copy" "$directory"
done
exec "$@"
"""

SCRIPT = """
import json, os, shutil, ssl, subprocess, sys
from pathlib import Path
from soth_mitm import ca_trust_status, install_ca_system_trust, is_ca_trusted, load_ca_from_files, uninstall_ca_system_trust
from soth_mitm.tls.ca_files import load_or_create_ca
from soth_mitm.tls.leaf import LeafStore

ca, _ = load_or_create_ca(sys.argv[1], sys.argv[2])
leaf = Path(sys.argv[1]).with_name("leaf.pem")
leaf.write_bytes(LeafStore(ca).mint("a.example").public_bytes(__import__("cryptography").hazmat.primitives.serialization.Encoding.PEM))

def ends_well(*command):
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0

def facts():
    java = "/etc/ssl/certs/java/cacerts"
    keystore = shutil.which("keytool") and os.path.exists(java)
    return {
        "trusted": is_ca_trusted(ca),
        "openssl file": ends_well("openssl", "verify", "-CAfile", "/etc/ssl/certs/ca-certificates.crt", str(leaf)),
        "openssl directory": ends_well("openssl", "verify", "-no-CAfile", "-CApath", "/etc/ssl/certs", str(leaf)),
        "java": ends_well("keytool", "-list", "-keystore", java, "-storepass", "changeit", "-alias", "debian:soth-mitm-local-ca.pem")
        if keystore else None,
    }

before = facts()
installed = [install_ca_system_trust(ca, browsers=False)[0].changed for _ in range(2)]
during = facts()
status = [report.trusted for report in ca_trust_status(ca) if report.store.startswith("system")]
uninstalled = [uninstall_ca_system_trust(ca, browsers=False)[0].changed for _ in range(2)]
print(json.dumps([before, during, facts(), installed, uninstalled, status]))
"""


def digest(*directories: Path) -> str:
    """Return a digest of all files below directories, names and content."""
    sums = hashlib.sha256()
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            sums.update(str(path).encode())
            sums.update(path.read_bytes() if path.is_file() else b"")
    return sums.hexdigest()


@pytest.fixture
def untouched() -> Iterator[None]:
    """See to it that the machine's own trust store is afterwards what it was."""
    directories = (Path("/etc/ssl"), LOCAL)
    before = digest(*directories)
    yield
    assert digest(*directories) == before


@pytest.mark.skipif(not LOCAL.is_dir(), reason="the system has no directory for additional certificates")
def test_a_whole_installation(tmp_path: Path, untouched: None) -> None:
    inside = ("unshare", "--mount", "--propagation", "private")
    if shutil.which("unshare") is None or subprocess.run((*inside, "true"), capture_output=True, check=False).returncode != 0:
        pytest.skip("mount namespaces need root")
    done = subprocess.run(
        (*inside, "sh", "-c", IN_NAMESPACE, "sh", tmp_path, sys.executable, "-c", SCRIPT, tmp_path / "ca.pem", tmp_path / "ca-key.pem"),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    before, during, after, installed, uninstalled, status = json.loads(done.stdout.splitlines()[-1])
    java = during["java"]
    assert set(before.values()) <= {False, None}
    assert {name: value for name, value in during.items() if name != "java"} == dict.fromkeys(
        ("trusted", "openssl file", "openssl directory"), True
    )
    assert java in (True, None)
    assert after == before
    assert (installed, uninstalled, status) == ([True, False], [True, False], [True])
