"""Replacing the CA: what is kept, for how long, and what readers see meanwhile."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soth_mitm.errors import CaMaterialError, CaOperationError, CaPermissionError
from soth_mitm.tls import ca_files, ca_rotation, safe_files
from soth_mitm.tls.ca import CertificateAuthority, generate_ca
from soth_mitm.tls.ca_files import load_ca_from_files, load_or_create_ca
from soth_mitm.tls.ca_rotation import end_overlap, previous_anchors, previous_path, replace_ca
from soth_mitm.tls.safe_files import locked

Paths = tuple[Path, Path]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return tmp_path / "state" / "ca.pem", tmp_path / "state" / "ca-key.pem"


def previous(paths: Paths) -> CertificateAuthority:
    return load_ca_from_files(previous_path(paths[0]), previous_path(paths[1]))


def test_the_replaced_pair_is_kept_and_usable(paths: Paths) -> None:
    old, _ = load_or_create_ca(*paths)
    new = generate_ca()
    assert previous_anchors(paths[0]) == {}
    assert replace_ca(new, *paths)
    assert load_ca_from_files(*paths) == new
    assert previous(paths) == old
    assert previous_anchors(paths[0]) == {previous_path(paths[0]): old.certificate}
    if os.name == "posix":
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths[0].parent.iterdir()}
        assert modes == {"ca.pem": 0o644, "ca.previous.pem": 0o644, "ca-key.pem": 0o600, "ca-key.previous.pem": 0o600}


def test_the_same_pair_again_changes_nothing(paths: Paths) -> None:
    first, _ = load_or_create_ca(*paths)
    second = generate_ca()
    replace_ca(second, *paths)
    assert not replace_ca(second, *paths)
    assert previous(paths) == first


def test_every_replaced_pair_is_kept(paths: Paths) -> None:
    first, _ = load_or_create_ca(*paths)
    second, third = generate_ca(), generate_ca()
    replace_ca(second, *paths)
    replace_ca(third, *paths)
    assert previous(paths) == first
    assert load_ca_from_files(previous_path(paths[0], 2), previous_path(paths[1], 2)) == second
    assert list(previous_anchors(paths[0]).values()) == [first.certificate, second.certificate]
    assert end_overlap(*paths)
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["ca-key.pem", "ca.pem"]


def test_a_first_pair_replaces_nothing(paths: Paths) -> None:
    ca = generate_ca()
    assert replace_ca(ca, *paths)
    assert load_ca_from_files(*paths) == ca
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["ca-key.pem", "ca.pem"]


def test_the_overlap_ends_once(paths: Paths) -> None:
    load_or_create_ca(*paths)
    new = generate_ca()
    replace_ca(new, *paths)
    assert end_overlap(*paths)
    assert not end_overlap(*paths)
    assert previous_anchors(paths[0]) == {}
    assert load_ca_from_files(*paths) == new


def test_a_damaged_previous_certificate_is_named(paths: Paths) -> None:
    load_or_create_ca(*paths)
    previous_path(paths[0]).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(CaMaterialError, match="ca.previous.pem is damaged; delete it"):
        previous_anchors(paths[0])


def test_files_that_are_not_ours_are_permission_errors(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    load_or_create_ca(*paths)
    replace_ca(generate_ca(), *paths)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CaPermissionError, match="cannot be deleted: permission denied"):
        end_overlap(*paths)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(CaPermissionError, match="cannot be read: permission denied"):
        previous_anchors(paths[0])


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_write_that_fails_leaves_the_old_pair_in_place(paths: Paths, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Also when it is the last of the four files that finds no room."""
    old, _ = load_or_create_ca(*paths)
    begun = []

    def full(descriptor: int) -> None:
        begun.append(descriptor)
        if len(begun) == number:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(CaOperationError, match="cannot be written: No space left"):
        replace_ca(generate_ca(), *paths)
    monkeypatch.undo()
    assert load_ca_from_files(*paths) == old
    assert previous_anchors(paths[0]) == {} and sorted(paths[0].parent.iterdir()) == sorted(paths)


def test_a_reader_in_between_waits_for_the_whole_pair(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    load_or_create_ca(*paths)
    new, half_written, go_on = generate_ca(), threading.Event(), threading.Event()

    def write_slowly(*files: tuple[Path, bytes, int]) -> None:
        *others, (cert_path, cert_pem, _) = files
        for path, data, _ in others:
            path.write_bytes(data)
        half_written.set()
        assert go_on.wait(10)
        cert_path.write_bytes(cert_pem)

    @contextmanager
    def noticed(directory: Path) -> Iterator[None]:
        go_on.set()  # the reader has seen a pair that does not match
        with locked(directory):
            yield

    monkeypatch.setattr(ca_rotation, "write_together", write_slowly)
    monkeypatch.setattr(ca_files, "locked", noticed)
    writer = threading.Thread(target=replace_ca, args=(new, *paths))
    writer.start()
    assert half_written.wait(10)
    read: list[CertificateAuthority] = []
    reader = threading.Thread(target=lambda: read.append(load_ca_from_files(*paths)))
    reader.start()
    writer.join(10)
    reader.join(10)
    assert read == [new]
