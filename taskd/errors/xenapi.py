"""The one error of the XenAPI dialect: a code of XenAPI's and its parameters, as its clients match on them.

The codes and what each carries are those of xapi-project/xen-api, ocaml/idl/datamodel_errors.ml. They are the
dialect's words: nothing below it raises one.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from taskd.errors.family import Refusal


@attrs.define(auto_exc=True)
class XenApiError(Refusal):
    """``[code, params…]`` in XML-RPC and JSON-RPC 1.0; in 2.0 the code is the message, the params the data.

    (xen-api, doc/content/xen-api/wire-protocol.md.)
    """

    number: ClassVar[int] = 1
    code: str
    params: tuple[str, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]  # one class stands for all of XenAPI's codes
        return self.code

    @property
    def data(self) -> tuple[str, ...]:
        return self.params

    def __str__(self) -> str:
        return f"{self.code}({', '.join(self.params)})"
