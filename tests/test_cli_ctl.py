"""``balloon-plugin ctl``: a device that is being served is talked to."""

from __future__ import annotations

import contextlib

import pytest
from command_line import RAM, Guest, until

# --- answered -----------------------------------------------------------------------


def test_the_target_is_changed_while_it_runs(serve, ctl):
    serve("--socket", "a", "--control", "c", "--policy", "none")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        answer = ctl("c", "balloon", "512K")

        assert answer == {"answer": "accepted", "reason": "", "requested": RAM // 2}
        assert ctl("c", "query")["advertised"] == RAM // 2
        assert ctl("c", "verdict")["state"] == "BELIEVED"


def test_a_target_that_waits_is_told(serve, ctl):
    served = serve("--socket", "a", "--control", "c", "--policy", "probe")
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        assert ctl("c", "balloon", "512K")["answer"] == "deferred"

    served.terminate()
    told = served.communicate()[0].splitlines()
    assert "a: target 128 is deferred (the driver is being tested; " in told[0]


def test_a_target_that_is_refused_is_an_error(serve, refused, ctl):
    served = serve(
        *("--socket", "a", "--control", "c", "--policy", "feature-bit:always=yes")
    )
    with contextlib.closing(Guest("a")):
        until(lambda: ctl("c", "query")["driver"])

        assert refused("ctl", "c", "balloon", "512K").startswith(
            "the target is refused: the driver did not accept VIRTIO_BALLOON_F_ENDIAN"
        )
    served.terminate()


# --- refused ------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_where_nobody_listens_nobody_answers(refused):
    assert refused("ctl", "missing", "query") == (
        "no device answers on missing (No such file or directory); "
        "give serve's --control path"
    )


def test_a_front_ends_socket_is_no_control_socket(serve, refused):
    served = serve("--socket", "a")

    sentence = refused("ctl", "a", "query")

    assert sentence.startswith("no device answers on a (")
    assert sentence.endswith("); give serve's --control path")
    assert served.poll() is None
