"""The objects of docs/kubernetes.md against the models of the Kubernetes client, strictly: unknown keys are errors."""

import re
from typing import Any

import pytest
import yaml

from tests.documents.harness import DOCS, blocks

models = pytest.importorskip("kubernetes.client.models")

OBJECTS = {block["metadata"]["name"]: block for block in map(yaml.safe_load, (
    block.code for block in blocks(DOCS / "kubernetes.md", "yaml")
))}  # fmt: skip

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": (str, int, bool, dict, list)}


def check(value: Any, kind: str, path: str) -> None:
    """Check a value against a type of the client.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type.
    """
    if inner := re.fullmatch(r"(?:List|list)\[(.+)\]", kind):
        if not isinstance(value, list):
            raise ValueError(f"{path} must be a list, got {value!r}")
        for number, each in enumerate(value):
            check(each, inner[1], f"{path}[{number}]")
    elif inner := re.fullmatch(r"(?:Dict|dict)[\[(]str, (.+)[\])]", kind):
        for key, each in value.items():
            check(each, inner[1], f"{path}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (kind == "int" and isinstance(value, bool)):
            raise ValueError(f"{path} must be of type {kind}, got {value!r}")
    else:
        model = getattr(models, kind)
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        if unknown := value.keys() - names.keys():
            raise ValueError(f"{path} has no {sorted(unknown)}")
        for name, each in value.items():
            check(each, model.openapi_types[names[name]], f"{path}.{name}")
        model(**{names[name]: each for name, each in value.items()})  # raises an error for missing fields


@pytest.mark.parametrize("name", ["dop-sweep", "dop-fit"])
def test_a_job(name: str) -> None:
    check(OBJECTS[name], "V1Job", name)


def test_mistakes_are_found() -> None:
    container = {"name": "a", "image": "b"}
    for wrong in ({"commands": []}, {"env": {"A": "1"}}, {"env": [{"value": "1"}]}, {"tty": "yes"}):
        with pytest.raises(ValueError, match=r"a has no|must|Field required"):
            check({**container, **wrong}, "V1Container", "a")


def test_a_ray_job() -> None:
    """The fields of KubeRay v1 that are used; its pods are those of Kubernetes."""
    job = OBJECTS["dop-ray"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert job["spec"].keys() == {"entrypoint", "shutdownAfterJobFinishes", "rayClusterSpec"}
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["headGroupSpec"].keys() == {"rayStartParams", "template"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        check(group["rayStartParams"], "dict(str, str)", "rayStartParams")
        check(group["template"], "V1PodTemplateSpec", "template")
    for group in cluster["workerGroupSpecs"]:
        assert group.keys() == {
            *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"),
        }
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_version_of_ray_is_the_tested_one() -> None:
    pins = (DOCS.parent / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={OBJECTS['dop-ray']['spec']['rayClusterSpec']['rayVersion']}\n" in pins
