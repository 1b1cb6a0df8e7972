from __future__ import annotations

import os
import socket
import stat
from contextlib import closing

import pytest
from vhost_user_front_end import open_fds

from balloon_plugin.errors import HostError
from balloon_plugin.hosts.sockets import SocketFile, why_nobody_is_on


@pytest.fixture
def path(tmp_path):
    return tmp_path / "balloon.sock"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.usefixtures("open_umask")
def test_it_is_its_users_alone(path):
    with closing(SocketFile(path)):
        mode = path.stat().st_mode

        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600


def test_it_is_gone_at_the_end(path):
    before = open_fds()

    with closing(SocketFile(path)):
        connect(path)

    assert not path.exists()
    assert open_fds() == before


def test_nobody_waits_for_who_does_not_come(path):
    with closing(SocketFile(path)) as file, pytest.raises(BlockingIOError):
        file.socket.accept()


def test_one_that_another_put_there_is_left_alone(path):
    with closing(SocketFile(path)), socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))

    assert path.exists()


def test_one_that_is_gone_already_is_no_harm(path):
    with closing(SocketFile(path)):
        path.unlink()


def test_one_that_nobody_listens_on_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with closing(SocketFile(path)):
        connect(path)


def test_one_that_is_alive_is_not_taken_over(path):
    with closing(SocketFile(path)):
        with pytest.raises(HostError, match=r"listens on .* already: stop that daemon"):
            SocketFile(path)

        connect(path)


def test_one_with_a_full_queue_is_alive(path):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].settimeout(0)
            waiting[-1].connect_ex(str(path))

        with pytest.raises(HostError, match="somebody listens"):
            SocketFile(path)
        for each in waiting:
            each.close()


def test_a_file_is_not_replaced(path):
    path.write_text("precious")

    with pytest.raises(HostError, match="exists and is no socket: remove it or choose"):
        SocketFile(path)

    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/balloon.sock", "No such file or directory"), ("x" * 110, "too long")],
)
def test_one_that_cannot_be_made_is_a_sentence(tmp_path, name, reason):
    before = open_fds()

    with pytest.raises(HostError, match=f"cannot be made: .*{reason}; choose another"):
        SocketFile(tmp_path / name)

    assert open_fds() == before


# --- who is there -------------------------------------------------------------------


def test_who_listens_is_seen_and_does_not_notice(path):
    with closing(SocketFile(path)) as file:
        assert why_nobody_is_on(path) == ""

        with pytest.raises(BlockingIOError):
            file.socket.accept()


def test_why_nobody_is_there_is_told(path):
    assert why_nobody_is_on(path) == "No such file or directory"
    assert why_nobody_is_on(path.with_name("x" * 108)) == "AF_UNIX path too long"

    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    assert why_nobody_is_on(path) == "Connection refused"
    assert why_nobody_is_on(path / "balloon.sock") == "Not a directory"


def test_a_socket_of_another_kind_is_nobody(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))

        assert why_nobody_is_on(path) == "Protocol wrong type for socket"
