from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import threading
import time
from contextlib import closing

import pytest
from fakes import OPEN, RAM_PAGES, REFUSING, SHUT, ScriptedPolicy, follow, rig
from hypothesis import given
from hypothesis import strategies as st
from qemu.qmp import ExecuteError, QMPClient
from vhost_user_front_end import open_fds

from balloon_plugin import control
from balloon_plugin.control import MAX_MESSAGE, ControlServer, Frames, Monitor, ask
from balloon_plugin.errors import HostError
from balloon_plugin.events import Answer, Defect, Evidence, Gate, Judgement, Verdict

RAM = RAM_PAGES * 4096
READY = b'{"execute": "qmp_capabilities"}\n'


def monitor_of(device, *, ready=True):
    monitor = Monitor(lambda function: function(device))
    if ready:
        monitor.receive(READY)
    return monitor


def say(monitor, command, **arguments):
    """Return the answer to one command, without what it is wrapped in."""
    line = json.dumps({"execute": command, "arguments": arguments}).encode()
    answer = json.loads(monitor.receive(line + b"\n"))
    return answer["return"] if "return" in answer else answer["error"]


# --- messages -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        (b'{"a": 1}{"b": 2}', [b'{"a": 1}', b'{"b": 2}']),
        (b'{"a": 1}\r\n{"b": 2}\n', [b'{"a": 1}', b"\r\n", b'{"b": 2}', b"\n"]),
        (b'{"a":\n [{}, {"b": []}]\n}', [b'{"a":\n [{}, {"b": []}]\n}']),
        (rb'{"}": "\"}\\"}{', [rb'{"}": "\"}\\"}']),
        (b"balloon 1\n[]", [b"balloon 1\n", b"[]"]),
        (b"}]{}", [b"}", b"]", b"{}"]),
        (b'{"open\n{}', [b'{"open\n', b"{}"]),
        (b'{"open\\\n{}', [b'{"open\\\n', b"{}"]),
        (b'{"a": 1', []),
        (b"1 2 3", []),
    ],
)
def test_messages_are_cut_by_their_brackets(sent, messages):
    assert list(Frames().feed(sent)) == messages


@given(st.binary(), st.integers(0, 20))
def test_nothing_is_lost_wherever_it_is_cut(sent, size):
    frames, cut = Frames(), Frames()
    whole = [*frames.feed(sent), frames.take()]

    parts = [*cut.feed(sent[:size]), *cut.feed(sent[size:]), cut.take()]

    assert parts == whole
    assert b"".join(whole) == sent
    assert len(frames) == 0


TEXT = st.text('a"\\\n{}[]', max_size=6)
OBJECTS = st.recursive(
    st.dictionaries(TEXT, st.none() | TEXT, max_size=2),
    lambda inner: st.dictionaries(TEXT, inner | st.lists(inner), max_size=2),
    max_leaves=3,
)


@given(st.lists(OBJECTS, max_size=3))
def test_objects_are_cut_apart_without_anything_between(values):
    sent = "".join(json.dumps(value) for value in values).encode()

    assert [json.loads(part) for part in Frames().feed(sent)] == values


# --- a conversation -----------------------------------------------------------------


def test_the_greeting_is_that_of_qmp():
    greeting = json.loads(Monitor.greeting())

    assert greeting["QMP"]["capabilities"] == []


def test_nothing_is_done_before_the_capabilities_are_settled():
    made = rig(ScriptedPolicy(follow))
    monitor = monitor_of(made.device, ready=False)

    assert say(monitor, "balloon", value=0) == {
        "class": "CommandNotFound",
        "desc": "send qmp_capabilities first",
    }
    assert made.device.query().requested == 0


def test_an_answer_has_the_id_of_its_command():
    monitor = monitor_of(rig().device)

    for line in (
        b'{"execute": "query-commands", "id": [1, {"a": null}]}\n',
        b'{"execute": "bogus", "id": [1, {"a": null}]}\n',
    ):
        assert json.loads(monitor.receive(line))["id"] == [1, {"a": None}]


def test_an_empty_line_has_no_answer():
    assert Monitor(lambda _: None).receive(b" \r\n") == b""


DEEP = b"[" * 20000 + b"]" * 20000
NEARLY_TOO_DEEP = b'{"execute": "query-commands", "id": ' + b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("line", "desc"),
    [
        (b"balloon 1\n", "this is not JSON"),
        (b'{"execute": "balloon"\n', "this is not JSON"),
        (b"\xff\xfe\n", "this is not JSON"),
        (DEEP + b"\n", "this is not JSON"),
        (b"9" * 5000 + b"\n", "this is not JSON"),
        (b"[]\n", "a command is a JSON object"),
        (b"null\n", "a command is a JSON object"),
        (b"{}\n", "there is no command None; query-commands lists them"),
        (b'{"execute": []}\n', "there is no command []; query-commands lists them"),
        (b'{"execute": "x"}\n', "there is no command 'x'; query-commands lists them"),
        (b'{"execute": "balloon", "arguments": 1}\n', "'arguments' must be an object"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(line, desc):
    monitor = monitor_of(rig().device)

    answer = json.loads(monitor.receive(line))

    assert answer["error"]["desc"] == desc
    assert "actual" not in say(monitor, "query-balloon-verdict")


def test_an_id_may_be_as_deep_as_it_can_be_read():
    monitor = monitor_of(rig().device)

    answer = json.loads(monitor.receive(NEARLY_TOO_DEEP + b"}\n"))

    assert ("return" in answer) != ("error" in answer)


# --- commands -----------------------------------------------------------------------


def test_balloon_says_what_the_guest_keeps():
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=RAM - 16 * 4096)

    assert answer == {"answer": "accepted", "reason": "", "requested": 16}
    assert made.target() == 16


def test_a_part_of_a_page_is_not_the_guests():
    made = rig(ScriptedPolicy(follow))

    say(monitor_of(made.device), "balloon", value=RAM - 1)

    assert made.target() == 1


def test_a_guest_cannot_keep_more_than_it_has():
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=10**30)

    assert answer["requested"] == 0


def test_a_target_that_waits_is_said_to_wait():
    answer = say(monitor_of(rig(ScriptedPolicy(SHUT)).device), "balloon", value=0)

    assert answer == {"answer": "deferred", "reason": "wait", "requested": RAM_PAGES}


def test_a_target_that_is_refused_is_an_error():
    answer = say(monitor_of(rig(ScriptedPolicy(REFUSING)).device), "balloon", value=0)

    assert answer == {"class": "GenericError", "desc": "the target is refused: never"}


@pytest.mark.parametrize("value", [None, -1, 1.5, "1G", True, [1]])
def test_a_value_is_a_number_of_bytes(value):
    made = rig(ScriptedPolicy(follow))

    answer = say(monitor_of(made.device), "balloon", value=value)

    assert answer["desc"] == "'value' must be the guest's memory in bytes, 0 or more"
    assert made.device.query().requested == 0


def test_before_a_front_end_nobody_knows_what_the_guest_could_keep():
    made = rig(ScriptedPolicy(follow))
    made.device.set_target(7)
    made.host.plug(())
    made.device.guest_changed()

    answer = say(monitor_of(made.device), "balloon", value=4096)

    assert answer["class"] == "DeviceNotActive"
    assert "not known before a front end connects" in answer["desc"]
    assert made.device.query().requested == 7


def test_query_balloon_shows_what_the_guest_has():
    made = rig(ScriptedPolicy(OPEN))
    made.write_actual(16)

    answer = say(monitor_of(made.device), "query-balloon")

    assert answer == {"actual": RAM - 16 * 4096}


def test_the_pages_of_a_test_are_not_shown_as_ballooned():
    made = rig(ScriptedPolicy(SHUT))
    made.write_actual(16)

    answer = say(monitor_of(made.device), "query-balloon")

    assert answer == {"actual": RAM}


def test_without_a_driver_there_is_no_balloon_to_query():
    answer = say(monitor_of(rig().device), "query-balloon")

    assert answer["class"] == "DeviceNotActive"


def test_the_status_is_whole():
    made = rig(ScriptedPolicy(Gate(16, reclaim=True, targets=Answer.ACCEPTED)))
    made.inflate(1, 2, 3)

    answer = say(monitor_of(made.device), "query-balloon-status")

    assert answer.keys() == {*type(made.device.query()).__slots__}
    assert (answer["advertised"], answer["reclaimed"]) == (16, 3)
    assert answer["gate"]["targets"] == "accepted"
    assert answer["verdict"]["judgement"] == "good"


def test_the_verdict_comes_with_its_evidence():
    policy = ScriptedPolicy()
    policy.verdict = Verdict(
        Judgement.BUGGY,
        "BUGGY",
        (Defect.PFN_WIDTH,),
        (Evidence("actual = 256", "It took more."),),
    )

    answer = say(monitor_of(rig(policy).device), "query-balloon-verdict")

    assert answer == {
        "judgement": "buggy",
        "state": "BUGGY",
        "defects": ["PFN_WIDTH"],
        "evidence": [{"event": "actual = 256", "shows": "It took more."}],
    }


def test_every_command_is_listed():
    answer = say(monitor_of(rig().device), "query-commands")

    assert {"name": "balloon"} in answer
    assert len(answer) == len(control._COMMANDS)


def test_a_command_that_fails_is_answered_and_logged(caplog):
    class Failing:
        def query(self):
            raise KeyError("lost")

    answer = say(monitor_of(Failing()), "query-balloon-status")

    assert answer["desc"] == "it failed: KeyError: 'lost'"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_what_the_device_cannot_do_is_answered():
    made = rig()
    made.device.unrealize()

    answer = say(monitor_of(made.device), "query-balloon-status")

    assert answer["desc"].startswith("the device has no host")


# --- the socket ---------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def served(path):
    """A device that is served; calls of it take turns, as in a daemon."""
    made = rig(ScriptedPolicy(follow))
    turns = threading.Lock()

    def run(function):
        with turns:
            return function(made.device)

    with ControlServer(path, run):
        yield made


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(os.fspath(path))
        self._stream = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def hear(self):
        """Return the next message, ``None`` if nobody is there any more."""
        try:
            line = self._stream.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    def close(self):
        self._stream.close()
        self.socket.close()


@pytest.mark.usefixtures("served")
def test_the_socket_is_its_users_alone(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_left_at_the_end(path):
    fds, threads = open_fds(), threading.active_count()
    made = rig()

    with ControlServer(path, lambda function: function(made.device)):
        client = Client(path)
        client.hear()

    assert not path.exists()
    assert client.hear() is None
    client.close()
    assert (open_fds(), threading.active_count()) == (fds, threads)


def test_a_client_that_reads_nothing_does_not_keep_the_end_away(path):
    made = rig()

    with ControlServer(path, lambda function: function(made.device)):
        client = Client(path)
        client.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(b'{"execute": "query-commands"}\n' * 1000)
        time.sleep(0.1)  # now its thread is writing, most likely

    client.close()
    assert not path.exists()


def test_a_control_socket_that_is_alive_is_not_taken_over(served, path):
    with pytest.raises(HostError, match=r"somebody listens on .* already"):
        ControlServer(path, lambda function: function(served.device))

    assert ask(path, "query-commands")


def test_one_that_a_dead_daemon_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))

    with ControlServer(path, lambda function: function(rig().device)):
        assert ask(path, "query-commands")


def test_one_that_cannot_be_made_is_a_sentence(tmp_path):
    with pytest.raises(HostError, match=r"cannot be made: .*; choose another path"):
        ControlServer(tmp_path / "missing/control.sock", print)


@pytest.mark.usefixtures("served")
def test_messages_may_come_in_pieces_and_several_at_once(path):
    with closing(Client(path)) as client:
        client.send(READY[:10])
        client.send(READY[10:] + b'{"execute": "query-commands"}\r\n\n{"exec')
        client.send(b'ute": "bogus"}')

        assert "QMP" in client.hear()
        assert client.hear() == {"return": {}}
        assert "return" in client.hear()
        assert client.hear()["error"]["class"] == "CommandNotFound"


@pytest.mark.usefixtures("served")
def test_a_message_that_breaks_off_is_answered(path):
    with closing(Client(path)) as client:
        client.send(READY[:-3])
        client.socket.shutdown(socket.SHUT_WR)

        assert "QMP" in client.hear()
        assert client.hear()["error"]["desc"] == "this is not JSON"
        assert client.hear() is None


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("endless", [b"x", b"[", b'"'])
def test_a_message_without_end_is_cut_off_with_a_sentence(path, endless):
    with closing(Client(path)) as client:
        client.send(endless * MAX_MESSAGE)

        client.hear()
        assert client.hear()["error"]["desc"] == "a command has fewer than 65536 bytes"
        assert client.hear() is None
    assert ask(path, "query-commands")


@pytest.mark.usefixtures("served")
def test_the_longest_message_is_heard(path):
    with closing(Client(path)) as client:
        client.send(READY[:-2].ljust(MAX_MESSAGE - 1) + b"}")

        client.hear()
        assert client.hear() == {"return": {}}


def test_clients_that_hang_up_are_forgotten(path, capfd):
    made = rig()
    with ControlServer(path, lambda function: function(made.device)) as server:
        for _ in range(20):
            client = Client(path)
            client.send(b'{"execute": "query-commands"}\n' * 50)
            client.close()
        end = time.monotonic() + 10
        while server._clients and time.monotonic() < end:
            time.sleep(0.01)

        assert server._clients == {}
    assert capfd.readouterr() == ("", "")


def test_several_clients_are_served_at_once(served, path):
    clients = [Client(path) for _ in range(5)]
    for client in clients:
        client.send(READY)
    for number, client in reversed(list(enumerate(clients))):
        client.send(b'{"execute": "balloon", "arguments": {"value": %d}}\n' % number)

        assert "QMP" in client.hear()
        assert client.hear() == {"return": {}}
        assert client.hear()["return"]["answer"] == "accepted"
    for client in clients:
        client.close()

    assert served.target() == RAM_PAGES


def test_a_client_that_is_settled_settles_nothing_for_another(served, path):
    with closing(Client(path)) as one, closing(Client(path)) as other:
        one.send(READY)
        other.send(b'{"execute": "query-commands"}\n')
        other.hear()

        assert other.hear()["error"]["desc"] == "send qmp_capabilities first"
    assert served.policy.requests


def test_it_recovers_when_nobody_could_be_let_in(served, path, monkeypatch):
    monkeypatch.setattr(control, "_REST", 0.01)

    class Full:
        """The listening socket of a process that has no descriptors left, once."""

        def __init__(self, real):
            self._real = real
            self.accepts = 0

        def __getattr__(self, name):
            return getattr(self._real, name)

        def accept(self):
            self.accepts += 1
            if self.accepts == 1:
                raise OSError(24, "Too many open files")
            return self._real.accept()

    other = path.with_name("other.sock")
    server = ControlServer(other, lambda function: function(served.device))
    full = server._file.socket = Full(server._file.socket)
    with server:
        assert ask(other, "query-commands")

    assert full.accepts >= 2


# --- the other end ------------------------------------------------------------------


def test_a_question_is_answered(served, path):
    answer = ask(path, "balloon", {"value": RAM - 4096})

    assert answer["answer"] == "accepted"
    assert served.target() == 1


@pytest.mark.usefixtures("served")
def test_an_error_is_raised_with_its_words(path):
    with pytest.raises(HostError, match=r"^'value' must be the guest's memory"):
        ask(path, "balloon", {"value": "much"})


def answered_with(path, data):
    """Let somebody listen who is no device; return the sentence about that."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def serve():
            peer, _ = listener.accept()
            with peer:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HostError) as caught:
            ask(path, "query-commands")
        thread.join()
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"220 mail ready\r\n", b'{"QMP": {}}\n{"return": {}}\n', b"[]\n1\n2\n"],
)
def test_somebody_who_speaks_no_qmp_is_no_device(path, data):
    assert answered_with(path, data) == (
        f"no device answers on {path} (what listens there is no control socket); "
        "give serve's --control path"
    )


def test_somebody_who_says_nothing_is_not_waited_for_long(path, monkeypatch):
    monkeypatch.setattr(control, "_PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        with pytest.raises(HostError, match=r"no device answers .*timed out"):
            ask(path, "query-commands")


def test_nobody_listens(path):
    with pytest.raises(HostError, match=r"\(No such file or directory\); give serve's"):
        ask(path, "query-commands")


# --- the client that QEMU's own people use ------------------------------------------


def test_the_qmp_client_of_qemu_is_understood(served, path):
    async def talk():
        client = QMPClient("test")
        await client.connect(os.fspath(path))
        try:
            await client.execute("balloon", {"value": RAM - 16 * 4096})
            served.write_actual(16)
            with pytest.raises(ExecuteError, match="there is no command 'stop'"):
                await client.execute("stop")
            return await client.execute("query-balloon")
        finally:
            await client.disconnect()

    answer = asyncio.run(talk())

    assert answer == {"actual": RAM - 16 * 4096}
    assert served.target() == 16
