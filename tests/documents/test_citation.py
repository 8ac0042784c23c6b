"""CITATION.cff is valid YAML, has the fields that readers of it require, and names this version."""

import tomllib

import yaml

from tests.documents.harness import ROOT


def test_citation_has_the_required_fields() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["title"], citation["version"], citation["license"]) == tuple(
        project[key] for key in ("name", "version", "license")
    )
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["You", "Zhu", "Qu", "Ma"]
    assert (paper["type"], paper["year"]) == ("conference-paper", 2020)
