"""What does not fit is refused in a sentence, however much of it there is."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest

from taskd import codec
from taskd.errors import BadParams
from taskd.model import JSON


@attrs.frozen
class Params:
    names: tuple[str, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict)
    sizes: Mapping[str, tuple[int, ...]] = attrs.field(factory=dict)


MANY = 1000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"names": list(range(MANY))}, "params.names[0]: expected a string, got 0"),
        ({"names": ["a", 1]}, "params.names[1]: expected a string, got 1"),
        ({"env": {str(n): n for n in range(MANY)}}, "params.env['0']: expected a string, got 0"),
        ({"env": {"a": "a", "b": 1}}, "params.env['b']: expected a string, got 1"),
        ({"sizes": {"a": [1, "x"]}}, "params.sizes['a'][1]: expected an integer, got \"x\""),
        ({"sizes": []}, "params.sizes: expected an object, got []"),
        ({"env": {"k" * MANY: 1}}, f"params.env['{'k' * 57}...']: expected a string, got 1"),
        ({"env": {"a": "x"}, "b": 1, "a": 1}, "params: unknown field 'a', 'b'"),
        ({f"{n:03}": n for n in range(MANY)}, "params: unknown field '000', '001', '002' and 997 more"),
        ({"k" * MANY: 1}, f"params: unknown field '{'k' * 57}...'"),
        ({"names": "k" * MANY}, f'params.names: expected a list, got "{"k" * 56}...'),
    ],
)
def test_a_refusal_names_the_first_fault_of_many(value: JSON, said: str) -> None:
    with pytest.raises(BadParams) as refused:
        codec.structure(value, Params)
    assert str(refused.value) == said


def test_what_fits_is_as_it_was_sent() -> None:
    fits: JSON = {"names": ["a", "b"], "env": {"a": "b"}, "sizes": {"c": [1, 2]}}
    assert codec.structure(fits, Params) == Params(("a", "b"), {"a": "b"}, {"c": (1, 2)})
