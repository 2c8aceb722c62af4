"""`soth-mitm ca`: the life of a CA on the command line, and the variables that make programs trust it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from soth_mitm import CaPermissionError, CertificateAuthority, load_ca_from_files, load_ca_from_pkcs12
from soth_mitm.cli import ca_commands, shells, trust_commands
from soth_mitm.cli.commands import cli
from soth_mitm.tls.bundle import trust_files
from soth_mitm.tls.ca_files import ca_paths
from soth_mitm.tls.ca_rotation import MAX_PREVIOUS, previous_path
from soth_mitm.tls.environment import client_environment, runtimes_of
from soth_mitm.tls.trust.stores import TrustReport
from support.certs import TestCA


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep away from this user's CA, home directory and settings; work in an empty directory."""
    for name in [name for name in os.environ if name.startswith("SOTH_MITM__") or name.upper() in ("NO_PROXY", "JAVA_TOOL_OPTIONS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOTH_MITM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ("ca", *arguments), input=stdin)


def done(*arguments: str, stdin: str = "") -> str:
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def facts() -> dict[str, object]:
    loaded = json.loads(done("show", "--json"))
    assert isinstance(loaded, dict)
    return loaded


# --- made, shown, exported


def test_path_makes_the_ca_once(tmp_path: Path) -> None:
    first, second = call("path"), call("path")
    path = Path(first.stdout.strip())
    assert path == tmp_path / "state/soth-mitm-ca.pem"
    assert path.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    assert (first.stderr, second.stderr) == (f"a CA was made: {path}\n", "")


def test_the_configuration_says_where(tmp_path: Path) -> None:
    paths = {"ca_cert_path": tmp_path / "a/c.pem", "ca_key_path": tmp_path / "a/k.pem"}
    Path("x.toml").write_text("\n".join(["[tls]", *(f"{key} = {json.dumps(str(path))}" for key, path in paths.items())]))
    assert done("path", "--config", "x.toml") == f"{tmp_path / 'a/c.pem'}\n"


def test_generate_names_it_and_never_replaces_one() -> None:
    done("generate", "--common-name", "Our Proxy", "--organization", "Us", "--days", "30")
    shown = facts()
    assert (shown["subject"], shown["days_left"], shown["key"]) == ("CN=Our Proxy,O=Us", 29, "EC 256")
    refused = call("generate")
    assert refused.exit_code == 22 and "soth-mitm ca rotate" in refused.output
    assert facts() == shown


def test_show_for_people_and_without_a_ca() -> None:
    missing = call("show")
    assert missing.exit_code == 22 and "does not exist" in missing.output
    done("generate")
    text = done("show")
    assert str(facts()["sha256"]) in text and "valid until" in text and "bundle" not in text


def test_export_in_each_format() -> None:
    done("generate")
    ca = load_ca_from_files(*ca_paths(None, None))
    for form in ("pem", "der", "p12"):
        done("export", f"ca.{form}", "--format", form)
        assert b"PRIVATE" not in Path(f"ca.{form}").read_bytes()
    assert Path("ca.pem").read_bytes() == ca.cert_pem
    assert x509.load_der_x509_certificate(Path("ca.der").read_bytes()) == ca.certificate
    bag = pkcs12.load_pkcs12(Path("ca.p12").read_bytes(), b"changeit")
    assert bag.key is None and [entry.certificate for entry in bag.additional_certs] == [ca.certificate]


def test_export_to_standard_output() -> None:
    done("generate")
    assert CliRunner().invoke(cli, ("ca", "export", "-")).stdout_bytes == load_ca_from_files(*ca_paths(None, None)).cert_pem


def test_export_replaces_nothing_unasked() -> None:
    Path("mine.pem").write_bytes(b"precious")
    refused = call("export", "mine.pem")
    assert (refused.exit_code, Path("mine.pem").read_bytes()) == (23, b"precious")
    assert "--force" in refused.output
    done("export", "mine.pem", "--force")
    assert Path("mine.pem").read_bytes() == Path(done("path").strip()).read_bytes()
    nowhere = call("export", "no/where.pem")
    assert nowhere.exit_code == 23 and "there is no directory no" in nowhere.output


def test_the_key_leaves_with_a_password_only() -> None:
    done("generate")
    assert call("export", "x.pem", "--with-key").exit_code == 2
    assert call("export", "x.p12", "--format", "p12", "--with-key", stdin="\n\n").exit_code != 0
    assert not Path("x.p12").exists()
    done("export", "asked.p12", "--format", "p12", "--with-key", stdin="secret\nsecret\n")
    Path("password").write_text("secret\nmore\n")
    done("export", "file.p12", "--format", "p12", "--with-key", "--password-file", "password")
    ca = load_ca_from_files(*ca_paths(None, None))
    for name in ("asked.p12", "file.p12"):
        assert load_ca_from_pkcs12(Path(name).read_bytes(), "secret").fingerprint == ca.fingerprint
        assert os.name != "posix" or stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    Path("empty").write_text("")
    refused = call("export", "none.p12", "--format", "p12", "--with-key", "--password-file", "empty")
    assert refused.exit_code == 23 and "no password in its first line" in refused.output


# --- imported, rotated


def test_import_of_each_format() -> None:
    root = TestCA("Mine")
    encrypted = root.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    Path("cert.pem").write_bytes(root.cert_pem)
    Path("key.pem").write_bytes(root.key_pem)
    Path("locked.pem").write_bytes(encrypted)
    Path("both.pem").write_bytes(root.key_pem + root.cert_pem)
    Path("ca.p12").write_bytes(
        pkcs12.serialize_key_and_certificates(None, root.key, root.certificate, None, serialization.BestAvailableEncryption(b"secret"))
    )
    Path("password").write_text("secret\n")
    cert_path, key_path = ca_paths(None, None)
    for arguments in (
        ("cert.pem", "key.pem"),
        ("both.pem",),
        ("cert.pem", "locked.pem", "--password-file", "password"),
        ("ca.p12", "--password-file", "password"),
    ):
        for path in (cert_path, key_path):
            path.unlink(missing_ok=True)
        done("import", *arguments)
        taken = load_ca_from_files(cert_path, key_path)
        assert taken.certificate == root.certificate and taken.cert_pem == root.cert_pem
    for path in (cert_path, key_path):
        path.unlink()
    done("import", "ca.p12", stdin="secret\n")
    assert facts()["subject"] == "CN=Mine"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("cert.pem",), 22, "holds no PEM private key; name the file that does"),
        (("cert.pem", "other-key.pem"), 22, "do not belong together"),
        (("cert.pem", "cert.pem"), 22, "holds no PEM private key"),
        (("gone.pem",), 23, "gone.pem"),
        (("noise.p12", "--password-file", "noise.p12"), 22, "no PKCS#12 file"),
        (("noise.p12", "other-key.pem"), 22, "goes without a key file"),
    ],
)
def test_what_cannot_be_imported_is_explained(arguments: tuple[str, ...], code: int, words: str) -> None:
    Path("cert.pem").write_bytes(TestCA().cert_pem)
    Path("other-key.pem").write_bytes(TestCA().key_pem)
    Path("noise.p12").write_text("noise")
    result = call("import", *arguments)
    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert not ca_paths(None, None)[0].exists()


def test_import_replaces_nothing_unasked() -> None:
    done("generate")
    before = facts()
    own = TestCA()
    Path("both.pem").write_bytes(own.cert_pem + own.key_pem)
    refused = call("import", "both.pem")
    assert refused.exit_code == 22 and "--force" in refused.output and facts() == before
    done("import", "both.pem", "--force")
    assert facts()["sha256"] != before["sha256"]
    kept = x509.load_pem_x509_certificate(previous_path(ca_paths(None, None)[0]).read_bytes())
    assert kept.fingerprint(hashes.SHA256()).hex() == before["sha256"]


def test_rotation_keeps_names_and_overlaps_until_its_end() -> None:
    done("generate", "--common-name", "Our Proxy", "--organization", "Us")
    before = facts()
    done("env")
    bundle = trust_files(ca_paths(None, None)[0]).bundle
    old_pem = ca_paths(None, None)[0].read_text()
    said = done("rotate")
    after = facts()
    assert str(before["sha256"]) in said and str(after["sha256"]) in said and "SIGHUP" in said and "--finish" in said
    assert (after["subject"], after["sha256"] != before["sha256"]) == ("CN=Our Proxy,O=Us", True)
    assert after["replaced"] == [str(previous_path(ca_paths(None, None)[0]))]
    assert old_pem in bundle.read_text() and ca_paths(None, None)[0].read_text() in bundle.read_text()
    assert "deleted" in done("rotate", "--finish")
    assert old_pem not in bundle.read_text() and ca_paths(None, None)[0].read_text() in bundle.read_text()
    assert facts()["replaced"] is None
    assert "no replaced CA" in done("rotate", "--finish")
    assert json.loads(done("rotate", "--json"))["changed"] is True


def test_rotation_needs_a_ca_of_its_own() -> None:
    assert call("rotate").exit_code == 22
    root = TestCA()
    middle = root.intermediate()
    Path("both.pem").write_bytes(middle.cert_pem + root.cert_pem + middle.key_pem)
    done("import", "both.pem")
    refused = call("rotate")
    assert refused.exit_code == 22 and "soth-mitm ca import --force" in refused.output


# --- installed


Calls = list[tuple[str, bool]]


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """Take the place of this machine's trust stores; what they report, or raise, is said by the test."""

    def play(answer: list[TrustReport] | Exception) -> Calls:
        calls: Calls = []

        def act(verb: str) -> Callable[..., list[TrustReport]]:
            def answered(_: object, browsers: bool = True, **__: object) -> list[TrustReport]:
                calls.append((verb, browsers))
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return answered

        monkeypatch.setattr(trust_commands, "install_ca_system_trust", act("install"))
        monkeypatch.setattr(trust_commands, "uninstall_ca_system_trust", act("uninstall"))
        monkeypatch.setattr(trust_commands, "ca_trust_status", act("status"))
        return calls

    return play


def test_what_the_stores_say_is_shown(stores: Callable[..., Calls]) -> None:
    done("generate")
    refusal = CaPermissionError("closed")
    calls = stores(
        [TrustReport("system (x)", True, True), TrustReport("browser (y)", False), TrustReport("browser (z)", None, error=refusal)]
    )
    shown = call("install")
    assert shown.exit_code == 22 and "Error: browser (z): closed" in shown.output
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["trusted", "not", "unknown"]
    assert "(changed now)" in shown.stdout
    rows = json.loads(done("status", "--json"))
    assert rows[0] == {"store": "system (x)", "trusted": True, "changed": True, "error": None}
    assert rows[2]["error"] == "closed"
    call("uninstall", "--no-browsers")
    assert calls == [("install", True), ("status", True), ("uninstall", False)]


def test_the_systems_refusal_says_what_to_type(stores: Callable[..., Calls]) -> None:
    done("generate")
    stores(CaPermissionError("only an administrator may change /x; run: sudo y"))
    for verb in ("install", "uninstall"):
        refused = call(verb)
        assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (22, "Error: only an administrator may change /x; run: sudo y")


def test_without_a_ca_there_is_nothing_to_uninstall() -> None:
    for verb in ("uninstall", "status"):
        result = call(verb)
        assert result.exit_code == 22 and "does not exist" in result.output
    assert not ca_paths(None, None)[0].exists()


def test_the_replaced_ca_is_uninstalled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    done("generate")
    old = load_ca_from_files(*ca_paths(None, None)).certificate
    done("rotate")
    new = load_ca_from_files(*ca_paths(None, None))
    trusted, refusal = [old], CaPermissionError("run: sudo y")
    asked: list[object] = []

    def uninstall(ca: object, browsers: bool = True) -> list[TrustReport]:
        asked.append(ca)
        changed = ca in trusted
        if changed and len(asked) == 1:
            raise refusal
        if changed:
            trusted.clear()
        return [TrustReport("system", False, changed)]

    monkeypatch.setattr(trust_commands, "uninstall_ca_system_trust", uninstall)
    monkeypatch.setattr(ca_commands, "ca_trust_status", lambda ca: [TrustReport("system", ca in trusted)])
    # what may not be taken out of a trust store is not deleted either
    refused = call("rotate", "--finish")
    assert refused.exit_code == 22 and "run: sudo y" in refused.output and facts()["replaced"] is not None
    assert json.loads(done("uninstall", "--json")) == [{"store": "system", "trusted": False, "changed": True, "error": None}]
    assert asked[1:] == [old, new.trust_anchor]
    trusted.append(old)
    done("rotate", "--finish")
    assert trusted == [] and facts()["replaced"] is None


def test_every_ca_that_was_installed_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that two rotations have replaced, and one that was imported over; `status` tells of them meanwhile."""
    trusted: list[object] = []

    def install(ca: CertificateAuthority, browsers: bool = True, **_: object) -> list[TrustReport]:
        trusted.append(ca.trust_anchor)
        return [TrustReport("system", True, True)]

    def uninstall(anchor: object, browsers: bool = True) -> list[TrustReport]:
        changed = anchor in trusted
        trusted[:] = [other for other in trusted if other != anchor]
        return [TrustReport("system", False, changed)]

    monkeypatch.setattr(trust_commands, "install_ca_system_trust", install)
    monkeypatch.setattr(trust_commands, "uninstall_ca_system_trust", uninstall)
    for module in (trust_commands, ca_commands):
        monkeypatch.setattr(
            module, "ca_trust_status", lambda ca: [TrustReport("system", getattr(ca, "trust_anchor", ca) in trusted)], raising=False
        )
    done("generate")
    done("install")
    first = facts()
    done("rotate")
    done("rotate")
    assert len(facts()["replaced"]) == 2
    own = TestCA()
    Path("both.pem").write_bytes(own.cert_pem + own.key_pem)
    done("import", "both.pem", "--force")
    lines = done("status").splitlines()
    assert lines[0].startswith("not trusted") and lines[1].startswith("trusted") and str(first["sha256"])[:16] in lines[1]
    # the CA itself may be gone by then
    for path in ca_paths(None, None):
        path.unlink()
    assert json.loads(done("uninstall", "--json")) == [{"store": "system", "trusted": False, "changed": True, "error": None}]
    assert trusted == []
    assert call("uninstall").exit_code == 22, "nothing is remembered any more"


def test_rotations_overwrite_no_replaced_ca() -> None:
    done("generate")
    seen = [facts()["sha256"]]
    for _ in range(MAX_PREVIOUS):
        done("rotate")
        seen.append(facts()["sha256"])
    kept = [x509.load_pem_x509_certificate(Path(path).read_bytes()).fingerprint(hashes.SHA256()).hex() for path in facts()["replaced"]]
    assert kept == seen[:-1]
    refused = call("rotate")
    assert refused.exit_code == 22 and "--finish" in refused.output and facts()["sha256"] == seen[-1]
    done("rotate", "--finish")
    assert facts()["replaced"] is None
    done("rotate")


# --- env


def test_env_names_what_it_wrote() -> None:
    text = done("env", "--proxy", "http://127.0.0.1:9", "--direct", "db.example", "--shell", "sh")
    files = trust_files(ca_paths(None, None)[0])
    assert files.bundle.is_file() and files.java_truststore.is_file()
    lines = text.splitlines()
    assert f"export SSL_CERT_FILE={files.bundle}" in lines
    assert "export HTTPS_PROXY=http://127.0.0.1:9" in lines
    assert "export NO_PROXY=localhost,127.0.0.1,::1,db.example" in lines
    assert all(line.startswith(("# ", "export ")) for line in lines)
    assert call("env", "--undo", "--json").exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_env_is_undone_to_what_was_there_before() -> None:
    """Also when it took effect twice: what came of the first time is not what was there before."""
    command = f"{sys.executable} -m soth_mitm ca env --shell sh"
    steps = f'eval "$({command})"\neval "$({command})"\necho "$SSL_CERT_FILE" >&2\neval "$({command} --undo)"\nenv'
    before = os.environ | {"NO_PROXY": "db.example", "SSL_CERT_FILE": "/own/roots.pem"}
    before.pop("no_proxy", None)
    ran = subprocess.run(["sh", "-ec", steps], env=before, capture_output=True, text=True, check=True)
    assert ran.stderr.endswith("-bundle.pem\n")
    after = dict(line.partition("=")[::2] for line in ran.stdout.splitlines())
    ours = {"SOTH_MITM_BEFORE", *client_environment(trust_files("/x/ca.pem"), "http://127.0.0.1:1", platform="linux")}
    assert {name: after[name] for name in ours & after.keys()} == {name: before[name] for name in ours & before.keys()}


@pytest.mark.parametrize("shell", ["fish", "powershell", "cmd"])
def test_each_shell_can_undo(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTH_MITM_BEFORE", '{"NO_PROXY": "db.example"}')
    lines = done("env", "--undo", "--shell", shell).splitlines()
    assert shells.assignment("NO_PROXY", "db.example", shell) in lines
    assert shells.removal("SSL_CERT_FILE", shell) in lines and shells.removal("SOTH_MITM_BEFORE", shell) in lines


def test_without_a_ca_the_next_step_is_said() -> None:
    for command in ("show", "status", "rotate"):
        refused = call(command)
        assert refused.exit_code == 22 and "soth-mitm ca generate" in refused.output, command


def test_env_as_json_is_the_same() -> None:
    document = json.loads(done("env", "--json"))
    environment = document["environment"]
    assert environment["HTTPS_PROXY"] == "http://127.0.0.1:8080"
    assert {name for runtime in document["runtimes"] for name in runtime["variables"]} == environment.keys()


@pytest.mark.parametrize(
    ("bind", "url"), [("0.0.0.0:81", "http://127.0.0.1:81"), ("[::]:81", "http://[::1]:81"), ("10.0.0.1:81", "http://10.0.0.1:81")]
)
def test_the_proxys_url_follows_its_bind(bind: str, url: str) -> None:
    Path("x.toml").write_text(f'bind = "{bind}"\n')
    assert json.loads(done("env", "--json", "--config", "x.toml"))["environment"]["HTTPS_PROXY"] == url


def test_a_port_that_is_not_known_must_be_said() -> None:
    Path("x.toml").write_text('bind = "127.0.0.1:0"\n')
    refused = call("env", "--config", "x.toml")
    assert refused.exit_code == 20 and "--proxy http://host:port" in refused.output
    assert call("env", "--proxy", "localhost:80").exit_code == 2


# What a shell makes of text that means something to it.
NASTY = {
    "PLAIN": "/a/b.pem",
    "SPACES": "a b  c",
    "QUOTES": """it's "so" `id` $(id) $HOME \\ %PATH%""",
    "PIPES": "localhost|127.0.0.1|[::1]",
}


def shown_by(shell: str, *command: str) -> dict[str, str]:
    """Run a script with the nasty variables in a real shell, and return what a program that it starts has in its environment."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    script = "\n".join(shells.assignment(name, value, shell) for name, value in NASTY.items())
    python = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    call_it = f"& {python}" if shell == "powershell" else python
    result = subprocess.run((*command, f"{script}\n{call_it}\n"), capture_output=True, text=True, timeout=60, check=True)
    return {name: value for name, value in json.loads(result.stdout).items() if name in NASTY}


@pytest.mark.skipif(os.name != "posix", reason="shells of POSIX")
@pytest.mark.parametrize(
    ("shell", "command"), [("sh", ("sh", "-c")), ("sh", ("bash", "-c")), ("fish", ("fish", "-c")), ("powershell", ("pwsh", "-c"))]
)
def test_shells_read_it_as_it_was_meant(shell: str, command: tuple[str, ...]) -> None:
    assert shown_by(shell, *command) == NASTY


@pytest.mark.parametrize(
    ("shell", "lines"),
    [
        ("fish", ["set -gx PLAIN '/a/b.pem'", "set -gx SPACES 'a b  c'", """set -gx QUOTES 'it\\'s "so" `id` $(id) $HOME \\\\ %PATH%'"""]),
        ("powershell", ["$env:PLAIN = '/a/b.pem'", "$env:SPACES = 'a b  c'", """$env:QUOTES = 'it''s "so" `id` $(id) $HOME \\ %PATH%'"""]),
        ("cmd", ['set "PLAIN=/a/b.pem"', 'set "SPACES=a b  c"']),
        ("dotenv", ["PLAIN=/a/b.pem", "SPACES='a b  c'"]),
    ],
)
def test_assignments_of_other_shells(shell: str, lines: list[str]) -> None:
    assert [shells.assignment(name, value, shell) for name, value in NASTY.items()][: len(lines)] == lines
    assert shells.assignment("PIPES", NASTY["PIPES"], "dotenv") == "PIPES='localhost|127.0.0.1|[::1]'"


@pytest.mark.parametrize("shell", shells.SHELLS)
def test_every_shell_gets_every_variable(shell: str) -> None:
    environment = client_environment(trust_files(Path("/s/ca.pem")), "http://127.0.0.1:1", environ={}, platform="linux")
    text = shells.script(runtimes_of(environment), shell)
    assert all(shells.assignment(name, value, shell) in text.splitlines() for name, value in environment.items())


def test_the_shell_is_guessed() -> None:
    assert shells.default_shell({"SHELL": "/usr/bin/fish"}, "linux") == "fish"
    assert shells.default_shell({"SHELL": "/bin/zsh"}, "darwin") == "sh"
    assert shells.default_shell({}, "linux") == "sh"
    assert shells.default_shell({"SHELL": "/usr/bin/bash"}, "win32") == "powershell"


# --- with a proxy that runs


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_a_running_proxy_takes_the_new_ca_on_sighup() -> None:
    Path("x.toml").write_text('bind = "127.0.0.1:0"\n[interception]\ndestinations = ["a.example:443"]\n')
    done("env", "--proxy", "http://127.0.0.1:1")
    bundle = trust_files(ca_paths(None, None)[0]).bundle
    bundle.write_text("stale")
    command = [sys.executable, "-m", "soth_mitm", "run", "--config", "x.toml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            greeting = [process.stdout.readline() for _ in range(5)]
            assert "--config x.toml)" in greeting[4]
            # it brings a bundle that is there up to date
            assert ca_paths(None, None)[0].read_text() in bundle.read_text()
            done("rotate")
            process.send_signal(signal.SIGHUP)
            said = [process.stdout.readline().strip() for _ in range(2)]
            assert said == ["reloaded; changed: nothing", f"new connections get certificates of the CA {facts()['sha256']}"]
            previous_path(ca_paths(None, None)[1]).replace(ca_paths(None, None)[1])
            process.send_signal(signal.SIGHUP)
            said = [process.stdout.readline().strip() for _ in range(2)]
            assert said[1].startswith("the CA was not read again: ") and "do not belong together" in said[1]
            process.terminate()
            process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == 0
