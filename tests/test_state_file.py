from __future__ import annotations

import errno
import os
import stat
import zlib

import pytest
from examples import times
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.errors import HostError
from balloon_plugin.hosts import state_file
from balloon_plugin.hosts.state_file import StateFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "guest.state"


def kept(path):
    file = StateFile(path)
    file.close()
    return file.value


def keep(path, *values):
    file = StateFile(path)
    for value in values:
        file.keep(value)
    file.close()


def test_nothing_is_kept_at_first(path):
    assert kept(path) is None


def test_the_last_value_is_kept(path):
    keep(path, {"a": 1}, {"a": 2, "b": [1]}, {"b": [1]})

    assert kept(path) == {"b": [1]}


def test_what_was_kept_before_can_be_changed(path):
    keep(path, {"a": 1})
    keep(path, {"a": 1}, {"a": 2})
    keep(path, {"a": 3})

    assert kept(path) == {"a": 3}


def test_only_what_changed_is_written(path):
    large = "x" * 10_000
    keep(path, {"large": large, "small": 1}, {"large": large, "small": 2})

    assert path.stat().st_size < 10_200


def test_the_same_value_is_not_written_again(path):
    file = StateFile(path)
    file.keep({"a": 1})
    size = path.stat().st_size

    file.keep({"a": 1})

    assert path.stat().st_size == size
    file.close()


def test_the_file_does_not_grow_without_end(path, monkeypatch):
    monkeypatch.setattr(state_file, "_SLACK", 1000)
    file = StateFile(path)
    for number in range(1000):
        file.keep({"number": number})
        assert path.stat().st_size < 1100
    file.close()

    assert kept(path) == {"number": 999}


def test_the_file_is_its_users_alone(path):
    keep(path, {"a": 1})

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# --- killed at any moment -----------------------------------------------------------

LIVES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=3),
    min_size=1,
    max_size=6,
)


@times(0.3)
@given(values=LIVES)
def test_whatever_was_written_of_the_last_change_a_whole_value_is_left(
    tmp_path_factory, values
):
    path = tmp_path_factory.mktemp("kept") / "guest.state"
    file = StateFile(path)
    sizes = []
    for value in values:
        file.keep(value)
        sizes.append(path.stat().st_size)
    file.close()

    for size in reversed(range(sizes[0], sizes[-1] + 1)):
        os.truncate(path, size)
        whole = max(index for index, end in enumerate(sizes) if end <= size)
        assert state_file._read(path) == values[whole]


def test_a_new_file_that_was_never_finished_is_no_harm(path):
    keep(path, {"a": 1})
    path.with_name("guest.state.new").write_bytes(b"00000")

    keep(path, {"a": 2})

    assert kept(path) == {"a": 2}


# --- damage -------------------------------------------------------------------------


def test_every_damaged_byte_is_noticed(path):
    keep(path, {"a": 1}, {"a": 2})
    data = path.read_bytes()

    for at in range(len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(HostError, match="is damaged: remove it"):
            StateFile(path)


DEEP = b'{"a":' * 100_000 + b"0" + b"}" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        pytest.param(b"%08x %s\n" % (zlib.crc32(DEEP), DEEP), id="deep"),
        b"nonsense\n",
        state_file._line([1]),
        state_file._line({}) + state_file._line(1),
        state_file._line({}) + state_file._line([7]),
        state_file._line({}) + state_file._line([7]) + state_file._line([{}]),
        b"00000000 \n",
        b"\xff\n",
    ],
)
def test_what_is_no_state_is_refused(path, data):
    path.write_bytes(data)

    with pytest.raises(HostError, match=r"the state in .* is damaged: remove it"):
        StateFile(path)
    # Whoever removes it can go on.
    path.unlink()
    keep(path, {"a": 1})


def test_a_file_that_cannot_be_read_is_a_sentence(path):
    path.mkdir()

    with pytest.raises(HostError, match="cannot be read: Is a directory; mend that"):
        StateFile(path)


def test_a_folder_that_is_missing_is_a_sentence(path):
    with pytest.raises(HostError, match=r"cannot be kept: No such.* name a folder"):
        StateFile(path / "deeper")


def test_two_daemons_do_not_share_a_file(path):
    file = StateFile(path)

    with pytest.raises(HostError, match="is in use: stop that daemon"):
        StateFile(path)

    file.close()
    StateFile(path).close()


@pytest.mark.parametrize("written", [0, 5])
def test_without_room_the_value_before_stays(path, monkeypatch, written):
    file = StateFile(path)
    file.keep({"a": 1})
    write = os.write

    def full(fd, data):
        write(fd, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state_file.os, "write", full)
        with pytest.raises(HostError, match="No space left on device; make room"):
            file.keep({"a": 2})
    assert state_file._read(path) == {"a": 1}

    file.keep({"a": 3})
    file.close()
    assert kept(path) == {"a": 3}
