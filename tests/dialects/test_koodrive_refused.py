"""What KooDrive's face refuses: with which code, and in whose language."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from taskd.dialects import Reply
from taskd.dialects.koodrive import face, words
from taskd.errors import BadParams, InternalError, PermissionDenied, Refusal, StoreUnavailable, TaskdError
from tests.dialects.client import served
from tests.dialects.koodrive import KooDrive, Serve, serve, store

__all__ = ["serve", "store"]  # the fixtures


LARGE = str(2**63)

FAULTS = {
    "pageSize=-1": ("pageSize", words.POSITIVE),
    "pageSize=-" + "9" * 5000: ("pageSize", words.POSITIVE),
    "pageSize=1.5": ("pageSize", words.INTEGER),
    "pageSize=ten": ("pageSize", words.INTEGER),
    "pageSize=%D9%A3": ("pageSize", words.INTEGER),
    "pageSize=1%0A": ("pageSize", words.INTEGER),
    "pageSize=+5": ("pageSize", words.INTEGER),
    "pageSize=5&pageSize=6": ("pageSize", words.ONCE),
    "pageCursor=-1": ("pageCursor", words.POSITIVE),
    "pageCursor=x": ("pageCursor", words.INTEGER),
    "pageCursor=--1": ("pageCursor", words.INTEGER),
    f"pageCursor={LARGE}": ("pageCursor", words.LONG),
    "pageCursor=" + "1" * 5000: ("pageCursor", words.LONG),
    "pageCursor=1&pageCursor=2": ("pageCursor", words.ONCE),
    "taskType=x": ("taskType", words.INTEGER),
    "taskType=0&taskType=1": ("taskType", words.ONCE),
    "status=4": ("status", words.STATUS),
    "status=-1": ("status", words.STATUS),
    "status=1,x": ("status", words.STATUS),
    "status=1,": ("status", words.STATUS),
    "status=2&status=12": ("status", words.STATUS),
    "status=%D9%A3": ("status", words.STATUS),
}


@pytest.mark.parametrize("query", FAULTS, ids=lambda query: query[:30])
async def test_a_parameter_that_does_not_fit_is_named_in_the_callers_language(tmp_path: Path, query: str) -> None:
    name, fault = FAULTS[query]
    async with served(tmp_path) as (service, _):
        english = await KooDrive(service).ask("GET", "list", query)
        chinese = await KooDrive(service, language="zh-CN").ask("GET", "list", query)

    msg = f"Parameter verification failed: {name}: {fault}"
    assert english == (400, {"code": "13000102", "msg": msg})
    assert chinese == (400, {"code": "13000102", "msg": f"参数校验失败: {name}: {words.CHINESE[fault]}"})


@pytest.mark.parametrize("language", ["", "en-US", "en_us", "fr-FR", "tzh", "zhx", "*"])
async def test_what_is_not_chinese_is_english(tmp_path: Path, language: str) -> None:
    async with served(tmp_path) as (service, _):
        koodrive = KooDrive(service, language=language)

        assert (await koodrive.ls())["msg"] == "Success."
        assert (await koodrive.ask("GET", "7"))[1]["msg"] == "The task does not exist"


@pytest.mark.parametrize("language", ["zh", "zh-CN", "zh_cn", "ZH-Hans-CN", "zh-TW"])
async def test_chinese_is_answered_in_chinese_throughout(tmp_path: Path, language: str) -> None:
    async with served(tmp_path) as (service, _):
        koodrive = KooDrive(service, language=language)
        id = await koodrive.create(srcUserId="a", dstUserId="b")

        assert (await koodrive.ls())["msg"] == "成功"
        assert (await koodrive.detail(id))["msg"] == "成功"
        assert (await koodrive.ask("POST", "create", body=b'{"srcUserId":"a","dstUserId":"b"}'))[1][
            "msg"
        ] == "成功"
        assert (await koodrive.ask("GET", "7"))[1]["msg"] == "任务不存在"
        assert (await koodrive.ask("POST", "create"))[1]["msg"] == "请求错误: 请求体为空"
        for body, fault in ((b"[]", words.OBJECT), (b'{"taskType":3}', words.TYPE), (b"{}", words.REQUIRED)):
            msg = (await koodrive.ask("POST", "create", body=body))[1]["msg"]
            assert msg.endswith(words.CHINESE[fault])


def test_every_fault_of_a_parameter_can_be_said_in_chinese() -> None:
    faults = {text for name, text in vars(words).items() if name.isupper() and isinstance(text, str)}

    assert faults == set(words.CHINESE)


@attrs.define(auto_exc=True)
class Unauthenticated(Refusal):
    """An error of that name, whoever defines it."""

    name: ClassVar[str] = "Unauthenticated"
    sentence: ClassVar[str] = "nobody is known to call"


@pytest.mark.parametrize(
    ("error", "status", "code", "msg"),
    [
        (Unauthenticated(), 401, "APIGW.0301", "Not authorized: nobody is known to call"),
        (PermissionDenied("x"), 401, "APIGW.0301", "Not authorized: permission denied: x"),
        (StoreUnavailable("full"), 500, "13000201", "Internal call failed: the store cannot write: full"),
        (InternalError(), 500, "13000201", "Internal call failed: internal error"),
        (BadParams("params.label", "is long"), 400, "13000102", "Parameter verification failed: label: is long"),
    ],
)
def test_an_error_has_a_status_and_a_code(error: TaskdError, status: int, code: str, msg: str) -> None:
    assert face().refuse(error, "en-US") == Reply(status, {"code": code, "msg": msg})


async def test_more_tasks_than_an_owner_may_have_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, _):
        full = KooDrive(attrs.evolve(service, tasks_per_owner=0))
        status, said = await full.ask("POST", "create", body=b'{"srcUserId":"a","dstUserId":"b"}')

        assert (status, said["code"]) == (500, "13000201")
        assert await full.ids() == []


# The body of create.


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"taskType":2,"srcUserId":"a","dstUserId":"b"}', "taskType"),
        (b'{"taskType":-1}', "taskType"),
        (b'{"taskType":true,"orgId":"o","orgUserId":"u"}', "taskType"),
        (b'{"taskType":1.0,"orgId":"o","orgUserId":"u"}', "taskType"),
        (b'{"taskType":"1","orgId":"o","orgUserId":"u"}', "taskType"),
        (b'{"taskType":[],"orgId":"o","orgUserId":"u"}', "taskType"),
        (b'{"taskType":0,"dstUserId":"b"}', "srcUserId"),
        (b'{"taskType":0,"srcUserId":"a"}', "dstUserId"),
        (b'{"taskType":0,"srcUserId":"a","dstUserId":null}', "dstUserId"),
        (b'{"taskType":0,"srcUserId":1,"dstUserId":"b"}', "srcUserId"),
        (b'{"taskType":0,"srcUserId":"","dstUserId":"b"}', "srcUserId"),
        (b'{"taskType":0,"srcUserId":"a","dstUserId":"%s"}' % (b"b" * 256), "dstUserId"),
        (b'{"taskType":1,"orgUserId":"u"}', "orgId"),
        (b'{"taskType":1,"orgId":"o"}', "orgUserId"),
        (b'{"taskType":1,"orgId":"o","orgUserId":"u","resultId":[]}', "resultId"),
    ],
)
async def test_a_field_that_does_not_fit_is_named_and_nothing_is_made(
    serve: Serve, body: bytes, name: str
) -> None:
    async with serve() as koodrive:
        status, said = await koodrive.ask("POST", "create", body=body)

        assert (status, said["code"]) == (400, "13000102")
        assert said["msg"].startswith(f"Parameter verification failed: {name}: ")
        assert await koodrive.ids() == []


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}{}", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_a_bad_request(serve: Serve, body: bytes) -> None:
    async with serve() as koodrive:
        status, said = await koodrive.ask("POST", "create", body=body)

        assert (status, said["code"]) == (400, "13000101")
        assert re.fullmatch("Bad request: .+", said["msg"])
        assert await koodrive.ids() == []
