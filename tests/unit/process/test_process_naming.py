"""Interpreters are named by what they run."""

from __future__ import annotations

import shlex

import pytest

from soth_mitm.process.naming import file_name, program_name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        # Python: script, module, console script, archive, package directory, options with and without values
        ("/usr/bin/python3.11 /srv/agent.py --fast", "agent"),
        ("/usr/bin/python3 -m http.server 8000", "http.server"),
        ("/usr/bin/python3 -mpip install x", "pip"),
        ("/usr/bin/python3.13t -Im pkg.__main__", "pkg"),
        ("/usr/bin/python -u -W ignore -X dev -Wonce tool.py", "tool"),
        ("/usr/bin/python3.11 /venv/bin/pip3.11 install", "pip3.11"),
        ("/usr/bin/python3 app.pyz", "app"),
        ("/usr/bin/python3 /srv/agent/__main__.py", "agent"),
        ("/usr/bin/python3 -- -odd.py", "-odd"),
        ("/usr/bin/pypy3.10 x.py", "x"),
        ("/Library/Python.app/Contents/MacOS/Python x.py", "x"),
        (r"'C:\Py\pythonw.exe' 'C:\srv\agent.pyw'", "agent"),
        ("/usr/bin/python3.11 -c 'import x' agent.py", "python3.11"),
        ("/usr/bin/python3.11 -Ic pass", "python3.11"),
        ("/usr/bin/python3.11 - agent.py", "python3.11"),
        ("/usr/bin/python3.11", "python3.11"),
        ("/usr/bin/python3.11 -m", "python3.11"),
        # Node and its kin: npm packages
        ("/usr/bin/node /usr/lib/node_modules/@scope/tool/cli.js chat", "@scope/tool"),
        ("/usr/bin/node a/node_modules/outer/node_modules/inner/bin/x.js", "inner"),
        ("/usr/bin/node /p/node_modules/.pnpm/tool@1.0.0/node_modules/tool/x.js", "tool"),
        ("/usr/bin/node /p/node_modules/.bin/eslint.cmd .", "eslint"),
        (r"'C:\nodejs\node.exe' 'C:\npm\node_modules\tool\cli.js'", "tool"),
        ("/usr/bin/node --require ./hook.js --max-old-space-size=4096 server.mjs", "server"),
        ("/usr/bin/node -r ts-node/register --import=tsx main.ts", "main"),
        ("/usr/bin/node inspect server.js", "server"),
        ("/usr/bin/node -e 'fetch(1)' x.js", "node"),
        ("/usr/bin/node -pe 1 x.js", "node"),
        ("/usr/bin/deno run -A --config deno.json https://example.org/tools/serve.ts", "serve"),
        ("/usr/bin/deno run -A npm:@scope/tool@1.2.3/bin", "@scope/tool"),
        ("/usr/bin/deno run jsr:/tool@1", "tool"),
        ("/usr/bin/deno eval 'fetch(1)'", "deno"),
        ("/usr/bin/bun run dev", "dev"),
        ("/usr/bin/bun --cwd /srv run", "bun"),
        # The others
        ("/usr/bin/ruby -I lib -rjson -W2 tool.rb", "tool"),
        ("/usr/bin/ruby3.2 -S rake test", "rake"),
        ("/usr/bin/ruby -e 'puts 1'", "ruby"),
        ("/usr/bin/perl -Mstrict -w -I lib tool.pl", "tool"),
        ("/usr/bin/perl -ne print x.txt", "perl"),
        ("/usr/bin/php8.2 -d memory_limit=1G -f artisan.php", "artisan"),
        ("/usr/bin/php artisan serve", "artisan"),
        ("/usr/bin/php -r 'echo 1;'", "php"),
        ("/usr/bin/java -Xmx1g -Dx=y -cp a.jar:b.jar -jar /srv/service.jar --port 1", "service"),
        ("/usr/bin/java -cp lib/* com.example.Main", "com.example.Main"),
        # No interpreters
        ("/usr/bin/curl -m 3 http://127.0.0.1/", "curl"),
        ("/usr/bin/pythonista script.py", "pythonista"),
        (r"'C:\Program Files\App\chrome.exe' --type=utility", "chrome.exe"),
    ],
)
def test_program_name(command, name):
    argv = shlex.split(command)
    assert program_name(argv[0], argv) == name


@pytest.mark.parametrize(
    ("title", "name"),
    [
        (["claude", "", "", ""], "claude"),
        (["npm exec cowsay"], "npm"),
        (["gunicorn: master [app]"], "gunicorn"),
        (["-node"], "node"),
        (["/path with blanks/node"], "node"),
        (["node is idle"], "node"),
        ([""], "node"),
        ([], "node"),
    ],
)
def test_a_process_that_overwrote_its_command_line_is_named_by_its_title(title, name):
    assert program_name("/usr/bin/node", title) == name


def test_a_link_into_node_modules_is_named_by_the_package():
    real = {"/usr/local/bin/claude": "/usr/local/lib/node_modules/@scope/agent/cli.js"}
    argv = ["node", "/usr/local/bin/claude"]
    assert program_name("/usr/bin/node", argv, real.__getitem__) == "@scope/agent"
    assert program_name("/usr/bin/node", argv) == "claude"


def test_only_npm_programs_are_resolved():
    def refuse(path):
        raise AssertionError(path)

    assert program_name("/usr/bin/python3", ["python3", "-m", "pkg"], refuse) == "pkg"


def test_file_name_knows_both_separators():
    assert file_name("/a/b") == "b"
    assert file_name(r"C:\a\b.exe") == "b.exe"
    assert file_name("/a/b/") == "b"
