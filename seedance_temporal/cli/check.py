"""``check``: check a request before it is paid for, without submitting it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from seedance_temporal.cli.local_files import UNREAD, RequestReader, folder_of
from seedance_temporal.cli.options import AnyPathOption, JsonOption, RequestArgument
from seedance_temporal.cli.output import DONE, out, plain, print_json
from seedance_temporal.cli.runtime import command, open_bucket, read
from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.provider.checks import gs_object, scene
from seedance_temporal.provider.models import KINDS
from seedance_temporal.provider.prices import Cost
from seedance_temporal.reference_media import Medium, media_warnings
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted


@command
async def check(
    file: RequestArgument,
    allow_any_path: AnyPathOption = False,
    as_json: JsonOption = False,
) -> int:
    """Check a request: print its problems, or its cost and the body that would be sent. Submits and spends nothing."""
    settings = Settings.from_environment()
    reader = RequestReader(settings, allow_any_path=allow_any_path)
    request, problems = await asyncio.to_thread(reader.inspect, await read(file), folder_of(file))
    problems += filter(None, [settings.rules.end_of_model(request)])
    local, unfit = await reader.media_of(request)
    media, warnings = await _read_media(request, local, problems + unfit, settings)
    found = _document(request, media, [*settings.rules.warnings(request), *warnings], settings)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return DONE


async def _read_media(
    request: VideoRequest, local: dict[int, Medium], problems: list[Problem], settings: Settings
) -> tuple[Sequence[Medium], list[str]]:
    """Read the references that are not local files, as the provider would. Return all media, and warnings about them.

    Raises:
        InvalidRequest: Lists all problems, also those that were found before.
    """
    from seedance_temporal.ledger.asset_ids import Assets
    from seedance_temporal.media.references import References

    references = request.references
    in_bucket = {index for index, each in enumerate(references) if gs_object(each.url)}
    needs_bucket = in_bucket or any(each.asset_id is not None for each in references)
    bucket = await open_bucket(settings) if needs_bucket and settings.seedance_bucket is not None else None
    wrong = {index for index, each in enumerate(references) if each.role not in KINDS or _is_wrong(index, problems)}
    unsigned = in_bucket - local.keys() - wrong
    why: str | None = "SEEDANCE_BUCKET is not set"
    if bucket is not None:
        why = await bucket.signing_problem() if unsigned else None
    if why is None:
        unsigned = set()
    warnings = [f"references[{index}] was not checked here: {why}." for index in sorted(unsigned)]
    readable = tuple(
        each.model_copy(update={"url": UNREAD}) if index in wrong | unsigned else each
        for index, each in enumerate(references)
    )
    seen = request.model_copy(update={"references": readable})
    findings = await References(bucket, settings).examine(seen, local)
    warnings += media_warnings(findings.media)
    if bucket is not None:
        warnings += await Assets(bucket, settings.seedance_prefix).warnings(seen, findings.media)
    problems = [*problems, *findings.problems]
    problems += [Problem(at=each.at, problem=f"{each.problem}; try again later") for each in findings.passing]
    if problems:
        raise InvalidRequest(problems)
    return findings.media, warnings


def _is_wrong(index: int, problems: list[Problem]) -> bool:
    at = f"references[{index}]"
    return any(problem.at == at or problem.at.startswith(f"{at}.") for problem in problems)


def _document(
    request: VideoRequest, media: Sequence[Medium], warnings: list[str], settings: Settings
) -> dict[str, Any]:
    from seedance_temporal.provider.payload import body_of

    estimated = settings.rules.estimate(request)
    # A local file becomes an object, whose URL is signed like that of any other.
    urls = [redacted(reference.url.partition("#")[0]) for reference in request.references]
    return {
        "job_id": job_id_of(request),
        "request_hash": request_hash(request),
        "scene": scene(request),
        "estimated_tokens": estimated.tokens,
        "estimated_usd": estimated.usd,
        "estimated_cny": estimated.cny,
        "least_tokens": estimated.least_tokens,
        "least_usd": estimated.least_usd,
        "least_cny": estimated.least_cny,
        "warnings": warnings,
        "sends": body_of(request, urls, request.draft_of),
        "media": [medium.model_dump(mode="json") for medium in media],
    }


def _print(found: dict[str, Any]) -> None:
    sends = dict(found["sends"])
    content = sends.pop("content")
    rows: list[tuple[str, object]] = [("job", found["job_id"]), ("scene", found["scene"]), *sends.items()]
    for item in content:
        if item["type"] == "text":
            value = item["text"]
        elif item["type"] == "draft_task":
            value = f"the final of the draft {item['draft_task']['id']}"
        else:
            value = f"{item['role']}  {item[item['type']]['url']}"
        rows.append(("sends", value))
    rows += [(f"references[{medium['reference']}]", str(Medium.model_validate(medium))) for medium in found["media"]]
    estimate = "not known beforehand"
    most, least = Cost(found["estimated_usd"], found["estimated_cny"]), Cost(found["least_usd"], found["least_cny"])
    if str(most):
        estimate = f"{most} at most ({found['estimated_tokens']:,} tokens)"
        estimate = f"{least} to {estimate}" if least != most else estimate
    rows.append(("estimate", estimate))
    rows += [("warning", warning) for warning in found["warnings"]]
    for name, value in rows:
        out.print(f"[dim]{name:<26}[/] {plain(str(value))}")
    out.print("No problems found. Nothing was submitted.")
