"""One TOML file → Settings. Without a file the defaults work."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from qcnode.verdict import DEFAULT_POLICY, Decision, Policy, Rule
from qcnode.wording import BODY, TITLE, checked


def _ae_title(value: str) -> str:
    """An AE value (PS3.5 Section 6.2): 1 to 16 printable ASCII characters, no backslash, not only spaces."""
    value = value.strip()
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", value):
        raise ValueError("an AE title is 1 to 16 printable ASCII characters without a backslash")
    return value


def _regular_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


def _zone(value: str) -> str:
    try:
        return ZoneInfo(value).key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError('this is not a zone of the tz database; give one, such as "Africa/Nairobi"') from error


AETitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=0, le=65535)]
DocumentKind = Literal["report", "flag", "capture", "images"]
Pattern = Annotated[str, AfterValidator(_regular_expression)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Template = Annotated[str, AfterValidator(checked)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Zone = Annotated[str, AfterValidator(_zone)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Dicom(_Section):
    """The listener."""

    ae_title: AETitle = "QCNODE"
    """The node's own AE title."""
    host: str = "0.0.0.0"  # noqa: S104 - a listener for scanners on the network
    """The address to listen on."""
    port: Port = 11112
    """The port to listen on; 0 takes a free one."""
    require_called_ae_title: bool = False
    """Reject an association that calls another AE title than ours."""
    calling_ae_titles: tuple[AETitle, ...] = ()
    """Accept associations from these AE titles only; empty: from any."""
    peer_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Accept associations from these networks only, such as "10.1.0.0/16"; empty: from any."""
    maximum_associations: int = Field(default=64, ge=1)
    """How many associations may be open at once."""
    processes: int | None = Field(default=None, ge=1, le=32)
    """Receiving processes; without it, one for each core, 4 at the most; 1: the node receives in its own process."""
    maximum_pdu_bytes: int = Field(default=131072, ge=4096)
    """The largest PDU that we offer to receive."""
    maximum_instance_mb: int = Field(default=512, ge=1)
    """A larger instance is refused; all associations together hold twice as much in memory at the most."""
    minimum_free_mb: int = Field(default=500, ge=0)
    """With less free disk (or 5 % of a small disk), instances and associations are refused until there is more."""
    network_timeout_seconds: float = Field(default=60.0, gt=0)
    """An association that is silent for this long is closed; what arrived is kept."""
    plain: bool = True
    """Listen without TLS on `port`; switch it off where every peer speaks TLS."""
    tls_port: Port = 2762
    """The port to listen on with TLS 1.2 or 1.3, where there is a tls_certificate."""
    tls_certificate: Path | None = None
    """PEM file of the certificate that we show."""
    tls_key: Path | None = None
    """PEM file of its key, without a password; without it, the key is in the certificate's file."""
    tls_client_ca: Path | None = None
    """PEM file of authorities; with it, a peer must show a certificate that one of them signed."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Dicom:
        if self.tls_certificate is None and (self.tls_key or self.tls_client_ca or not self.plain):
            raise ValueError("tls_key, tls_client_ca and plain = false need tls_certificate")
        return self


class StateFolder(_Section):
    """Where everything is kept."""

    folder: Path = Path("./qcnode-data")
    """Spool, documents and the ledger live here."""
    ledger_url: str | None = None
    """SQLAlchemy URL of the ledger; without it, SQLite in the folder."""
    retention_days: float = Field(default=30.0, ge=0)
    """The spool keeps the images of a finished series for this long after its documents were delivered."""


class Web(_Section):
    """The page."""

    host: str = "127.0.0.1"
    """The address to listen on; beyond loopback only with accounts (`qcnode user add`)."""
    port: Port = 8080
    """The port to listen on; 0 takes a free one."""
    insecure: bool = False
    """Answer beyond loopback although there are no accounts: whoever reaches the page may read it."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Let in whom a reverse proxy in these networks names, such as "127.0.0.1/32"; it must set `user_header` itself."""
    user_header: HeaderName = "X-Remote-User"
    """The header in which a trusted proxy names the user."""
    role_header: HeaderName | None = None
    """The header in which it gives the role: viewer, technologist or admin; without it, the account's role counts."""
    rejection: bool = False
    """Let technologists reject images: a key object 113001 has archives that follow IHE IOCM hide them."""
    patient_names: bool = False
    """Show PatientName, PatientID and SeriesDescription with each series; they are read from the spool."""
    timezone: Zone | None = None
    """The zone of the times on the page, such as "Africa/Nairobi"; without it, the machine's own."""


class Completeness(_Section):
    """When a series is taken to be complete."""

    grace_seconds: float = Field(default=2.0, ge=0)
    """For a gap-free classic stack whose association was released."""
    quiet_seconds: float = Field(default=30.0, ge=0)
    """For anything else: this long without a new instance."""


Contrast = Literal["T1w", "T2w", "FLAIR", "PDw"]


class ContrastRule(_Section):
    """Names a contrast by timing: the first rule whose limits all hold wins. Times in milliseconds."""

    contrast: Contrast
    """The contrast that the rule names."""
    minimum_echo_time_ms: float | None = None
    """EchoTime at least this."""
    maximum_echo_time_ms: float | None = None
    """EchoTime below this."""
    minimum_repetition_time_ms: float | None = None
    """RepetitionTime at least this."""
    maximum_repetition_time_ms: float | None = None
    """RepetitionTime below this."""
    minimum_inversion_time_ms: float | None = None
    """InversionTime at least this; a series without one does not match."""
    maximum_inversion_time_ms: float | None = None
    """InversionTime below this; a series without one does not match."""


# Swoops send T2 at TR 2000, TE 148-199 ms, and T1 at TR 1500, TE 6-7, TI 300 ms (344 sidecars of OpenNeuro ds006557,
# which these rules all tell right); FLAIR at TR 4000, TE 194, TI 1400 ms (the header in dicom2nifti's tests).
_TIMING_RULES = (
    ContrastRule(contrast="FLAIR", minimum_inversion_time_ms=1100, minimum_echo_time_ms=60),
    ContrastRule(contrast="T1w", maximum_echo_time_ms=40, maximum_repetition_time_ms=3000),
    ContrastRule(contrast="T2w", minimum_echo_time_ms=60, minimum_repetition_time_ms=1500),
)
_DESCRIPTION_RULES: dict[Contrast, str] = {
    "FLAIR": r"flair|dark.?fluid",
    "T2w": r"(?<![a-z0-9])t2(?!\d|.?\*|.?star)",
    "T1w": r"(?<![a-z0-9])t1(?!\d)|mp.?rage",
}


class Eligibility(_Section):
    """Which series are for assessment, beyond being original MR images."""

    minimum_slices: int = Field(default=12, ge=4)
    """An MR stack with fewer slices is not assessable."""
    contrasts: frozenset[Contrast] | None = None
    """Of the contrasts that the weights cover, only these, such as ["T2w"]; without it, all of them."""
    timing: tuple[ContrastRule, ...] = _TIMING_RULES
    """How EchoTime, RepetitionTime and InversionTime tell the contrast, where AcquisitionContrast does not."""
    description: dict[Contrast, Pattern] = _DESCRIPTION_RULES
    """Regular expressions, case ignored, on SeriesDescription and ProtocolName, where the timing does not tell."""
    assess_unknown_contrast: bool = False
    """Assess a series whose contrast nothing tells, instead of excluding it."""


class Assessing(_Section):
    """How series are graded."""

    weights: Path | None = None
    """The folder of an ensemble (manifest.json and its members); without it, the shipped one."""
    shadow: Path | None = None
    """The folder of an ensemble on trial: it grades each scan after the other has, and nothing of it is reported."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes CUDA where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the grading process; without it, one for each core."""

    def on_trial(self) -> Assessing | None:
        """How the ensemble in shadow grades: on the processor alone, on one thread; None without one."""
        if self.shadow is None:
            return None
        return self.model_copy(update={"weights": self.shadow, "shadow": None, "device": "cpu", "threads": 1})


class Destination(_Section):
    """An archive or console that receives documents, or the images themselves, by C-STORE."""

    name: Name
    """What the ledger and the log call it."""
    ae_title: AETitle
    """Its AE title."""
    host: str
    """Its address."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Its port."""
    send: tuple[DocumentKind, ...] = ("report", "flag", "capture")
    """Which documents it gets; "images" are the received images themselves, unchanged, but none that it sent us."""
    from_ae: tuple[AETitle, ...] = ()
    """Only what belongs to series that these AE titles sent us (so a scanner gets back what it sent); empty: all."""
    verdicts: tuple[Decision, ...] = ()
    """Only what belongs to series of these verdicts; images then wait for the verdict. Empty: all."""
    tls: bool = False
    """Speak TLS 1.2 or 1.3 to it (port 2762 as a rule)."""
    tls_ca: Path | None = None
    """PEM file of the authorities that signed its certificate; without it, those that the system trusts."""
    tls_certificate: Path | None = None
    """PEM file of the certificate that we show, where it asks for one."""
    tls_key: Path | None = None
    """PEM file of that certificate's key, without a password; without it, the key is in the certificate's file."""
    tls_check_host_name: bool = True
    """Its certificate must name its host; switch it off only for a device whose certificate cannot be mended."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Destination:
        if not self.tls and (self.tls_ca or self.tls_certificate or self.tls_key):
            raise ValueError("tls_ca, tls_certificate and tls_key need tls = true")
        if self.tls_key and not self.tls_certificate:
            raise ValueError("tls_key needs tls_certificate")
        return self


class Alerting(_Section):
    """What alerts say: Jinja2 templates; docs/operations.md lists their words."""

    title: Template = TITLE
    """The title, in one line; unanswered_minutes is 0 but for an escalation."""
    body: Template = BODY
    """The text; series is the end of the UID, and reasons are sentences."""
    accession_number: bool = False
    """Give the templates the AccessionNumber, by which the archive finds the patient; else they have nothing of one."""


class Alert(_Section):
    """A message to people, by an Apprise URL; it carries no patient data."""

    url: str
    """Where it goes: a webhook, a mail server, a chat; see Apprise's list of URLs."""
    name: Name | None = None
    """What the ledger and the log call it (the URL may hold a secret); alert-1, alert-2, … without it."""
    on: tuple[Decision, ...] = (Decision.RESCAN,)
    """The verdicts that send it."""
    after_minutes: float | None = Field(default=None, gt=0)
    """Send it only when nobody has answered the verdict for so long; without it, at once, whoever answers."""
    at_most: int = Field(default=20, ge=1)
    """No more messages than these in `per_minutes`; what is more comes together in one."""
    per_minutes: float = Field(default=10.0, gt=0)
    """The time in which `at_most` messages may go out."""


class Settings(_Section):
    """The whole configuration."""

    dicom: Dicom = Dicom()
    """The listener."""
    state: StateFolder = StateFolder()
    """Where everything is kept."""
    web: Web = Web()
    """The page."""
    completeness: Completeness = Completeness()
    """When a series is taken to be complete."""
    eligibility: Eligibility = Eligibility()
    """Which series are for assessment."""
    assessing: Assessing = Assessing()
    """How series are graded."""
    policy: dict[Artifact, Rule] = Field(default_factory=lambda: dict(DEFAULT_POLICY))
    """Per artifact, the condition for `review` and for `rescan`; what is not named keeps the default."""
    destinations: tuple[Destination, ...] = ()
    """Where documents go."""
    alerting: Alerting = Alerting()
    """What alerts say: Jinja2 templates; docs/operations.md lists their words."""
    alerts: tuple[Alert, ...] = ()
    """Who is told."""

    def full_policy(self) -> Policy:
        """The policy with the default rule for each artifact that the file does not name."""
        return {**DEFAULT_POLICY, **self.policy}

    def alert_names(self) -> dict[str, Alert]:
        """The alerts by the name that the ledger uses."""
        return {alert.name or f"alert-{i}": alert for i, alert in enumerate(self.alerts, 1)}

    def escalations(self) -> dict[str, timedelta]:
        """The alerts that wait for an answer first, and for how long."""
        waiting = {name: alert.after_minutes for name, alert in self.alert_names().items()}
        return {name: timedelta(minutes=minutes) for name, minutes in waiting.items() if minutes is not None}


def parse(text: str, source: str) -> Settings:
    """Settings from TOML text; ConfigError, naming `source` and the key, for anything that is not right."""
    try:
        settings = Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}; mend that line.") from error
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_fault(error)}") from error
    names = [d.name for d in settings.destinations] + list(settings.alert_names())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{source}: the name {twice[0]!r} stands for two destinations or alerts; rename one.")
    if len(settings.alert_names()) < len(settings.alerts):
        raise ConfigError(f"{source}: two alerts have the same name; rename one.")
    return settings


def load(path: Path | None = None) -> Settings:
    """Settings from `path`, else from the file that QCNODE_CONFIG names, else the defaults."""
    if path is None:
        named = os.environ.get("QCNODE_CONFIG")
        if not named:
            return Settings()
        path = Path(named)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} cannot be read; check its path and its rights.") from error
    return parse(text, str(path))


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "model_type":
        return f"{where} is a section; write [{where}] on a line of its own, and its keys below."
    if fault["type"] == "tuple_type":
        return f"{where} is a list; write [[{where}]] before each entry, or [..., ...] for values."
    if fault["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: {fault['msg']}."
    known = _keys_beside(fault["loc"])
    near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.0)
    return f"unknown key {where!r}; the nearest known key is {near[0]!r}."


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where the unknown one stands."""
    model: Any = Settings
    for part in location[:-1]:
        if isinstance(part, int) or not hasattr(model, "model_fields"):
            continue
        field = model.model_fields.get(part)
        if field is None:
            continue
        arguments = getattr(field.annotation, "__args__", ())
        model = next(
            (kind for kind in (field.annotation, *arguments) if isinstance(kind, type) and issubclass(kind, BaseModel)),
            Rule if part == "policy" else model,
        )
    if model is Rule:
        depth = len(location) - location.index("policy")
        return {2: [a.value for a in Artifact], 3: ["review", "rescan"]}.get(depth, ["severity", "probability"])
    return list(model.model_fields)
