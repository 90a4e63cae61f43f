"""`hubbub push` and the other commands that talk to a running server."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
from outside_server import PATIENCE, OutsideServer

from hubbub import Publisher
from ports import free_port

HUBBUB = [sys.executable, "-m", "hubbub"]


def hubbub(*arguments: object, given: bytes = b"", **variables: str) -> tuple[int, str, str]:
    """Run the command; return its exit status, output and errors."""
    environ = {"PATH": "", "LANG": "C.UTF-8", **variables}
    command = [*HUBBUB, *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, env=environ)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# ---- sending ---------------------------------------------------------------------------------------------


def test_commands_send_and_say_nothing(server: OutsideServer) -> None:
    with server.client("news") as client:
        for command in (["push", client.fd, "pushed"], ["publish", "news", "published"], ["broadcast", "to all"]):
            assert hubbub(*command, "--control", server.control) == (0, "", "")
        assert client.texts(3) == ["pushed", "published", "to all"]
        closing = hubbub("disconnect", client.fd, "--code", 4000, "--reason", "bye", "--control", server.control)
        assert closing == (0, "", "")
        assert client.close_code() == (4000, "bye")


def test_programs_are_told_in_json(server: OutsideServer) -> None:
    with server.client("news") as client:
        for command, answer in (
            (["push", client.fd, "1"], {"queued": True}),
            (["publish", "news", "2"], {"sent": True}),
            (["broadcast", "3"], {"sent": True}),
            (["disconnect", client.fd], {"closing": True}),
        ):
            status, out, err = hubbub(*command, "--json", "--control", server.control)
            assert (status, json.loads(out), err) == (0, answer, "")
        assert client.texts(3) == ["1", "2", "3"]
        assert client.close_code() == (1000, "")


def test_a_dash_is_standard_input(server: OutsideServer) -> None:
    with server.client() as client:
        sent = hubbub("push", client.fd, "-", "--control", server.control, given="two\nlines é\n".encode())
        assert sent == (0, "", "")
        assert client.next() == "two\nlines é\n"
        status, _, err = hubbub("push", client.fd, "-", "--control", server.control, given=b"\xff")
        assert (status, err.count("\n")) == (1, 1)
        assert "not UTF-8" in err


def test_text_may_be_json_which_is_checked_and_sent_compactly(server: OutsideServer) -> None:
    with server.client("news") as client:
        for command in (["push", client.fd], ["publish", "news"], ["broadcast"]):
            sent = hubbub(*command, '{ "a": "é", "b": [1] }', "--json-data", "--control", server.control)
            assert sent == (0, "", "")
            sent = hubbub(*command, "-", "--json-data", "--control", server.control, given=b"[\n1,\n2]\n")
            assert sent == (0, "", "")
            for text in ("{", "5", '"text"', "[NaN]"):
                status, out, err = hubbub(*command, text, "--json-data", "--control", server.control)
                assert (status, out) == (2, "")
                assert "TEXT" in err
        assert client.texts(6) == ['{"a":"é","b":[1]}', "[1,2]"] * 3


@pytest.mark.parametrize("command", [["push", 12345, "hello"], ["disconnect", 12345]])
def test_a_connection_that_is_not_there_is_one_line(server: OutsideServer, command: list[object]) -> None:
    status, out, err = hubbub(*command, "--control", server.control)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"hubbub: .*there is no open connection 12345.*\n", err)
    status, out, _ = hubbub(*command, "--json", "--control", server.control)
    assert (status, list(json.loads(out).values())) == (1, [False])


@pytest.mark.parametrize(
    "command",
    [
        ["push", 12345, "x", "--json"],
        ["publish", "news", "x"],
        ["broadcast", "x"],
        ["disconnect", 12345, "--json"],
        ["connections", "--json"],
        ["stats"],
    ],
    ids=lambda command: str(command[0]),
)
def test_a_mistyped_variable_is_named_with_the_nearest(server: OutsideServer, command: list[object]) -> None:
    right = hubbub(*command, HUBBUB_CONTROL=str(server.control))
    assert "variable" not in right[2]
    wrong = {"HUBBUB_CONTRL": "/x", "HUBBUB_A\nb": "1"}
    status, _, err = hubbub(*command, given=b"", HUBBUB_CONTROL=str(server.control), **wrong)
    assert status == right[0]
    first, second, *others = err.splitlines()
    assert first.startswith(r"hubbub: the variable HUBBUB_A\nb is not a setting")
    assert second == (
        "hubbub: the variable HUBBUB_CONTRL is not a setting and is ignored: did you mean HUBBUB_CONTROL?"
    )
    assert others == right[2].splitlines()


# ---- looking ---------------------------------------------------------------------------------------------


def test_connections_are_a_table_for_people(server: OutsideServer) -> None:
    with server.client() as one, server.client() as other:
        status, out, err = hubbub("connections", "--control", server.control)
        assert (status, err) == (0, "")
        header, *rows, total = out.splitlines()
        assert header.split()[:5] == ["fd", "worker", "client", "path", "topics"]
        assert {str(one.fd), str(other.fd)} <= {row.split()[0] for row in rows}
        assert re.search(r"127\.0\.0\.1:\d+ +/ +\d+ +\d+ s +\d+ s +(-|[\d.]+ ms) ", rows[0])
        assert total == f"{len(rows)} connections"


def test_connections_are_a_list_for_programs(server: OutsideServer) -> None:
    with server.client() as client:
        status, out, err = hubbub("connections", "--json", "--control", server.control)
        assert (status, err) == (0, "")
        info = next(info for info in json.loads(out) if info["fd"] == client.fd)
        assert info["client"][0] == "127.0.0.1"
        assert info["messages_out"] == 1


def test_topics_are_a_table_for_people(server: OutsideServer) -> None:
    with server.client("news", "room:1"), server.client("news"):
        status, out, err = hubbub("topics", "--control", server.control)
        assert (status, err) == (0, "")
        assert [line.split() for line in out.splitlines()] == [
            ["subscribers", "topic"],
            ["2", "news"],
            ["1", "room:1"],
            ["2", "topics"],
        ]
        one = hubbub("topics", "--prefix", "room:", "--control", server.control)[1]
        assert one.splitlines()[1:] == ["          1  room:1", "1 topic"]


def test_topics_are_a_dict_for_programs_page_by_page(server: OutsideServer) -> None:
    with server.client("a", "b", "c"):
        first = json.loads(hubbub("topics", "--limit", 2, "--json", "--control", server.control)[1])
        assert first == {"topics": {"a": 1, "b": 1}, "next": "b"}
        last = hubbub("topics", "--limit", 2, "--after", first["next"], "--json", "--control", server.control)[1]
        assert json.loads(last) == {"topics": {"c": 1}, "next": None}
        page = hubbub("topics", "--limit", 1, "--after", "a", "--control", server.control)[1]
        assert page.splitlines()[-1] == "1 topic; for the next ones add --after=b"


def test_a_topic_with_a_hostile_name_does_nothing_to_a_terminal(server: OutsideServer) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\nfake  1 topic\u202e"
    with server.client(urllib.parse.quote(hostile), "z"):
        status, out, err = hubbub("topics", "--limit", 1, "--control", server.control)
        assert (status, err) == (0, "")
        header, row, total = out.split("\n")[:-1]
        assert header == "subscribers  topic"
        assert row == r"          1  \x1b[2J\x1b]0;owned\x07\r\nfake  1 topic\u202e"
        assert total == "1 topic; for the next ones add --json, which also gives the argument for --after"
        page = json.loads(hubbub("topics", "--limit", 1, "--json", "--control", server.control)[1])
        assert page == {"topics": {hostile: 1}, "next": hostile}
        rest = hubbub("topics", "--after", page["next"], "--json", "--control", server.control)[1]
        assert json.loads(rest) == {"topics": {"z": 1}, "next": None}


def test_members_are_listed_page_by_page(server: OutsideServer) -> None:
    with server.client("news") as one, server.client("news") as other, server.client("sports"):
        fds = sorted([one.fd, other.fd])
        status, out, err = hubbub("members", "news", "--control", server.control)
        assert (status, err) == (0, "")
        assert [line.strip() for line in out.splitlines()] == ["fd", str(fds[0]), str(fds[1]), "2 members"]
        first = json.loads(hubbub("members", "news", "--limit", 1, "--json", "--control", server.control)[1])
        assert first == {"members": fds[:1], "next": fds[0]}
        out = hubbub("members", "news", "--limit", 1, "--control", server.control)[1]
        assert out.splitlines()[-1] == f"1 member; for the next ones add --after={fds[0]}"
        last = hubbub("members", "news", "--after", fds[0], "--json", "--control", server.control)[1]
        assert json.loads(last) == {"members": fds[1:], "next": None}
        assert hubbub("members", "nobody", "--control", server.control)[1].splitlines()[-1] == "0 members"
        for after in (2**63 - 1, 2**63, 2**64, 10**100):
            last = hubbub("members", "news", "--after", after, "--json", "--control", server.control)[1]
            assert json.loads(last) == {"members": [], "next": None}, after
        everybody = hubbub("members", "news", "--after", -(2**64), "--json", "--control", server.control)[1]
        assert json.loads(everybody) == {"members": fds, "next": None}


def test_history_is_a_table_for_people(server: OutsideServer) -> None:
    hostile = "\x1b[2J\r\nfake"
    for text in ("first", hostile):
        assert hubbub("publish", "kept:table", text, "--control", server.control) == (0, "", "")
    with Publisher(server.control) as hub:
        hub.publish("kept:table", bytes(range(50)))
    status, out, err = hubbub("history", "kept:table", "--control", server.control)
    assert (status, err) == (0, "")
    header, *rows, total = out.splitlines()
    assert header.split() == ["offset", "time", "message"]
    assert [row.split(maxsplit=3)[0] for row in rows] == ["1", "2", "3"]
    messages = [row.split(maxsplit=3)[3] for row in rows]
    assert messages == ["first", r"\x1b[2J\r\nfake", repr(bytes(range(40))) + "..."]
    assert all(re.fullmatch(r" *\d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  .*", row) for row in rows)
    assert total == "3 messages"
    newest = hubbub("history", "kept:table", "--newest-first", "--limit", 1, "--control", server.control)[1]
    assert newest.splitlines()[1].split()[0] == "3"
    assert newest.splitlines()[-1] == "1 message"
    assert hubbub("history", "news", "--control", server.control)[1].splitlines()[-1] == "0 messages"


def test_history_is_json_for_programs_page_by_page(server: OutsideServer) -> None:
    begin = time.time()
    with Publisher(server.control) as hub:
        for data in ("é", b"\x00\xff", {"a": 1}):
            hub.publish("kept:pages", data)
    first = json.loads(hubbub("history", "kept:pages", "--limit", 2, "--json", "--control", server.control)[1])
    epoch = first["position"][0]
    assert [message.pop("time") > begin - 1 for message in first["messages"]] == [True, True]
    assert first == {
        "messages": [{"offset": 1, "data": "é"}, {"offset": 2, "base64": "AP8="}],
        "position": [epoch, 3],
        "next": f"{epoch}:2",
    }
    out = hubbub("history", "kept:pages", "--limit", 2, "--control", server.control)[1]
    assert out.splitlines()[-1] == f"2 messages; for the next ones add --after={epoch}:2"
    last = hubbub("history", "kept:pages", "--after", first["next"], "--json", "--control", server.control)[1]
    assert [message["data"] for message in json.loads(last)["messages"]] == ['{"a":1}']
    assert json.loads(last)["next"] is None
    for after in ("another:2", f"{epoch}:{10**30}", ":1"):
        everything = hubbub("history", "kept:pages", "--after", after, "--json", "--control", server.control)[1]
        assert len(json.loads(everything)["messages"]) == 3, after


@pytest.mark.parametrize("after", ["", "5", "x:", "x:-1", "x:y", "x:١"])
def test_a_position_that_is_none_is_a_usage_error(server: OutsideServer, after: str) -> None:
    status, out, err = hubbub("history", "kept:x", "--after", after, "--control", server.control)
    assert (status, out) == (2, "")
    assert "--after must be EPOCH:OFFSET" in err


def test_a_message_may_have_a_key(server: OutsideServer) -> None:
    with server.client("news") as client:
        assert hubbub("publish", "news", "hello", "--key", "é", "--control", server.control) == (0, "", "")
        assert client.next() == "hello"
        status, out, err = hubbub("publish", "news", "hello", "--key", "x" * 256, "--control", server.control)
        assert (status, out) == (2, "")
        assert "key must have at most 255 bytes" in err


@pytest.mark.parametrize("number", [2**63, 2**64, 10**100, 0])
def test_a_number_that_no_connection_has_names_none(server: OutsideServer, number: int) -> None:
    with server.client():
        for command in (["push", number, "x"], ["disconnect", number]):
            status, _, err = hubbub(*command, "--control", server.control)
            assert (status, err.count("\n")) == (1, 1)
            assert f"there is no open connection {number}" in err


def test_all_hosts_are_one_without_a_broker(server: OutsideServer) -> None:
    with server.client("news") as client:
        for command in ("connections", "stats", "topics", ["members", "news"]):
            words = [command] if isinstance(command, str) else command
            plain = hubbub(*words, "--json", "--control", server.control)
            for asking in (["--all-hosts", *words], [*words, "--all-hosts"]):
                status, out, err = hubbub(*asking, "--json", "--control", server.control)
                assert (status, err) == (0, "")
                answer = json.loads(out)
                assert answer.pop("silent") == []
                one = json.loads(plain[1])
                if command == "connections":
                    assert [info["fd"] for info in answer["connections"]] == [client.fd]
                elif command == "stats":
                    assert [host["host"] for host in answer["hosts"]] == [0]
                    assert answer["accepted"] == one["accepted"]
                else:
                    assert answer == one
        status, out, err = hubbub("--all-hosts", "connections", "--control", server.control)
        assert (status, err) == (0, "")
        assert out.splitlines()[-1] == "1 connection"


def test_without_a_broker_there_are_no_hosts(server: OutsideServer) -> None:
    status, out, err = hubbub("hosts", "--control", server.control)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "none: the server has no broker, or has not joined yet"
    assert hubbub("hosts", "--json", "--control", server.control) == (0, "[]\n", "")


def test_a_command_that_cannot_ask_all_hosts_says_so(server: OutsideServer) -> None:
    status, out, err = hubbub("--all-hosts", "hosts", "--control", server.control)
    assert (status, out) == (2, "")
    assert "--all-hosts is for connections, members, stats, topics" in err


def test_stats_are_a_table_for_people(server: OutsideServer) -> None:
    status, out, err = hubbub("stats", "--control", server.control)
    assert (status, err) == (0, "")
    rows = {row[:20].strip(): row[20:].split() for row in out.splitlines()}
    assert rows[""] == ["all", "worker", "0", "worker", "1"]
    assert len(rows["connections"]) == 3
    assert "B" in rows["queued bytes"]


def test_stats_are_a_dict_for_programs(server: OutsideServer) -> None:
    status, out, err = hubbub("stats", "--json", "--control", server.control)
    assert (status, err) == (0, "")
    assert [worker["worker_id"] for worker in json.loads(out)["workers"]] == [0, 1]


# ---- which server ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["push", 1, "x"],
        ["publish", "t", "x"],
        ["broadcast", "x"],
        ["disconnect", 1],
        ["connections"],
        ["topics"],
        ["members", "t"],
        ["stats"],
    ],
)
def test_without_a_server_there_is_one_line(tmp_path: Path, command: list[object]) -> None:
    port = free_port()
    status, out, err = hubbub(*command, "--port", port, TMPDIR=str(tmp_path))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"hubbub: cannot reach .*/{port}\.sock: there is no such socket\n", err)


def test_variables_name_the_server_unless_options_do(server: OutsideServer, tmp_path: Path) -> None:
    assert hubbub("broadcast", "x", HUBBUB_CONTROL=server.control) == (0, "", "")
    assert "/1.sock" in hubbub("broadcast", "x", HUBBUB_PORT="1", TMPDIR=str(tmp_path))[2]
    assert "/9501.sock" in hubbub("broadcast", "x", HUBBUB_PORT="tcp://10.0.0.1:80", TMPDIR=str(tmp_path))[2]
    by_port = hubbub("broadcast", "x", "--port", 2, HUBBUB_CONTROL=server.control, TMPDIR=str(tmp_path))
    assert "/2.sock" in by_port[2]
    by_path = hubbub("broadcast", "x", "--control", tmp_path / "missing.sock", HUBBUB_CONTROL=server.control)
    assert "missing.sock" in by_path[2]
    assert "no control socket" in hubbub("broadcast", "x", HUBBUB_CONTROL="none")[2]


# ---- wrong calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["push", "one", "x"], "'one' is not a valid integer"),
        (["push", 1], "Missing argument 'TEXT'"),
        (["shout"], "No such command 'shout'"),
        (["stats", "--port", "high"], "port: 'high' (option --port) is not allowed"),
        (["stats", "--port", "1", "--control", "x"], "give --port or --control, not both"),
        (["disconnect", 1, "--code", 1005], "1005 may not be sent"),
        (["publish", "", "x"], "topic must have 1 to 255 bytes"),
        (["topics", "--limit", 0], "limit must be 1 or above, not 0"),
        (["topics", "--limit", "all"], "'all' is not a valid integer"),
        (["topics", "--prefix", "x" * 256], "prefix must have at most 255 bytes"),
        (["members"], "Missing argument 'TOPIC'"),
        (["members", ""], "topic must have 1 to 255 bytes"),
        (["members", "x", "--limit", -1], "limit must be 1 or above, not -1"),
        (["push", 1, os.fsdecode(b"\xff")], "TEXT is not UTF-8"),
        (["publish", "x", os.fsdecode(b"\xff")], "TEXT is not UTF-8"),
        (["broadcast", os.fsdecode(b'{"a":"\xff"}'), "--json-data"], "TEXT is not UTF-8"),
        (["broadcast", '{"a":"\\ud800"}', "--json-data"], "TEXT has a lone surrogate, which UTF-8 cannot express"),
        (["topics", "--after", os.fsdecode(b"\xff")], "after must be text that UTF-8 can express"),
        (["members", os.fsdecode(b"\xff")], "topic must be text that UTF-8 can express"),
        (["disconnect", 1, "--reason", os.fsdecode(b"\xff")], "reason must be text that UTF-8 can express"),
    ],
)
def test_a_wrong_call_has_status_2(server: OutsideServer, command: list[object], says: str) -> None:
    status, out, err = hubbub(*command, HUBBUB_CONTROL=server.control)
    assert (status, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_traceback(server: OutsideServer) -> None:
    with subprocess.Popen(
        [*HUBBUB, "stats", "--control", server.control], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def redirected(redirection: str, *arguments: object) -> tuple[int, str]:
    """Run the command with a redirection of the shell; return its exit status and errors."""
    command = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *HUBBUB, *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_an_answer_that_cannot_be_written_is_one_line(server: OutsideServer, redirection: str, reason: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("NOT TESTED: needs /dev/full")
    with server.client("news") as client:
        lists: list[list[object]] = [["connections"], ["topics"], ["stats"], ["members", "news"]]
        answers: list[list[object]] = [["push", client.fd, "x"], ["publish", "news", "x"], ["broadcast", "x"]]
        answers.append(["disconnect", client.fd])
        for command in [*lists, *([*command, "--json"] for command in lists + answers)]:
            found = redirected(redirection, *command, "--control", server.control)
            assert found == (1, f"hubbub: cannot write to standard output: {reason}\n"), command


@pytest.mark.parametrize(("redirection", "reason"), [("<&-", "it is closed"), ("0>/dev/null", "Bad file descriptor")])
def test_text_that_cannot_be_read_is_one_line(server: OutsideServer, redirection: str, reason: str) -> None:
    for command in (["push", 1, "-"], ["publish", "news", "-"], ["broadcast", "-", "--json-data"]):
        found = redirected(redirection, *command, "--control", server.control)
        assert found == (1, f"hubbub: cannot read standard input: {reason}\n")


def test_version_and_help_need_no_server() -> None:
    assert re.fullmatch(r"hubbub \d+\.\d+\.\d+\n", hubbub("--version")[1])
    status, out, _ = hubbub("--help")
    assert status == 0
    for command in ("run", "push", "publish", "broadcast", "disconnect", "connections", "topics", "members", "stats"):
        assert f"\n  {command} " in out
