"""Programs of calls, of what happens to the work of tasks, and of stops and crashes, for ``tests.proof.model``.

A program names its tasks, so that a step that is left out does not change what the others are about: hypothesis
makes it shorter where it goes wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs
from hypothesis import strategies as st

from taskd.states import State


@attrs.frozen
class Call:
    """``who`` calls ``verb`` on the task that the program calls ``name``."""

    verb: str
    who: str
    name: str
    args: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Happens:
    """Not called: how the work of a task ends, and whether it can be undone."""

    what: str
    name: str


@attrs.frozen
class Prune:
    keep: int


@attrs.frozen
class Cut:
    """The daemon stops, or it crashes, ``after`` so many steps of trio; meanwhile, a step."""

    crash: bool
    after: int = 0
    step: Call | Happens | None = None


Step: TypeAlias = Call | Happens | Prune | Cut

NAMES: Final = st.sampled_from("aaabbbcccd")
WORDS: Final = st.sampled_from(["", "x", "y z", "ä"])
WHO: Final = st.sampled_from(["root", "root", "root", "root", "ann", "bob", "agent"])


def _call(verb: str, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[Call]:
    return st.builds(Call, st.just(verb), WHO, NAMES, st.fixed_dictionaries({}, optional=args))


def _start(operation: st.SearchStrategy[str]) -> st.SearchStrategy[Call]:
    asked = {"operation": operation, "owner": st.sampled_from(["root", "ann", "bob"]), "label": WORDS}
    more = {"request_id": st.sampled_from("rs"), "destroy_on_finish": st.sampled_from([False, False, False, True])}
    return st.builds(Call, st.just("start"), WHO, NAMES, st.fixed_dictionaries(asked, optional=more))


CALLS: Final = st.one_of(
    _start(st.just("external")),
    _start(st.sampled_from(["errand", "chore"])),
    _call("get"),
    _call("wait", changed=st.booleans()),
    _call("cancel", must=st.booleans()),
    _call("update", done=st.integers(0, 9), label=WORDS, status=WORDS, log=st.lists(WORDS, max_size=4)),
    st.builds(Call, st.just("complete"), WHO, NAMES, st.fixed_dictionaries({"result": st.integers(0, 9)})),
    st.builds(Call, st.just("fail"), WHO, NAMES, st.fixed_dictionaries({"code": st.sampled_from(["X", "Y"])})),
    _call("call_off"),
    st.builds(
        Call,
        st.just("annotate"),
        WHO,
        NAMES,
        st.fixed_dictionaries({"notes": st.dictionaries(WORDS, WORDS, max_size=2)}),
    ),
    _call("log", start=st.integers(0, 3), limit=st.integers(1, 3)),
    _call("destroy", force=st.booleans()),
    _call("destroy_when_ended"),
    _call("recover"),
    _call(
        "list",
        states=st.lists(st.sampled_from([*State]), max_size=3),
        operations=st.lists(st.sampled_from(["external", "errand", "chore"]), max_size=2),
        owner=st.sampled_from(["root", "ann", "bob"]),
        label=WORDS,
        since=st.booleans(),
        order=st.sampled_from(["newest", "oldest"]),
        page_size=st.integers(1, 3),
    ),
)
HAPPENS: Final = st.builds(Happens, st.sampled_from(["go", "give_out", "stick", "loosen"]), NAMES)
WORK: Final = _start(st.sampled_from(["errand", "chore", "external"]))
CUTS: Final = st.builds(Cut, st.booleans(), st.integers(0, 60), st.one_of(st.none(), CALLS, WORK, HAPPENS))
STEPS: Final = st.one_of(WORK, CALLS, CALLS, CALLS, HAPPENS, HAPPENS, CUTS, st.builds(Prune, st.integers(0, 2)))


def _about(name: str) -> st.SearchStrategy[list[Step]]:
    """What an admin does with one task, mostly such that it owes something, or is stopped in what it does."""
    verbs = ["cancel", "recover", "recover", "recover", "destroy", "destroy_when_ended", "complete", "update"]
    said: dict[str, dict[str, Any]] = {"complete": {"result": 1}}
    calls: list[Step] = [Call(verb, "root", name, said.get(verb, {})) for verb in verbs]
    for operation in ("errand", "errand", "chore", "external"):
        calls.append(Call("start", "root", name, {"operation": operation, "owner": "ann", "label": ""}))
    calls += [Call("destroy", "root", name, {"force": True}), Call("cancel", "root", name, {"must": True})]
    happens: list[Step] = [Happens(what, name) for what in ("stick", "stick", "go", "go", "give_out", "loosen")]
    moved = st.sampled_from([*calls, *happens])
    cuts: st.SearchStrategy[Step] = st.builds(Cut, st.booleans(), st.integers(0, 60), st.one_of(st.none(), moved))
    return st.lists(st.one_of(moved, moved, moved, cuts), max_size=10)


# Something to be about comes first: an admin's tasks a, b and c.
PROGRAMS: Final = st.builds(
    lambda works, steps: [
        *(attrs.evolve(work, who="root", name=name) for work, name in zip(works, "abc", strict=False)),
        *(step for some in steps for step in some),
    ],
    st.lists(WORK, min_size=2, max_size=3),
    # Lists of lists, because hypothesis makes short ones mostly.
    st.lists(st.one_of(st.lists(STEPS, max_size=10), *map(_about, "abc")), max_size=8),
)
