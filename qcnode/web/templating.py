"""The templates, and what each of them may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from qcnode.artifacts import Severity
from qcnode.clock import utc_now
from qcnode.ledger.store import Store
from qcnode.people import Word
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision, slice_ranges
from qcnode.web.auth import Visitor
from qcnode.web.forms import TOKEN
from qcnode.web.times import Times


class Pages:
    """Renders a template for a visitor; every value becomes text, whatever it holds."""

    def __init__(self, store: Store, times: Times, name_of: Callable[[str], str] | None = None) -> None:
        self._environment = Environment(loader=PackageLoader("qcnode.web"), autoescape=select_autoescape())
        words = (Decision, Severity, State, DeliveryState, Word)
        self._environment.globals.update({kind.__name__: kind for kind in words}, TOKEN=TOKEN)
        self._environment.globals["name_of"] = name_of  # a series, where the site wants names on the page
        self._environment.filters.update(local=times.shown, ranges=_in_one_piece)
        self._environment.globals["zone"] = lambda: times.zone(utc_now())
        self._environment.globals["rescans"] = store.overview.rescans  # every page tells of those that wait

    def page(self, template: str, visitor: Visitor, status: int = 200, **context: object) -> HTMLResponse:
        """The template's page."""
        return HTMLResponse(self._environment.get_template(template).render(visitor=visitor, **context), status)


def _in_one_piece(slices: Sequence[int]) -> str:
    """Slices in words, with hyphens at which no line is broken."""
    return slice_ranges(slices).replace("-", "\N{NON-BREAKING HYPHEN}")
