"""A survey whose columns a build chooses: what its manifest notes of the features, and the declaration made of that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from skyset.errors import UserError
from skyset.survey import Column, Feature, Layers, Survey, Trim, check_types, plain_features

#: In ``Manifest.build``.
NOTED = FEATURES, AXES, TRIMS, ABOUT = "features", "image_axes", "trims", "about"
_TEXTS = ("title", "homepage", "citation", "license")


def notes_of(survey: Survey) -> dict:
    """What a manifest's ``build`` says of a declaration; see ``of_build``."""
    return {
        FEATURES: [_told(feature) for feature in survey.features],
        AXES: dict(survey.image_axes),
        TRIMS: [dataclasses.asdict(trim) for trim in survey.trims],
        ABOUT: {name: getattr(survey, name) for name in _TEXTS},
    }


def of_build(survey: Survey, columns: Iterable[Column], build: Mapping) -> Survey:
    """The declaration of what was built; the columns' own features where nothing is noted.

    Args:
        survey: as its loader declares it.
        columns, build: of the manifest, which anybody may have written.

    Raises:
        UserError: the notes do not fit the columns.
    """
    columns = tuple(columns)
    if FEATURES not in build:
        return replace(survey, columns=columns, features=plain_features(columns, {}, ()), image_axes={})
    try:
        features = tuple(_feature(each) for each in build[FEATURES])
        if not features:
            raise ValueError("there are none")
        texts: dict[str, Any] = {name: str(build[ABOUT][name]) for name in _TEXTS if name in build.get(ABOUT, {})}
        axes = {str(name): int(axis) for name, axis in build.get(AXES, {}).items()}
        trims = tuple(_trim(each) for each in build.get(TRIMS, ()))
        declared = replace(survey, columns=columns, features=features, image_axes=axes, trims=trims, **texts)
        _check(declared)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{survey.name}: what its manifest notes of features is damaged: {str(error)[:200]}") from error
    return declared


def _told(feature: Feature | Layers) -> dict:
    if isinstance(feature, Feature):
        told = {"name": feature.name, "source": feature.source, "classes": feature.classes, "encoded": feature.encoded}
        return told | {"text": True} if feature.text else told
    return {
        "name": feature.name,
        "labels": feature.labels,
        "label_field": feature.label_field,
        "fields": dict(feature.fields),
    }


def _feature(values: Mapping) -> Feature | Layers:
    if "source" in values:
        feature = Feature(
            values["name"], values["source"], tuple(values["classes"]), values["encoded"], values.get("text", False)
        )
        check_types(feature)
        return feature
    fields = {str(key): source if isinstance(source, str) else tuple(source) for key, source in values["fields"].items()}
    return Layers(str(values["name"]), tuple(map(str, values["labels"])), str(values["label_field"]), fields)


def _trim(values: Mapping) -> Trim:
    return Trim(tuple(values["columns"]), values["by"], tuple(map(float, values["values"])), values["at"])


def _check(survey: Survey) -> None:
    """ValueError or KeyError where features, columns and axes are not of each other."""
    columns = survey.by_name
    shapes: dict[str, tuple[int, ...] | None] = {}  # of what is stored encoded it is not known
    ragged: set[str] = set()
    for feature in survey.features:
        if isinstance(feature, Feature):
            column = columns[feature.source]
            if (feature.encoded or feature.text) and not column.is_bytes:
                raise ValueError(f"{feature.name} is encoded and not of bytes")
            shapes[feature.name] = None if column.is_bytes else column.shape
            ragged |= {feature.name} if column.is_ragged and not column.is_bytes else set()
            continue
        for key, source in feature.fields.items():
            layered = [columns[name] for name in ((source,) if isinstance(source, str) else source)]
            first = layered[0]
            alike = {(each.dtype, each.shape, each.is_bytes) for each in layered}
            if alike != {(first.dtype, first.shape, False)}:
                raise ValueError(f"the layers of {feature.name} are not of one kind")
            shape = first.shape if isinstance(source, str) else (len(layered), *first.shape)
            if feature.labels and shape[:1] != (len(feature.labels),):
                raise ValueError(f"{feature.name} has not as many layers as labels")
            shapes[f"{feature.name}.{key}"] = shape
            ragged |= {f"{feature.name}.{key}"} if first.is_ragged else set()
    if cropped := sorted(ragged & set(survey.image_axes)):
        raise ValueError(f"{cropped[0]} is ragged: it has no axes of pixels to crop")
    for name, axis in survey.image_axes.items():
        pixels = shapes[name]
        if pixels is not None and not 0 <= axis <= len(pixels) - 2:
            raise ValueError(f"{name} has no two axes of pixels at {axis}")
