"""The CA on disk: modes, half a pair, two processes at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from soth_mitm.errors import CaMaterialError, CaOperationError, CaPermissionError
from soth_mitm.tls import ca_files, safe_files
from soth_mitm.tls.ca import generate_ca
from soth_mitm.tls.ca_files import ca_paths, load_ca_from_files, load_or_create_ca, save_ca, state_directory

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
not_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "state" / "ca.pem", tmp_path / "state" / "ca-key.pem"


def test_first_start_creates_and_later_ones_load(paths):
    ca, created = load_or_create_ca(*paths)
    assert created
    assert load_or_create_ca(*paths) == (ca, False)
    assert load_ca_from_files(*paths) == ca


@posix
def test_created_files_are_private_and_alone(paths):
    old = os.umask(0)
    try:
        load_or_create_ca(*paths)
    finally:
        os.umask(old)
    cert, key = paths
    assert mode_of(key) == 0o600 and mode_of(key.parent) == 0o700 and mode_of(cert) == 0o644
    assert sorted(cert.parent.iterdir()) == sorted(paths)


@posix
def test_directory_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    load_or_create_ca(tmp_path / "ca.pem", tmp_path / "ca-key.pem")
    assert mode_of(tmp_path) == 0o755


@pytest.mark.parametrize("missing", [0, 1])
def test_half_a_pair_is_an_error_that_says_which_half(paths, missing):
    load_or_create_ca(*paths)
    paths[missing].unlink()
    with pytest.raises(CaMaterialError) as caught:
        load_or_create_ca(*paths)
    assert f"{paths[missing]} is missing" in str(caught.value) and f"delete {paths[1 - missing]}" in str(caught.value)
    assert not paths[missing].exists()


def test_save_replaces_a_pair(paths):
    load_or_create_ca(*paths)
    other = generate_ca()
    save_ca(other, *paths)
    assert load_ca_from_files(*paths) == other


def test_certificate_and_key_may_live_apart(tmp_path):
    ca, created = load_or_create_ca(tmp_path / "public" / "ca.pem", tmp_path / "private" / "key.pem")
    assert created and load_ca_from_files(tmp_path / "public" / "ca.pem", tmp_path / "private" / "key.pem") == ca


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_key_open_to_others_is_refused_with_the_command_that_helps(paths, mode):
    load_or_create_ca(*paths)
    paths[1].chmod(mode)
    with pytest.raises(CaPermissionError) as caught:
        load_ca_from_files(*paths)
    command = str(caught.value).partition("run: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert load_ca_from_files(*paths)


@posix
def test_command_quotes_the_path(tmp_path):
    key = tmp_path / "a key; of mine.pem"
    save_ca(generate_ca(), tmp_path / "ca.pem", key)
    key.chmod(0o644)
    with pytest.raises(CaPermissionError, match="chmod 600 '"):
        load_ca_from_files(tmp_path / "ca.pem", key)


@not_root
def test_unreadable_key_is_a_permission_error(paths):
    load_or_create_ca(*paths)
    paths[1].chmod(0)
    with pytest.raises(CaPermissionError, match="permission denied"):
        load_ca_from_files(*paths)


@not_root
def test_directory_of_somebody_else_is_a_permission_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CaPermissionError, match="permission denied"):
        load_or_create_ca(tmp_path / "ca.pem", tmp_path / "ca-key.pem")


def refuse_to_open(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("name", ["open", "mkstemp", "mkdir"])
def test_refusals_of_the_system_become_permission_errors(paths, monkeypatch, name):
    if name == "open":
        load_or_create_ca(*paths)
        monkeypatch.setattr(ca_files, "open", refuse_to_open, raising=False)
    elif name == "mkstemp":
        monkeypatch.setattr(safe_files.tempfile, "mkstemp", refuse_to_open)
    else:
        monkeypatch.setattr(Path, "mkdir", refuse_to_open)
    with pytest.raises(CaPermissionError, match="permission denied"):
        load_or_create_ca(*paths)


def test_missing_files_and_directories_in_their_place_are_material_errors(paths, tmp_path):
    with pytest.raises(CaMaterialError, match="does not exist"):
        load_ca_from_files(*paths)
    with pytest.raises(CaMaterialError, match="cannot be read"):
        load_ca_from_files(tmp_path, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CaMaterialError, match="cannot be made"):
        load_or_create_ca(tmp_path / "file" / "ca.pem", tmp_path / "file" / "key.pem")


def test_bad_material_names_the_files(paths):
    load_or_create_ca(*paths)
    paths[0].write_bytes(generate_ca().cert_pem)
    with pytest.raises(CaMaterialError, match="do not belong together") as caught:
        load_ca_from_files(*paths)
    assert str(paths[0]) in str(caught.value) and str(paths[1]) in str(caught.value)


@pytest.mark.parametrize("number", [1, 2])
def test_write_that_fails_leaves_nothing_behind(paths, monkeypatch, number):
    begun = []

    def full(descriptor):
        begun.append(descriptor)
        if len(begun) == number:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(CaOperationError, match=f"{paths[2 - number].name} cannot be written: No space left on device"):
        load_or_create_ca(*paths)
    assert list(paths[0].parent.iterdir()) == []


def test_a_file_system_that_cannot_be_written_is_named_with_the_file(paths, monkeypatch):
    def read_only(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(safe_files.tempfile, "mkstemp", read_only)
    with pytest.raises(CaOperationError, match=r"ca-key\.pem cannot be written: Read-only file system"):
        load_or_create_ca(*paths)


def test_a_directory_where_a_file_belongs_is_not_replaced(paths):
    paths[0].mkdir(parents=True)
    with pytest.raises(CaOperationError, match=r"ca\.pem cannot be written: "):
        save_ca(generate_ca(), *paths)
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)


RACE = """
import sys
from soth_mitm.tls.ca_files import load_or_create_ca
sys.stdin.readline()
ca, created = load_or_create_ca(sys.argv[1], sys.argv[2])
print(ca.fingerprint, created)
"""


def test_processes_that_start_together_share_one_ca(paths):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, *map(str, paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(4)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=30)[0].split() for child in children]
    assert len({fingerprint for fingerprint, _ in answers}) == 1
    assert sorted(created for _, created in answers) == ["False", "False", "False", "True"]


HOME = Path("/home/me")


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {}, HOME / ".local/state/soth-mitm"),
        ("linux", {"XDG_STATE_HOME": "/var/me"}, Path("/var/me/soth-mitm")),
        ("linux", {"XDG_STATE_HOME": "relative"}, HOME / ".local/state/soth-mitm"),
        ("freebsd14", {}, HOME / ".local/state/soth-mitm"),
        ("darwin", {"XDG_STATE_HOME": "/var/me"}, HOME / "Library/Application Support/soth-mitm"),
        ("win32", {"LOCALAPPDATA": "/appdata"}, Path("/appdata/soth-mitm")),
        ("win32", {}, HOME / "AppData/Local/soth-mitm"),
        ("win32", {"SOTH_MITM_STATE_DIR": "/elsewhere"}, Path("/elsewhere")),
        ("linux", {"SOTH_MITM_STATE_DIR": "/elsewhere", "XDG_STATE_HOME": "/var/me"}, Path("/elsewhere")),
    ],
)
def test_state_directory_by_platform(platform, environ, expected):
    assert state_directory(platform, environ, lambda: HOME) == expected


def test_default_paths_are_in_the_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path))
    assert ca_paths(None, None) == (tmp_path / "soth-mitm-ca.pem", tmp_path / "soth-mitm-ca-key.pem")
