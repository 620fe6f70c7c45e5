"""The audit of the lock file: a vulnerability fails, a database that cannot be asked does not, nothing hangs."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LOCKED = "".join(
    f"{name}=={version} \\\n    --hash=sha256:{'0' * 64}\n" for name, version in (("a", "1.0"), ("b", "2.0"))
)

VULNERABILITY = {
    "id": "TEST-2026-1",
    "summary": "runs what it is told",
    "affected": [
        {
            "package": {"name": "b", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}


@pytest.fixture
def database():
    """Starts a database of vulnerabilities: (package, version) -> status and body of the answer."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = answer(asked["package"]["name"], asked["version"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/v1/query"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def audit(tmp_path):
    def run(service, *, locked=LOCKED, seconds=30):
        lock = tmp_path / "locked.txt"
        lock.write_text(locked)
        command = [sys.executable, ROOT / ".ci" / "audit.py", "--lock", lock, "--service", service]
        return subprocess.run(
            [*map(str, command), "--seconds", str(seconds)], capture_output=True, text=True, check=False, timeout=60
        )

    return run


def test_a_lock_without_known_vulnerabilities_passes(audit, database):
    asked = []

    def answer(name, version):
        asked.append((name, version))
        return 200, "{}"

    done = audit(database(answer))
    assert (done.returncode, done.stdout) == (0, "audit: no known vulnerability in 2 packages\n")
    assert sorted(asked) == [("a", "1.0"), ("b", "2.0")]


def test_a_vulnerability_fails_and_is_named_with_the_version_that_mends_it(audit, database):
    done = audit(database(lambda name, version: (200, json.dumps({"vulns": [VULNERABILITY]} if name == "b" else {}))))
    assert done.returncode == 1
    assert "b 2.0: TEST-2026-1, fixed in 2.1\n" in done.stderr
    assert "1 known vulnerabilities" in done.stderr


@pytest.mark.parametrize(
    "answer",
    [lambda name, version: (503, "busy"), lambda name, version: (200, "<html>please log in</html>")],
    ids=["an error", "another page"],
)
def test_a_database_that_answers_something_else_is_a_sentence(audit, database, answer):
    done = audit(database(answer))
    assert done.returncode == 0
    assert done.stdout.startswith("audit skipped: http://127.0.0.1:")
    assert done.stdout.endswith("cannot be reached\n")


def test_without_a_network_it_is_skipped_in_a_sentence(audit):
    done = audit("http://127.0.0.1:9/v1/query")  # nobody listens there
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "audit skipped: http://127.0.0.1:9/v1/query cannot be reached\n"


def test_a_database_that_never_answers_does_not_hold_the_check_up(audit, database):
    def answer(name, version):
        time.sleep(6)
        return 200, "{}"

    service, started = database(answer), time.perf_counter()
    done = audit(service, seconds=2)
    assert (done.returncode, done.stdout) == (0, f"audit skipped: {service} took more than 2 s\n")
    assert time.perf_counter() - started < 5


def test_a_lock_that_cannot_be_audited_fails(audit, database):
    done = audit(database(lambda name, version: (200, "{}")), locked="a==1.0\n")  # no hash
    assert done.returncode == 1
    assert done.stderr.startswith("audit failed: ")


def test_the_lock_file_of_the_project_can_be_audited(audit, database):
    asked = []

    def answer(name, version):
        asked.append(name)
        return 200, "{}"

    done = audit(database(answer), locked=(ROOT / "requirements.txt").read_text())
    assert done.returncode == 0, done.stderr
    assert {"jax", "numpyro", "flax", "arviz", "filelock"} <= set(asked)
