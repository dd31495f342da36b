"""What an alert says: Jinja2 templates, in a sandbox, over a few words that name no patient."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from qcnode.artifacts import Plane
from qcnode.verdict import Decision, Verdict

TITLE = (
    "{% if unanswered_minutes %}No answer for {{ unanswered_minutes }} min: {% endif %}"
    "{{ headline }}{% if plane %} ({{ plane }}){% endif %}"
)
BODY = (
    "{% for reason in reasons %}{{ reason }}\n{% endfor %}"
    "Series …{{ series }}, {{ at }}{% if accession_number %}, accession number {{ accession_number }}{% endif %}"
)
_HEADLINES = {
    Decision.ACCEPT: "Scan accepted",
    Decision.REVIEW: "Look at this scan",
    Decision.RESCAN: "Repeat this scan",
    Decision.NOT_ASSESSABLE: "Scan not assessable",
}
UID_DIGITS = 8  # enough to find the series on the page, too few to tell whose it is


@dataclass(frozen=True)
class Occasion:
    """What an alert is about."""

    series_uid: str
    verdict: Verdict
    plane: Plane | None
    at: datetime
    scanner: str = ""  # the AE title that sent the series
    accession_number: str = ""  # only where the site turned it on
    unanswered_minutes: int = 0  # of an escalation

    def words(self) -> dict[str, Any]:
        """What a template may use."""
        return {
            "headline": _HEADLINES[self.verdict.decision],
            "verdict": self.verdict.decision.value.replace("_", " "),
            "plane": self.plane.value if self.plane else "",
            "reasons": list(self.verdict.reasons),
            "series": self.series_uid[-UID_DIGITS:],
            "at": f"{self.at:%Y-%m-%d %H:%M %Z}".rstrip(),
            "scanner": self.scanner,
            "accession_number": "".join(filter(str.isprintable, self.accession_number)).strip(),
            "unanswered_minutes": self.unanswered_minutes,
        }


def rendered(template: str, occasion: Occasion) -> str:
    """The text; ValueError, in one sentence, for a template that is none or uses a word that there is not."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # No autoescape: these are messages, not pages.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        return environment.from_string(template).render(occasion.words()).strip()
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"not a template for an alert: {error}; the words are {', '.join(occasion.words())}"
        ) from error


def checked(template: str) -> str:
    """The template, once it has made texts of both kinds of alert; ValueError as rendered() raises it."""
    verdict = Verdict(Decision.RESCAN, ("Severe motion. Repeat this scan; settle the child first.",))
    for occasion in (
        Occasion("1.2.3", verdict, None, datetime(2026, 3, 1, tzinfo=UTC)),
        Occasion("1.2.3", verdict, Plane.AXIAL, datetime(2026, 3, 1, tzinfo=UTC), "SWOOP", "A1", 10),
    ):
        rendered(template, occasion)
    return template
