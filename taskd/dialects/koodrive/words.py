"""The codes of KooDrive and their sentences, in the two languages that it has; and which error has which code.

The codes are the vendor's (its error codes page, koodrive_05_0026.html; each of the 1300xxxx is HTTP status 400
there, and the API pages know 400, 401 and 500). What its gateway refuses has a code of the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from taskd.errors import BadParams, DoesNotExist, TaskdError, WireError


@attrs.frozen
class Code:
    """A code on the wire, the status of HTTP that carries it, and its sentence."""

    text: str
    status: int
    english: str
    chinese: str

    def said(self, language: str) -> str:
        return self.chinese if chinese(language) else self.english


SUCCESS: Final = Code("0", 200, "Success.", "成功")
BAD_REQUEST: Final = Code("13000101", 400, "Bad request", "请求错误")
PARAMETER_INVALID: Final = Code("13000102", 400, "Parameter verification failed", "参数校验失败")
INNER_INVOKE_FAILURE: Final = Code("13000201", 500, "Internal call failed", "内部调用失败")
NOT_FOUND: Final = Code("13000309", 400, "The task does not exist", "任务不存在")
UNAUTHORIZED: Final = Code("APIGW.0301", 401, "Not authorized", "未授权")

# What can be wrong with a parameter; the names of parameters are the same in both languages.
INTEGER: Final = "must be an integer"
POSITIVE: Final = "must not be negative"
LONG: Final = f"must be at most {2**63 - 1}"
STATUS: Final = "must be 0, 1, 2 or 3"
ONCE: Final = "must be given once only"
TYPE: Final = "must be 0 or 1"
TEXT: Final = "must be a string of 1 to 255 characters"
REQUIRED: Final = "is required for this taskType"
EMPTY: Final = "the body is empty"
OBJECT: Final = "the body must be a JSON object"

CHINESE: Final[Mapping[str, str]] = {
    INTEGER: "必须是整数",
    POSITIVE: "不能为负数",
    LONG: f"不能大于{2**63 - 1}",
    STATUS: "必须是0、1、2或3",
    ONCE: "只能出现一次",
    TYPE: "必须是0或1",
    TEXT: "必须是1到255个字符的字符串",
    REQUIRED: "该taskType下必填",
    EMPTY: "请求体为空",
    OBJECT: "请求体必须是JSON对象",
}


def chinese(language: str) -> bool:
    """Whether the header ``language`` asks for Chinese: ``zh``, ``zh-CN``, ``zh_Hans``; all else is English."""
    return language.strip().lower().replace("_", "-").split("-")[0] == "zh"


def code_of(error: TaskdError) -> Code:
    """The code that stands for an error of ours."""
    if error.name in ("Unauthenticated", "Permission_denied"):
        return UNAUTHORIZED
    match error:
        case WireError():
            return BAD_REQUEST
        case BadParams():
            return PARAMETER_INVALID
        case DoesNotExist():
            return NOT_FOUND
    return INNER_INVOKE_FAILURE


def sentence(error: TaskdError, language: str) -> str:
    """What is said of an error: the sentence of its code, the parameter, the fault.

    What only our own code can say stays English, after the code's sentence. Of what does not exist nothing
    more is said: unknown and foreign are the same (law L11).
    """
    code = code_of(error)
    match error:
        case DoesNotExist():
            return code.said(language)
        case BadParams(path, fault):
            where, what = path.removeprefix("params."), fault
        case WireError(reason):
            where, what = "", reason
        case _:
            where, what = "", str(error)
    if chinese(language):
        what = CHINESE.get(what, what)
    return ": ".join(filter(None, (code.said(language), where, what)))
