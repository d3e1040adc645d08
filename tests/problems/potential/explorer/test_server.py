"""Who may ask, and what is answered: without a socket, but for the port."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from werkzeug.test import Client

from physics_hybrid.problems.potential.explorer import server
from physics_hybrid.problems.potential.explorer.server import (
    FILES,
    KEY,
    PAGE,
    Page,
    address,
    check_host,
    listening,
)
from tests.conftest import ROOT

HOST = "127.0.0.1:8765"


@pytest.fixture
def page(explorer):
    return Page(explorer)


@pytest.fixture
def ask(page):
    """POST JSON as the page does."""

    def call(path, message, **more):
        headers = {"Host": HOST, KEY: page.key, **more.pop("headers", {})}
        data = message if isinstance(message, (str, bytes)) else json.dumps(message)
        kind = more.pop("content_type", "application/json")
        return Client(page).post(path, data=data, headers=headers, content_type=kind, **more)

    return call


def test_a_scene_gets_its_sections_and_its_bound(ask, scene):
    about = ask("/about", {}).json
    assert about["scene"] == scene
    answer = ask("/field", scene)
    assert answer.status_code == 200
    assert len(answer.json["sections"]) == 3
    assert ask("/bound", scene).json["relative"] > 0


def test_a_file_comes_as_an_attachment(ask, scene):
    reply = ask("/export", {"scene": scene, "kind": ".npy"})
    assert reply.headers["Content-Disposition"] == 'attachment; filename="potential.npy"'
    assert reply.data.startswith(b"\x93NUMPY")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "192.168.1.7:8765", "", "a@localhost", "[::1"],
)
def test_other_hosts_are_refused_and_told_why(page, ask, host):
    got = Client(page).get("/", query_string={"key": page.key}, headers={"Host": host})
    assert got.status_code == 403
    assert "answers to 127.0.0.1, localhost, ::1 only" in got.text
    assert ask("/about", {}, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:8765"])
def test_this_machine_is_not(page, host):
    got = Client(page).get("/", query_string={"key": page.key}, headers={"Host": host})
    assert got.status_code == 200


def test_requests_of_another_page_are_refused(ask):
    refused = ask("/about", {}, headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403
    assert "another page" in refused.text
    assert ask("/about", {}, headers={"Origin": f"http://{HOST}"}).status_code == 200


@pytest.mark.parametrize("key", ["", "guess", "ключ"])
def test_without_the_key_nothing_is_answered(page, ask, scene, key):
    for path in ("/about", "/field", "/bound", "/export"):
        refused = Client(page).post(
            path, json=scene, headers={"Host": HOST, KEY: key.encode().decode("latin1")}
        )
        assert refused.status_code == 403
        assert "started anew" in refused.text
    closed = Client(page).get("/", query_string={"key": key}, headers={"Host": HOST})
    assert closed.status_code == 403
    assert "whole address" in closed.text


def test_every_start_has_its_own_key(explorer):
    keys = {Page(explorer).key for _ in range(4)}
    assert len(keys) == 4
    assert all(len(key) >= 32 for key in keys)


def test_other_methods_and_names_are_refused(page, ask):
    client = Client(page)
    assert client.get("/field", headers={"Host": HOST}).status_code == 405
    assert client.delete("/", headers={"Host": HOST}).status_code == 405
    for name in ("/../server.py", "/..%2fserver.py", "/page/index.html", "//etc/passwd", "/x.js"):
        assert client.get(name, headers={"Host": HOST}).status_code in (403, 404), name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"at": NaN}', "NaN is no number"),
        ('{"current": -Infinity}', "-Infinity is no number"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 9000, "not JSON"),
        ("[]", "must be an object"),
        ('"x"', "must be an object"),
    ],
)
def test_what_is_no_scene_is_said(ask, text, said):
    reply = ask("/field", text)
    assert reply.status_code == 422
    assert said in reply.json["error"]


def test_nan_within_a_scene_is_said(ask, scene):
    text = json.dumps({**scene, "at": [0.1, float("nan"), 0.1]})
    assert "NaN is no number" in ask("/field", text).json["error"]


def test_a_form_is_no_scene(ask, scene):
    reply = ask("/field", json.dumps(scene), content_type="text/plain")
    assert reply.status_code == 422
    assert "application/json" in reply.json["error"]


def test_a_scene_of_megabytes_is_not_read(ask):
    reply = ask("/field", " " * (1 << 20))
    assert reply.status_code == 413


def test_an_electrode_in_air_gets_the_nearest_tissue(ask, scene, explorer):
    reply = ask("/field", {**scene, "at": [0.1, 0.001, 0.001]})
    assert reply.status_code == 422
    assert "in air" in reply.json["error"]
    assert reply.json["electrode"] == "at"
    again = ask("/field", {**scene, "at": reply.json["nearest"]})
    assert again.status_code == 200


def test_a_failure_of_the_program_is_said_and_shown_in_the_terminal(
    ask, scene, capsys, monkeypatch
):
    monkeypatch.setattr(
        "physics_hybrid.problems.potential.explorer.answers.solve", lambda *_, **__: 1 / 0
    )
    reply = ask("/field", {**scene, "current": 7e-3})
    assert reply.status_code == 500
    assert "terminal" in reply.json["error"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_page_loads_nothing_from_elsewhere(page):
    assert {path.name for path in PAGE.iterdir()} == {*FILES, "index.html"}
    client = Client(page)
    for name in FILES:
        reply = client.get(f"/{name}", headers={"Host": HOST})
        assert reply.status_code == 200
        assert reply.content_type.startswith(FILES[name])
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert {*re.findall(r"https?://[\w.]+", reply.text)} <= {"http://www.w3.org"}
    html = client.get("/", query_string={"key": page.key}, headers={"Host": HOST}).text
    assert re.findall(r'(?:src|href)="([^"]+)"', html) == ["data:,", "explorer.css", "explorer.js"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_addresses_that_others_can_reach_are_refused(host):
    with pytest.raises(ValueError, match="refused: .*this machine alone.*ssh -L"):
        check_host(host)


def test_a_port_in_use_is_named(page):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is in use.*--port 0"):
            listening(page, "127.0.0.1", port)
    with pytest.raises(ValueError, match="port must lie in 0 .. 65535"):
        listening(page, "127.0.0.1", 65536)


def test_a_free_port_is_found_and_the_address_is_whole(page):
    held = listening(page, "localhost", 0)
    try:
        port = held.server_address[1]
        assert port > 0
        assert address(held, "localhost", page) == f"http://localhost:{port}/?key={page.key}"
        assert address(held, "::1", page).startswith("http://[::1]:")
        assert held.socket.getsockname()[0] == "127.0.0.1"
    finally:
        held.server_close()


def test_ctrl_c_ends_it(explorer, monkeypatch):
    said = []

    def stop(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr(server.BaseWSGIServer, "serve_forever", stop)
    server.serve(explorer, "127.0.0.1", 0, said.append)
    assert len(said) == 1
    port = int(re.search(r":(\d+)/", said[0])[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.slow
@pytest.mark.program
def test_the_verb_serves_until_ctrl_c(tmp_path):
    words = ["explore", "--grid", "16", "12", "12", "--port", "0"]
    command = [sys.executable, "-m", "physics_hybrid", *words]
    started = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = iter(started.stdout)
        said = [next(line for line in lines if line.startswith("open ")), next(lines)]
        assert "Only this machine can connect" in said[1]
        with urllib.request.urlopen(said[0].split()[1], timeout=20) as reply:
            assert b"<title>Explorer" in reply.read()
    finally:
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=30)
    assert started.returncode == 0
    assert out.endswith("ended\n")
    assert err == ""


def test_the_verb_refuses_in_one_line(capsys):
    from physics_hybrid.verbs.explore import main

    for words, status, line in (
        (["--host", "0.0.0.0"], 1, "error: host=0.0.0.0 is refused"),
        (["nowhere.nii.gz"], 1, "nowhere.nii.gz"),
        (["--grid", "4", "x", "4"], 2, "invalid int value"),
        (["--at", "9", "9", "9", "--grid", "16", "12", "12"], 1, "outside the box"),
        (["--prot", "1"], 2, "unrecognized"),
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == status, words
        err = capsys.readouterr().err
        assert line in err
        assert err.count("\n") == 1
