from __future__ import annotations

from pathlib import Path

import pytest

from qcnode.artifacts import Artifact, Severity
from qcnode.config import Settings, load, parse
from qcnode.errors import ConfigError
from qcnode.template import commented_configuration


def uncommented(text: str) -> str:
    """The template with every key switched on, but for those that have no value by default."""

    def is_key(line: str) -> bool:
        return line[:1] == "#" and line[1:2] not in (" ", "")

    lines = (line.removeprefix("#") if is_key(line) else line for line in text.splitlines())
    return "\n".join(line for line in lines if not line.endswith("# not set"))


def test_the_template_is_the_defaults() -> None:
    assert parse(commented_configuration(), "template") == Settings()


def test_each_key_of_the_template_is_known_and_right() -> None:
    settings = parse(uncommented(commented_configuration()), "template")
    assert settings.destinations[0].port == 4242
    assert settings.alerts[0].url.startswith("json://")
    assert settings.policy[Artifact.MOTION].rescan is not None
    assert settings.dicom == Settings().dicom
    assert settings.eligibility == Settings().eligibility


def test_the_example_that_is_shipped_is_the_template() -> None:
    shipped = Path(__file__).parents[1] / "deploy" / "qcnode.example.toml"
    assert shipped.read_text() == commented_configuration(), "run: qcnode init --force deploy/qcnode.example.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[dicom]\nprt = 104", "unknown key 'dicom.prt'; the nearest known key is 'port'"),
        ("[polcy]", "unknown key 'polcy'; the nearest known key is 'policy'"),
        ("[policy.Noise]\nresan = { severity = 2 }", "nearest known key is 'rescan'"),
        ('[[destinations]]\nnme = "a"', "destinations.0"),
        ("[dicom]\nport = 70000", "dicom.port"),
        ('[dicom]\nae_title = "MUCH TOO LONG A TITLE"', "1 to 16 printable ASCII"),
        ('state = "/var/lib/qcnode"', "state is a section; write [state]"),
        ('[destinations]\nname = "archive"', "destinations is a list; write [[destinations]]"),
        ("[dicom", "not valid TOML"),
        ('[eligibility.description]\nT2w = "t2("', "not a regular expression"),
        ('[web]\ntimezone = "Mars/Olympus"', "not a zone of the tz database"),
        ('[web]\ntimezone = "../../etc/passwd"', "not a zone of the tz database"),
        ('[dicom]\npeer_networks = ["nonsense"]', "dicom.peer_networks"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "site.toml")
    message = str(caught.value)
    assert message.startswith("site.toml")
    assert said in message
    assert "\n" not in message


def test_two_destinations_may_not_share_a_name() -> None:
    one = '[[destinations]]\nname = "pacs"\nae_title = "A"\nhost = "h"\nport = 104\n'
    with pytest.raises(ConfigError, match="'pacs'"):
        parse(one + one, "site.toml")


def test_the_policy_of_one_artifact_leaves_the_others() -> None:
    settings = parse("[policy.Noise]\nrescan = { severity = 1 }", "site.toml")
    policy = settings.full_policy()
    assert set(policy) == set(Artifact)
    assert policy[Artifact.NOISE].rescan is not None
    assert policy[Artifact.NOISE].rescan.severity is Severity.MODERATE


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site.toml"
    file.write_text("[dicom]\nport = 104\n")
    monkeypatch.setenv("QCNODE_CONFIG", str(file))
    assert load().dicom.port == 104
    monkeypatch.delenv("QCNODE_CONFIG")
    assert load().dicom.port == 11112


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
