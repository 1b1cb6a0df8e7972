"""One client's conversation: what is answered to what, before any command is run."""

from __future__ import annotations

import json

import pytest
from control_kit import monitor_of, say
from examples import times
from fakes import ScriptedPolicy, follow, rig
from hypothesis import given
from hypothesis import strategies as st

from balloon_plugin.control.commands import COMMANDS


def test_the_greeting_is_that_of_qmp():
    greeting = json.loads(monitor_of().greeting())

    assert greeting == {
        "QMP": {
            "version": {
                "qemu": {"major": 1, "minor": 2, "micro": 3},
                "package": "balloon_plugin",
            },
            "capabilities": [],
        }
    }


def test_nothing_is_done_before_the_capabilities_are_settled():
    made = rig(ScriptedPolicy(follow))
    monitor = monitor_of(made.device, ready=False)

    assert say(monitor, "balloon", value=1) == {
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
    assert monitor_of().receive(b" \r\n") == b""


@pytest.mark.parametrize("arguments", [{}, {"enable": []}])
def test_capabilities_are_settled_once(arguments):
    monitor = monitor_of(ready=False)

    assert say(monitor, "qmp_capabilities", **arguments) == {}
    assert say(monitor, "qmp_capabilities") == {
        "class": "CommandNotFound",
        "desc": "the capabilities are settled",
    }


def test_a_capability_that_is_not_on_offer_settles_nothing():
    monitor = monitor_of(ready=False)

    answer = say(monitor, "qmp_capabilities", enable=["oob"])

    assert answer["desc"] == "no capability is on offer: leave out 'enable'"
    assert not monitor.ready


def test_a_message_that_has_no_end_has_an_answer():
    answer = json.loads(monitor_of().too_long())

    assert answer["error"]["desc"] == "a command has fewer than 65536 bytes"


DEPTHS = [900, 20_000, 200_000]
"""How deep values nest: Python 3.14 reads what no other does, and not the last."""


@pytest.mark.parametrize(
    ("line", "desc"),
    [
        (b"balloon 1\n", "this is not JSON"),
        (b'{"execute": "balloon"\n', "this is not JSON"),
        (b"\xff\xfe\n", "this is not JSON"),
        (b"9" * 5000 + b"\n", "this is not JSON"),
        (b"[]\n", "a command is a JSON object"),
        (b"null\n", "a command is a JSON object"),
        (b"{}\n", "there is no command None; query-commands lists them"),
        (b'{"execute": []}\n', "there is no command []; query-commands lists them"),
        (b'{"execute": "x"}\n', "there is no command 'x'; query-commands lists them"),
        (b'{"execute": "balloon", "arguments": 1}\n', "'arguments' must be an object"),
        (b'{"execute": "x", "exec": 1}\n', "'exec' is no member of a command"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(line, desc):
    monitor = monitor_of(rig().device)

    answer = json.loads(monitor.receive(line))

    assert answer["error"]["desc"] == desc
    assert "actual" not in say(monitor, "query-balloon-verdict")


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_is_nonsense(depth):
    monitor = monitor_of(rig().device)

    answer = json.loads(monitor.receive(b"[" * depth + b"]" * depth + b"\n"))

    assert answer["error"]["desc"] in ("this is not JSON", "a command is a JSON object")


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_id_may_be_as_deep_as_it_can_be_read(depth):
    monitor = monitor_of(rig().device)
    deep = b"[" * depth + b"]" * depth

    answer = monitor.receive(b'{"execute": "query-commands", "id": ' + deep + b"}\n")

    assert (b'"return"' in answer) != (b'"error"' in answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just("a") | st.just(""),
    lambda inner: st.lists(inner) | st.dictionaries(st.just("x"), inner),
    max_leaves=3,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["id", "value", "path", "property", "reason", "policy"])
    | st.just("x"),
    JSON | st.sampled_from(["a", "b", "/machine/peripheral/a", "guest-stats"]),
)
REQUESTS = st.fixed_dictionaries(
    {"execute": st.sampled_from([*COMMANDS, "qmp_capabilities"]) | JSON},
    optional={"arguments": ARGUMENTS | JSON, "id": JSON},
)


@times(0.4)  # a busy machine is no failure
@given(st.lists(REQUESTS.map(json.dumps).map(str.encode) | st.binary()))
def test_whatever_is_said_has_one_answer_or_none(messages):
    monitor = monitor_of(rig(ScriptedPolicy(follow)).device, rig().device)

    for message in messages:
        answer = monitor.receive(message)

        assert not message.strip() or {"return", "error"} & json.loads(answer).keys()
    assert "qemu" in say(monitor, "query-version")
