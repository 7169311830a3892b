"""Scoring what attacks find, all alike: beside every estimate stand its controls.

A control is an estimate that took no attack: the protected image itself, the mean of public images,
and another image. An attack that scores no better than these shows nothing.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from fedenc import seeding
from fedenc.attacks import roc
from fedenc.attacks.base import Attack, Findings, Knowledge, Observation
from fedenc.attacks.measures import (
    AMONG,
    Recogniser,
    Values,
    as_picture,
    compare,
    edge_correlation,
    key_share,
    lpips_weights,
    rank,
    share_interval,
    summarise,
)
from fedenc.attacks.target import ABSENT, Target
from fedenc.images import sheets
from fedenc.images.metrics import SIDES, ssim
from fedenc.training.model_files import weights_sha256

SHOWN = 8  # images in each attack's picture
ESTIMATE, CONTROLS = "attack", ("ciphertext", "constant", "another")
Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """One attack's result.

    Attributes:
        row: what ``attacks.json`` holds, as docs/attacks.md describes it.
        images: one row for every target and estimate, with all measures; None without estimates.
        picture: a sheet of plain, protected and estimated images, as PNG; None without estimates.
    """

    row: Row
    images: pa.Table | None = None
    picture: bytes | None = None


@dataclass(frozen=True)
class Judge:
    """Knows the truth about a target, and scores what attacks find.

    Attributes:
        target: what is attacked.
        recognise: a classifier of plain images; None leaves recognition out.
        seed: of random controls.
    """

    target: Target
    recognise: Recogniser | None = None
    seed: int = 0

    def score(self, attack: Attack, findings: Findings, seconds: float) -> Scored:
        """All measures that the findings allow."""
        target = self.target
        rows = target.hidden(attack.needs(target.method))
        row = describe(attack, target) | {
            "status": "done",
            "seconds": seconds,
            "targets": len(rows),
            "facts": dict(findings.facts),
        }
        images, mirrored = self._unmirrored(findings)
        if mirrored:
            row["facts"]["mirrored"] = len(mirrored)
        row |= self._key(findings, mirrored)
        row |= self._links(findings) | self._members(findings)
        if images is None:
            return Scored(row)
        estimates = images[rows]
        values = {ESTIMATE: self._values(estimates, rows)} | self._controls_of(rows)
        if Knowledge.LABELS in attack.knowledge:
            # Who knows the label can show any image of its class: that recognises nothing.
            values = {name: _without(found, "recognised") for name, found in values.items()}
        row |= summarise(values[ESTIMATE])
        row["control"] = {name: summarise(values[name]) for name in CONTROLS} | row["control"]
        return Scored(row, _table(row, rows, values), self._picture(rows, estimates))

    @cached_property
    def identity(self) -> str:
        """A digest of the target and of what it is scored with."""
        target, digest = self.target, hashlib.sha256()
        method, model, public = target.method, target.model, target.public
        facts: list[Any] = [method.name, dict(method.params), method.policy, method.shape]
        facts += [target.seed, self.seed, self.recognise is not None, lpips_weights() is not None]
        if model is not None:
            facts += [weights_sha256(model.network), model.config.as_dict(), model.images]
        digest.update(json.dumps(facts).encode())
        for tensor in (
            *(target.uploads.images, target.plain, target.labels, target.candidates),
            *(target.candidate_labels, target.shown, target.trained_on),
            *((None, None) if public is None else (public.images, public.labels)),
        ):
            digest.update(b"none" if tensor is None else repr(tuple(tensor.shape)).encode())
            digest.update(b"" if tensor is None else tensor.contiguous().numpy())
        return digest.hexdigest()

    @cached_property
    def recognised_plain(self) -> float | None:
        """The classifier's accuracy on the plain images themselves."""
        if self.recognise is None:
            return None
        right = self.recognise(self.target.plain) == self.target.labels
        return float(right.double().mean())

    def _unmirrored(self, findings: Findings) -> tuple[Tensor | None, frozenset[int]]:
        """Estimates that may be mirrored, a key's at a time, the way round that is more like the
        truth, and which keys' were turned: a person would see it at a glance."""
        if findings.images is None or not findings.mirror:
            return findings.images, frozenset()
        images, mirrored = findings.images.clone(), set[int]()
        for number, rows in enumerate(self._groups):
            found, plain = images[rows], self.target.plain[rows]
            turned = found.flip(-1)
            ways = [float(edge_correlation(way, plain).mean()) for way in (found, turned)]
            if ways[1] > ways[0]:
                images[rows] = turned
                mirrored.add(number)
        return images, frozenset(mirrored)

    @cached_property
    def _groups(self) -> list[Tensor]:
        """Rows that share a key."""
        return list(Observation(self.target.method, self.target.uploads).groups())

    def _key(self, findings: Findings, mirrored: frozenset[int]) -> Row:
        """The share of keys that is right, and what other keys of the same kind would score."""
        if findings.key is None or len(mirrored) == len(findings.key):
            return {"control": {}}
        kept = [i for i in range(len(findings.key)) if i not in mirrored]
        true = [self.target.key[i] for i in kept]
        found = [findings.key[i] for i in kept]
        complement = findings.complement
        chance = key_share([self.target.other_key] * len(kept), true, complement=complement)
        return {
            "key_recovered": key_share(found, true, complement=complement),
            "control": {"another key": {"key_recovered": chance}},
        }

    def _controls_of(self, rows: Tensor) -> dict[str, Values]:
        """As ``_controls``, computed once for the same rows."""
        name = tuple(rows.tolist())
        if name not in self._known_controls:
            self._known_controls[name] = self._controls(rows)
        return self._known_controls[name]

    @cached_property
    def _known_controls(self) -> dict[tuple[int, ...], dict[str, Values]]:
        return {}

    def _values(self, estimates: Tensor, rows: Tensor) -> Values:
        plain, others = self.target.plain[rows], self._others
        values = compare(estimates, plain)
        if others is not None and len(others) >= AMONG - 1:
            values["rank"] = rank(estimates, plain, others, seed=self.seed)
        if self.recognise is not None:
            values["recognised"] = (self.recognise(estimates) == self.target.labels[rows]).double()
        return values

    @property
    def _others(self) -> Tensor | None:
        """Images that were not uploaded."""
        return None if self.target.public is None else self.target.public.images

    def _controls(self, rows: Tensor) -> dict[str, Values]:
        plain, others = self.target.plain, self._others
        pictures = as_picture(self.target.uploads.images[rows], self.target.method.shape)
        if others is None:
            constant = torch.full_like(pictures, 127)
            another = plain.roll(len(plain) // 2, 0)[rows]
        else:
            constant = others.float().mean(0).round().to(torch.uint8).expand_as(pictures)
            generator = seeding.generator(self.seed, "another image")
            another = others[torch.randint(len(others), (len(rows),), generator=generator)]
        estimates = (pictures, constant.contiguous(), another)
        return {
            name: self._values(images, rows)
            for name, images in zip(CONTROLS, estimates, strict=True)
        }

    def _links(self, findings: Findings) -> Row:
        shown = self.target.shown
        if findings.links is None or shown is None:
            return {}
        uploaded, foil, found = shown >= 0, shown == ABSENT, findings.links
        # Some owners may have uploaded the same image: any of its uploads is right.
        same = self._same_image(found, shown)
        hits, misses = int((same & uploaded).sum()), int(((found >= 0) & foil).sum())
        members, foils = int(uploaded.sum()), int(foil.sum())
        row: Row = {"candidates": members + foils}
        for name, hit, of in (("linked", hits, members), ("false_links", misses, foils)):
            if of:
                share = share_interval(hit, of)
                row |= {name: share.mean, f"{name}_low": share.low, f"{name}_high": share.high}
        return row

    def _same_image(self, found: Tensor, shown: Tensor) -> Tensor:
        images = self.target.plain if self.target.originals is None else self.target.originals
        alike = (images[found.clamp_min(0)] == images[shown.clamp_min(0)]).flatten(1).all(1)
        return (found >= 0) & (shown >= 0) & alike

    def _members(self, findings: Findings) -> Row:
        if findings.members is None or self.target.trained_on is None:
            return {}
        found = roc.measure(findings.members, self.target.trained_on, self.seed)
        row: Row = {"candidates": len(self.target.trained_on)}
        rates = {
            "auc": found.auc,
            "tpr_at_1_percent": found.tpr_1,
            "tpr_at_0.1_percent": found.tpr_01,
        }
        for name, rate in rates.items():
            if rate is not None:
                row |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        return row

    def _picture(self, rows: Tensor, estimates: Tensor) -> bytes:
        chosen = torch.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).long()
        protected = as_picture(self.target.uploads.images[rows[chosen]], self.target.method.shape)
        plain = self.target.plain[rows[chosen]]
        lines = (("plain", plain), ("protected", protected), ("attacker's", estimates[chosen]))
        shown = [
            sheets.Row(name, list(images), _similarity(plain, images) if i else [""] * len(chosen))
            for i, (name, images) in enumerate(lines)
        ]
        content = io.BytesIO()
        sheets.grid(shown, cell=96).save(content, "PNG")
        return content.getvalue()


def _similarity(plain: Tensor, images: Tensor) -> list[str]:
    """SSIM (uniform 7x7 window) as text, as under the pictures of Ito et al.'s figs. 8 and 9; empty
    where the window does not fit."""
    if min(plain.shape[-2:]) < SIDES["uniform7"]:
        return [""] * len(plain)
    return [f"SSIM {value:.2f}" for value in ssim(plain, images, "uniform7").tolist()]


def describe(attack: Attack, target: Target) -> Row:
    """What is known of a row before the attack has run; every field that a row may have."""
    method = target.method
    empty = dict.fromkeys(
        (
            *("key_recovered", "linked", "false_links", "ssim_uniform7", "ssim_gaussian11"),
            *("psnr", "edges", "bytes", "recognised", "rank", "auc", "reason"),
        )
    )
    return {
        "attack": attack.name,
        "params": attack.params(),
        "cipher": method.name,
        "cipher_params": dict(method.params),
        "keys": method.policy,
        "knowledge": sorted(one.value for one in attack.needs(method)),
        "source": attack.source,
        "targets": 0,
        "seconds": None,
        "facts": {},
        "control": {},
    } | empty


def _without(values: Values, name: str) -> Values:
    return {key: found for key, found in values.items() if key != name}


def _table(row: Mapping[str, Any], rows: Tensor, values: Mapping[str, Values]) -> pa.Table:
    """One row for every target and estimate."""
    names = list(values[ESTIMATE])
    parts = [
        pa.table(
            {
                "attack": pa.repeat(row["attack"], len(rows)),
                "cipher": pa.repeat(row["cipher"], len(rows)),
                "keys": pa.array([row["keys"]] * len(rows), pa.string()),
                "estimate": pa.repeat(estimate, len(rows)),
                "target": rows.numpy(),
                **{name: found[name].numpy() for name in names},
            }
        )
        for estimate, found in values.items()
    ]
    return pa.concat_tables(parts)
