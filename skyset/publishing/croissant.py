"""``croissant.json``: the Parquet files of a repository in the words of MLCommons' Croissant 1.0, units included."""

from __future__ import annotations

import json
from collections.abc import Mapping

import datasets
import numpy as np

from skyset.publishing.metadata import split_card
from skyset.publishing.source import Source
from skyset.survey import Feature, Survey

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
#: What stands for the checksum of a Git repository, which has none (mlcommons/croissant#80), as the Hub itself writes it.
_NO_CHECKSUM = "https://github.com/mlcommons/croissant/issues/80"
_KINDS = {"b": "sc:Boolean", "i": "sc:Integer", "u": "sc:Integer", "f": "sc:Float"}


def croissant(found: Mapping[str, Source], schemas: Mapping[str, datasets.Features], url: str, card: str) -> bytes:
    """The description of a repository of Parquet files.

    Args:
        found: its datasets by config.
        schemas: the features of their files.
        url: the repository's page.
        card: its text.
    """
    survey = next(iter(found.values())).survey
    metadata = split_card(card)[0]
    licence = metadata.get("license_link") or metadata.get("license") or survey.license
    files = [_file_set(config, split) for config, source in found.items() for split in source.manifest.splits]
    values = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": survey.name,
        "description": survey.title,
        "url": url,
        "license": licence,
        "citeAs": survey.citation,
        "version": "1.0.0",
        "keywords": list(metadata.get("tags", [])),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "repo",
                "name": "repo",
                "description": "The repository on the Hub.",
                "contentUrl": f"{url}/tree/main",
                "encodingFormat": "git+https",
                "sha256": _NO_CHECKSUM,
            },
            *files,
        ],
        "recordSet": [
            _record_set(config, split, schemas[config], source.survey)
            for config, source in found.items()
            for split in source.manifest.splits
        ],
    }
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _file_set(config: str, split: str) -> dict:
    return {
        "@type": "cr:FileSet",
        "@id": f"files-{config}-{split}",
        "name": f"files-{config}-{split}",
        "containedIn": {"@id": "repo"},
        "encodingFormat": "application/x-parquet",
        "includes": f"data/{config}/{split}/*.parquet",
    }


def _record_set(config: str, split: str, features: datasets.Features, survey: Survey) -> dict:
    name = f"{config}-{split}"
    fields = [_field(name, f"files-{name}", column, feature, survey) for column, feature in features.items()]
    what = f"{survey.title}: the split {split} of {config}"
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": what, "field": fields}


def _field(record: str, files: str, name: str, feature, survey: Survey) -> dict:
    field = {
        "@type": "cr:Field",
        "@id": f"{record}/{name}",
        "name": f"{record}/{name}",
        "description": _meaning(name, survey),
    }
    source = {"fileSet": {"@id": files}, "extract": {"column": name}}
    if isinstance(feature, dict):
        return {
            **field,
            "subField": [_member(field["@id"], source, key, each, name, survey) for key, each in feature.items()],
        }
    return {**field, **_typed(feature), "source": source}


def _member(of: str, source: dict, key: str, feature, group: str, survey: Survey) -> dict:
    """A field of a group of columns."""
    return {
        "@type": "cr:Field",
        "@id": f"{of}/{key}",
        "name": f"{of}/{key}",
        "description": _meaning(group, survey, key),
        **_typed(feature),
        "source": {**source, "transform": {"jsonPath": key}},
    }


def _typed(feature) -> dict:
    kind, repeated = _data_type(feature)
    return {"dataType": kind, "repeated": True} if repeated else {"dataType": kind}


def _data_type(feature) -> tuple[str, bool]:
    """Croissant's type of a feature, and whether a row has many of them."""
    if isinstance(feature, datasets.Image):
        return "sc:ImageObject", False
    if isinstance(feature, datasets.ClassLabel):
        return "sc:Integer", False
    dtype, repeated = getattr(feature, "dtype", ""), not isinstance(feature, datasets.Value)
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return _data_type(inner)[0], True
    try:
        return _KINDS[np.dtype(dtype).kind], repeated
    except (TypeError, KeyError):
        return "sc:Text", repeated


def _meaning(name: str, survey: Survey, key: str = "") -> str:
    """What is said of a feature, or of the column under a key of a group."""
    for feature in survey.features:
        if feature.name != name:
            continue
        if isinstance(feature, Feature):
            return _told(survey, feature.source)
        if feature.labels:
            return f"layers {', '.join(feature.labels)}"
        return _told(survey, str(feature.fields[key])) if key else f"columns {', '.join(feature.fields)}"
    return _told(survey, name) if name in survey.by_name else "a small picture of the image"


def _told(survey: Survey, column: str) -> str:
    found = survey.column(column)
    return f"{found.description} [{found.unit}]" if found.unit else found.description
