"""Alerts' texts: by templates in a sandbox, without a patient unless the site asks for the accession number."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from qcnode.artifacts import Plane
from qcnode.config import parse
from qcnode.errors import ConfigError
from qcnode.verdict import Decision, Verdict
from qcnode.wording import BODY, TITLE, Occasion, checked, rendered

UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"
RESCAN = Verdict(Decision.RESCAN, ("Severe motion. Repeat this scan; settle the child first.", "Moderate noise."))


def occasion(**more: object) -> Occasion:
    return Occasion(UID, RESCAN, Plane.CORONAL, datetime(2025, 3, 1, 9, 5, tzinfo=UTC), **more)  # type: ignore[arg-type]


def test_by_default_it_names_verdict_plane_reasons_time_and_the_end_of_the_uid() -> None:
    assert rendered(TITLE, occasion()) == "Repeat this scan (coronal)"
    assert rendered(BODY, occasion()).splitlines() == [*RESCAN.reasons, "Series …34567890, 2025-03-01 09:05 UTC"]


@pytest.mark.parametrize("decision", list(Decision))
def test_each_decision_has_its_headline_and_none_the_whole_uid(decision: Decision) -> None:
    about = Occasion(UID, Verdict(decision, ()), None, datetime(2025, 3, 1, tzinfo=UTC))
    assert rendered(TITLE, about)
    assert "(" not in rendered(TITLE, about)
    assert UID not in rendered(BODY, about)


def test_an_escalation_says_how_long_nobody_answered() -> None:
    assert rendered(TITLE, occasion(unanswered_minutes=10)).startswith("No answer for 10 min: Repeat this scan")


def test_an_accession_number_is_one_printable_line() -> None:
    assert rendered(BODY, occasion(accession_number=" A\n1\x1b[31m ")).endswith("UTC, accession number A1[31m")


@pytest.mark.parametrize(
    "template",
    [
        "{{ patient }}",
        "{% if %}",
        "{{ reasons.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ reasons.append('x') }}",
        "{{ 1 / 0 }}",
        "{% for i in range(10000000) %}x{% endfor %}",
        "{% include 'etc/passwd' %}",
        "{{ at.nothing }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused_when_the_configuration_is_read(template: str) -> None:
    with pytest.raises(ValueError, match="not a template for an alert"):
        checked(template)
    with pytest.raises(ConfigError) as caught:
        parse(f"[alerting]\nbody = {json.dumps(template)}\n", "site.toml")
    assert "\n" not in str(caught.value)
    assert "alerting.body" in str(caught.value)


def test_a_site_s_own_words() -> None:
    settings = parse("[alerting]\ntitle = '{{ scanner }}: {{ verdict | upper }}'\n", "site.toml")
    assert rendered(settings.alerting.title, occasion(scanner="SWOOP1")) == "SWOOP1: RESCAN"
