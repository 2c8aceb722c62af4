"""The system's store on Linux: each layout, with the refresh tool played by a function that does what the real one does."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from soth_mitm.errors import CaOperationError, CaPermissionError, CaUnsupportedError
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ca_formats import to_pem
from soth_mitm.tls.trust import linux
from soth_mitm.tls.trust.command import Output
from soth_mitm.tls.trust.linux import LAYOUTS, Layout, LinuxStore, find_layout
from support.recorded import RecordedTool

OTHER = generate_ca("Somebody else's").certificate
DEBIAN = LAYOUTS[-1]


class System:
    """A root directory with one layout, and its refresh tool: it joins the system's own certificate and the additional ones."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self.anchors, self.bundle = root / layout.anchors, root / layout.bundle
        self.anchors.mkdir(parents=True)
        self.bundle.parent.mkdir(parents=True, exist_ok=True)
        self.tool = RecordedTool([(layout.refresh, self.refresh)])
        self.refresh(layout.refresh, "")
        self.store = LinuxStore(self.tool, root)

    def refresh(self, argv: tuple[str, ...], stdin: str) -> Output:
        files = sorted(path for path in self.anchors.iterdir() if path.suffix == self.layout.suffix)
        self.bundle.write_bytes(to_pem([OTHER]) + b"".join(path.read_bytes() for path in files))
        return Output(0, f"{len(files)} added, 0 removed; done.\n")

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.anchors.iterdir())


@pytest.fixture
def anchor() -> x509.Certificate:
    return generate_ca().certificate


@pytest.fixture(params=LAYOUTS, ids=[layout.family for layout in LAYOUTS])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    return System(tmp_path, request.param)


@pytest.fixture
def debian(tmp_path: Path) -> System:
    return System(tmp_path, DEBIAN)


def test_install_and_uninstall_are_idempotent(system: System, anchor: x509.Certificate) -> None:
    assert system.layout.family in system.store.name
    assert not system.store.is_trusted(anchor)
    assert [system.store.install(anchor), system.store.install(anchor)] == [True, False]
    assert system.store.is_trusted(anchor)
    assert system.files == [f"soth-mitm-local-ca{system.layout.suffix}"]
    assert [system.store.uninstall(anchor), system.store.uninstall(anchor)] == [True, False]
    assert not system.store.is_trusted(anchor)
    assert system.store.is_trusted(OTHER)
    assert system.files == []
    assert system.tool.calls == [system.layout.refresh] * 2


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_everybody_may_read_it(system: System, anchor: x509.Certificate) -> None:
    system.store.install(anchor)
    assert stat.S_IMODE((system.anchors / system.files[0]).stat().st_mode) == 0o644


def test_a_newer_ca_takes_the_place_of_the_older(system: System, anchor: x509.Certificate) -> None:
    newer = generate_ca().certificate
    system.store.install(anchor)
    assert system.store.install(newer)
    assert (system.store.is_trusted(anchor), system.store.is_trusted(newer)) == (False, True)
    assert len(system.files) == 1
    # the older is not ours to uninstall any more, and its uninstallation leaves the newer alone
    assert not system.store.uninstall(anchor)
    assert system.store.is_trusted(newer)


def test_an_installation_that_was_never_refreshed_is_repaired(system: System, anchor: x509.Certificate) -> None:
    (system.anchors / f"soth-mitm-local-ca{system.layout.suffix}").write_bytes(to_pem([anchor]))
    assert not system.store.is_trusted(anchor)
    assert system.store.install(anchor)
    assert system.store.is_trusted(anchor)


def test_trust_that_somebody_else_gave_is_not_taken(system: System, anchor: x509.Certificate) -> None:
    (system.anchors / f"by-hand{system.layout.suffix}").write_bytes(to_pem([anchor]))
    system.refresh((), "")
    assert system.store.is_trusted(anchor)
    for installed in (False, True):
        assert not installed or system.store.install(anchor)
        with pytest.raises(CaOperationError, match="a file other than .* has it too"):
            system.store.uninstall(anchor)
        assert system.store.is_trusted(anchor)


def test_an_uninstallation_that_broke_off_is_completed(debian: System, anchor: x509.Certificate) -> None:
    debian.store.install(anchor)
    broken = LinuxStore(RecordedTool([(DEBIAN.refresh, Output(1, stderr="no space left"))]), debian.root)
    with pytest.raises(CaOperationError, match="no space left"):
        broken.uninstall(anchor)
    assert debian.store.is_trusted(anchor)
    assert debian.store.uninstall(anchor)
    assert not debian.store.is_trusted(anchor)


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        (Output(1, stderr="ln: failed to create symbolic link: Permission denied"), CaPermissionError, "run: sudo install"),
        (Output(1, stderr="awk: not found"), CaOperationError, "awk: not found"),
        (Output(0), CaOperationError, "ended well, but the certificate is not in"),
    ],
)
@pytest.mark.parametrize("installed_before", [False, True])
def test_a_refresh_that_fails_leaves_things_as_they_were(
    debian: System, anchor: x509.Certificate, output: Output, kind: type[Exception], words: str, installed_before: bool
) -> None:
    if installed_before:
        debian.store.install(OTHER)
    before = {path: path.read_bytes() for path in debian.anchors.iterdir()}
    store = LinuxStore(RecordedTool([(DEBIAN.refresh, output)]), debian.root, source=Path("/my/ca.pem"))
    with pytest.raises(kind, match=words):
        store.install(anchor)
    assert {path: path.read_bytes() for path in debian.anchors.iterdir()} == before


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("source", [None, Path("/my ca/ca.pem")])
def test_without_the_right_the_commands_are_said(
    debian: System, anchor: x509.Certificate, monkeypatch: pytest.MonkeyPatch, source: Path | None
) -> None:
    store = LinuxStore(debian.tool, debian.root, source=source)
    file = debian.anchors / "soth-mitm-local-ca.crt"
    monkeypatch.setattr(linux, "write_atomically", refuse)
    with pytest.raises(CaPermissionError) as caught:
        store.install(anchor)
    command = str(caught.value).partition("run: ")[2]
    take = f"soth-mitm ca export - | sudo tee {file} >/dev/null" if source is None else f"sudo install -m 644 '/my ca/ca.pem' {file}"
    assert command == f"{take} && sudo update-ca-certificates --fresh"
    monkeypatch.undo()
    store.install(anchor)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CaPermissionError) as caught:
        store.uninstall(anchor)
    assert str(caught.value).endswith(f"run: sudo rm -f {file} && sudo update-ca-certificates --fresh")
    assert store.is_trusted(anchor)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_without_the_right_for_real(debian: System, anchor: x509.Certificate) -> None:
    debian.anchors.chmod(0o555)
    with pytest.raises(CaPermissionError, match="only an administrator"):
        debian.store.install(anchor)


@pytest.mark.parametrize("act", [LinuxStore.is_trusted, LinuxStore.install])
def test_files_that_may_not_be_read(
    debian: System, anchor: x509.Certificate, monkeypatch: pytest.MonkeyPatch, act: Callable[[LinuxStore, x509.Certificate], bool]
) -> None:
    debian.store.install(anchor)
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CaPermissionError, match="cannot be read"):
        act(debian.store, anchor)


def test_java_on_debian_is_told_of_the_removal(debian: System, anchor: x509.Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = debian.root / "etc/ca-certificates/update.d/jks-keystore"
    hook.parent.mkdir(parents=True)
    hook.write_text("")
    hook.chmod(0o755)
    told: list[str] = []

    def listen(argv: tuple[str, ...], stdin: str) -> Output:
        told.append(stdin)
        return Output(0)

    store = LinuxStore(RecordedTool([((str(hook),), listen), (DEBIAN.refresh, debian.refresh)]), debian.root)
    store.install(anchor)
    assert told == []
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CaPermissionError) as caught:
        store.uninstall(anchor)
    assert str(caught.value).endswith(f" && echo -{debian.root}/etc/ssl/certs/soth-mitm-local-ca.pem | sudo {hook}")
    monkeypatch.undo()
    store.uninstall(anchor)
    assert told == [f"-{debian.root}/etc/ssl/certs/soth-mitm-local-ca.pem\n"]


def test_a_system_without_a_known_layout(tmp_path: Path) -> None:
    with pytest.raises(CaUnsupportedError, match="soth-mitm ca env"):
        LinuxStore(RecordedTool(), tmp_path)


def test_opensuse_is_not_taken_for_debian(tmp_path: Path) -> None:
    # it has Debian's directory too, and a tool of the same name
    for layout in LAYOUTS:
        if layout.family in ("openSUSE", DEBIAN.family):
            (tmp_path / layout.anchors).mkdir(parents=True)
    assert find_layout(tmp_path).family == "openSUSE"
