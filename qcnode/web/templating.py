"""The templates, and what each of them may use."""

from __future__ import annotations

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from qcnode.artifacts import Severity
from qcnode.people import Word
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision
from qcnode.web.auth import Visitor
from qcnode.web.forms import TOKEN


class Pages:
    """Renders a template for a visitor; every value becomes text, whatever it holds."""

    def __init__(self) -> None:
        self._environment = Environment(loader=PackageLoader("qcnode.web"), autoescape=select_autoescape())
        self._environment.globals.update(
            Decision=Decision, Severity=Severity, State=State, DeliveryState=DeliveryState, Word=Word, TOKEN=TOKEN
        )

    def page(self, template: str, visitor: Visitor, status: int = 200, **context: object) -> HTMLResponse:
        """The template's page."""
        return HTMLResponse(self._environment.get_template(template).render(visitor=visitor, **context), status)
