"""The series by program: a list, one of them, and a word on its verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi import Path as PathParameter
from pydantic import AfterValidator, AwareDatetime, Field

from qcnode.artifacts import Plane, Severity
from qcnode.clock import utc_now
from qcnode.ledger.listing import Place, Wanted
from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.people import Word
from qcnode.states import State
from qcnode.verdict import Decision
from qcnode.web.access import Caller, Speaker
from qcnode.web.api.shapes import Problem, Said, SeriesDetail, SeriesPage, Stored
from qcnode.web.api.shapes import Series as SeriesShape

_PLACE = "%Y%m%dT%H%M%S%fZ"  # fixed in width, and nothing in it that a URL has to escape
UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}
NEEDS_TOKEN: dict[int | str, dict[str, Any]] = {401: {"model": Problem}, 403: {"model": Problem}}


def _of_our_time(moment: datetime) -> datetime:
    """Years far off cannot be turned into UTC, and no series has them."""
    if not 1970 <= moment.year <= 9000:
        raise ValueError("a time is in the years 1970 to 9000")
    return moment.astimezone(UTC)


def _of_a_page(name: str) -> str:
    try:
        _place(name)
    except ValueError:
        raise ValueError("not the `next` of a page; begin without it") from None
    return name


UID = Annotated[str, PathParameter(pattern=r"^[0-9.]{1,64}$")]
Next = Annotated[str, Field(max_length=100), AfterValidator(_of_a_page)]
Moment = Annotated[AwareDatetime, AfterValidator(_of_our_time)]


def router(store: Store) -> APIRouter:
    """The addresses under /series."""
    routes = APIRouter(prefix="/series", tags=["series"], responses=NEEDS_TOKEN)

    @routes.get("")
    def listed(
        _: Caller,
        state: Annotated[list[State] | None, Query(description="Any of these states.")] = None,
        verdict: Annotated[
            list[Decision] | None, Query(description="Any of these, as the latest revision has it.")
        ] = None,
        plane: Plane | None = None,
        scanner: Annotated[str | None, Query(max_length=120, description="As `scanner` of a series names it.")] = None,
        since: Annotated[Moment | None, Query(description="Last instance received at this time or after.")] = None,
        until: Annotated[Moment | None, Query(description="Last instance received before this time.")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        after: Annotated[Next | None, Query(description="The `next` of the page before.")] = None,
    ) -> SeriesPage:
        """Series with their latest verdicts, newest first, a page at a time."""
        wanted = Wanted(state or (), verdict or (), plane, scanner, since, until)
        found = store.listing.page(wanted, limit + 1, _place(after) if after is not None else None)
        shown = found[:limit]
        goes_on = _named(shown[-1]) if len(found) > limit else None
        return SeriesPage(series=[SeriesShape.of(one) for one in shown], next=goes_on)

    @routes.get("/{uid}", responses=UNKNOWN)
    def one(uid: UID, _: Caller) -> SeriesDetail:
        """One series: every revision with scores, verdict, opinions, documents and their deliveries; its events."""
        found = store.overview.detail(uid)
        if found is None:
            raise HTTPException(404, "This node has not received that series.")
        return SeriesDetail.of(found, store.overview.forwarded(uid))

    @routes.post("/{uid}/opinions", responses={409: {"model": Problem}})
    def said(uid: UID, by: Speaker, said: Said) -> Stored:
        """Say a word on the verdict of one revision, in the token's name; the machine's own grades stay as they are."""
        who, now = by.name, utc_now()
        match said.word:
            case Word.ACKNOWLEDGED:
                stored = store.opinions.acknowledge(uid, said.revision, who, now)
            case Word.AGREED:
                stored = store.opinions.agree(uid, said.revision, who, now)
            case Word.CORRECTED:
                grades = {artifact: Severity(grade) for artifact, grade in said.grades.items()}
                stored = store.opinions.correct(uid, said.revision, grades, who, now)
        return Stored(stored=stored)

    return routes


def _named(series: Series) -> str:
    return f"{series.last_received_at.strftime(_PLACE)}_{series.series_instance_uid}"


def _place(name: str) -> Place:
    """ValueError for what is not the name of a place."""
    moment, _, uid = name.partition("_")
    return Place(datetime.strptime(moment, _PLACE).replace(tzinfo=UTC), uid)
