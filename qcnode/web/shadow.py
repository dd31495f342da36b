"""The page that shows weights on trial beside the active ones."""

from __future__ import annotations

from fastapi import FastAPI, Response

from qcnode.comparison import rows, verdicts
from qcnode.ledger.store import Store
from qcnode.web.auth import Seen
from qcnode.web.templating import Pages


def add_shadow(app: FastAPI, store: Store, pages: Pages) -> None:
    """The address of that page."""

    @app.get("/shadow")
    def shadow(visitor: Seen) -> Response:
        """How far both agree, how far people agree with each, and the series on which they differ most."""
        compared = store.shadows.compared()
        return pages.page(
            "shadow.html",
            visitor,
            compared=compared,
            rows=rows(compared) if compared else [],
            verdicts=verdicts(compared) if compared else [],
        )
