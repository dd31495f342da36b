"""When a series is taken to be complete: C-STORE has no end of series. Pure: time comes in as an argument."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from statistics import median

from qcnode.config import Completeness
from qcnode.intake.facts import Facts
from qcnode.ledger.records import Announced

_MINIMUM_STACK = 3  # slices: two distances at least, or evenness says nothing
_SAME_POSITION_MM = 0.01
_EVEN = 0.05  # neighbouring distances of a gap-free stack differ by less than this fraction
_WIDEST_GAP = 1.5  # distance ÷ thickness: more than this, and every other slice of an interleaved stack may be missing


class AssociationState(StrEnum):
    """How the association ended that a series' latest instances came over."""

    OPEN = "open"
    RELEASED = "released"
    ABORTED = "aborted"
    UNKNOWN = "unknown"  # nobody saw it end: the node was restarted, or it is long ago


@dataclass(frozen=True)
class Complete:
    """The series may be assessed; `why` is a clause for the record."""

    why: str


@dataclass(frozen=True)
class Waiting:
    """Instances may still come; without any, ask again at `until`."""

    until: datetime


def completeness(
    instances: Sequence[Facts],
    *,
    last_received: datetime,
    association: AssociationState,
    now: datetime,
    settings: Completeness,
    announced: Announced | None = None,
) -> Complete | Waiting:
    """Whether the series is complete; its instances' order and repetitions do not matter.

    By the scanner's word, where its performed procedure step has ended and names what is here: at once when nothing is
    missing, else quiet_seconds after that word or the last instance. Without it: at once, multi-frame objects with all
    their frames and parts, and a gap-free stack of as many slices as the header promises; after grace_seconds, a
    gap-free stack whose association was released; after quiet_seconds, anything.
    A clock that was set back makes nobody wait longer than quiet_seconds from now.
    """
    by_uid = {facts.sop_instance_uid: facts for facts in instances}
    if announced is not None and announced.names_any(by_uid):
        return _by_its_word(announced, by_uid, last_received, now, settings)
    found = by_uid.values()
    promised = max(_promises(found), default=0)
    if found and len(found) >= promised:
        if all(facts.is_multi_frame and facts.has_all_frames for facts in found) and _has_all_parts(found):
            return Complete("all frames of the multi-frame object are here")
        if len(found) == promised and has_no_gap(found):
            return Complete("as many slices as the header promises are here, without a gap")
        if association is AssociationState.RELEASED and has_no_gap(found):
            why = "the association was released and the stack has no gap"
            return _after(settings.grace_seconds, why, last_received, now, settings)
    return _after(settings.quiet_seconds, "no instance came for the quiet time", last_received, now, settings)


def _by_its_word(
    announced: Announced, here: Collection[str], last_received: datetime, now: datetime, settings: Completeness
) -> Complete | Waiting:
    total, missing = len(announced.sop_instance_uids), len(announced.missing(here))
    if not missing:
        return Complete(f"all {total} that the scanner announced are here")
    heard_last = last_received < announced.at <= now  # not so where the clock was set back since
    since = announced.at if heard_last else last_received
    why = f"{missing} of {total} that the scanner announced did not come within the quiet time"
    return _after(settings.quiet_seconds, why, since, now, settings)


def _after(
    seconds: float, why: str, last_received: datetime, now: datetime, settings: Completeness
) -> Complete | Waiting:
    quiet = timedelta(seconds=settings.quiet_seconds)
    due = last_received + timedelta(seconds=seconds)
    set_back = last_received - now > quiet  # the clock was: nothing else can be in the future by that much
    if due <= now or set_back:
        return Complete(why)
    return Waiting(min(due, now + quiet))


def has_no_gap(instances: Collection[Facts]) -> bool:
    """Whether single slices make one evenly spaced stack, as often at each position (echoes, phases) as at any other.

    A gap at either end cannot be seen, nor one in a stack that gives neither its spacing nor its slices' thickness.
    """
    if len({facts.rows for facts in instances}) != 1 or len({facts.columns for facts in instances}) != 1:
        return False
    if any(facts.is_multi_frame or facts.position_along_normal_mm is None for facts in instances):
        return False
    orientations = [facts.orientation for facts in instances if facts.orientation is not None]
    if any(max(values) - min(values) > 0.01 for values in zip(*orientations, strict=True)):
        return False
    positions = sorted(facts.position_along_normal_mm or 0.0 for facts in instances)
    slices = _distinct(positions)
    if len(slices) < _MINIMUM_STACK or len({count for _, count in slices}) != 1:
        return False
    distances = [after - before for (before, _), (after, _) in pairwise(slices)]
    typical = median(distances)
    even = all(abs(distance - typical) <= _EVEN * typical for distance in distances)
    return even and _is_nominal(typical, instances)


def _distinct(positions: Iterable[float]) -> list[tuple[float, int]]:
    """The positions that differ, in order, with how many slices lie at each."""
    found: list[tuple[float, int]] = []
    for position in positions:
        if found and position - found[-1][0] < _SAME_POSITION_MM:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((position, 1))
    return found


def _is_nominal(distance_mm: float, instances: Collection[Facts]) -> bool:
    """Whether the slices lie as far apart as their headers say, so that not every other one is missing."""
    spacings = {facts.spacing_between_slices_mm for facts in instances} - {None}
    if spacings:
        return all(abs(distance_mm - (spacing or 0.0)) <= _EVEN * distance_mm for spacing in spacings)
    thicknesses = {facts.slice_thickness_mm for facts in instances} - {None}
    return all(distance_mm <= _WIDEST_GAP * (thickness or 0.0) for thickness in thicknesses)


def _promises(instances: Collection[Facts]) -> list[int]:
    """How many instances the headers say there are; an acquisition's images are instances for single slices only."""
    promises = {facts.number_of_series_related_instances for facts in instances}
    promises |= {facts.images_in_acquisition for facts in instances if not facts.is_multi_frame}
    return [promise for promise in promises if promise]


def _has_all_parts(instances: Collection[Facts]) -> bool:
    """Whether each concatenation (PS3.3 Section C.7.6.16.2.2.4) has its parts 1 to n; True where there is none."""
    parts: defaultdict[str, set[int]] = defaultdict(set)
    totals: defaultdict[str, int] = defaultdict(int)
    for facts in instances:
        if (uid := facts.concatenation_uid) is not None:
            parts[uid].add(facts.in_concatenation_number or 0)
            totals[uid] = max(totals[uid], facts.in_concatenation_total_number or 0)
    return all(total > 0 and parts[uid] == set(range(1, total + 1)) for uid, total in totals.items())
