"""Register finished runs as models in MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.config.record import redacted
from pipelines.config.schema import TrackingConfig, TrainConfig
from pipelines.records.home import Home
from pipelines.records.run_file import ADAPTER, RECORD, RunRecord, read
from pipelines.runs.mlflow_store import Say, connect, first_line, patiently
from pipelines.runs.record import RunResult
from vlmodels.errors import UserError

_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Codes of MLflow's errors that mean "there is none"; an unknown alias has the second."""


def register_run(
    result: RunResult, config: TrainConfig, *, home: Home | None = None, say: Callable[[str], None] = print
) -> str:
    """Register a finished run under the name that ``config`` gives; return the model's URI.

    Raises:
        UserError: see ``register_model``.
    """
    name = result.record.name
    try:
        with (home or Home.at(config.out)).local_copy(name) as folder:
            model = register_model(folder, config.tracking, result.record.tracking.run_id, say)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name} is whole in {result.run_dir}, but MLflow at {redacted(config.tracking.uri or '')} did not "
            f"register it ({first_line(error)[:200]}); the same command tries again"
        ) from error
    say(f"{name}: registered as {model}")
    return model


def register_model(run_dir: Path, tracking: TrackingConfig, run_id: str | None, say: Say = print) -> str:
    """Put a finished run's adapter into the registry; return ``models:/name@alias``, or ``models:/name/version``.

    A run has one version under a name: registering it again changes nothing. The first version gets the alias. An alias
    that another run's version has stays there, which is said, unless ``tracking.move_alias`` is set.

    Args:
        run_dir: the run's folder, on this machine.
        tracking: URI, name and alias.
        run_id: MLflow's id of the run.
        say: gets lines about what is waited for, and about an alias that stays.

    Raises:
        UserError: no tracking URI, no name, or a run that this store does not track.
    """
    if tracking.uri is None or tracking.register is None or run_id is None:
        raise UserError(
            "registering needs --register NAME and a run that MLflow tracks (--mlflow URI; --fresh repeats)"
        )
    client = connect(tracking.uri, say)
    holder = _aliased(client, tracking, say)
    aliased = f"models:/{tracking.register}@{tracking.alias}"
    if holder is not None and holder.run_id == run_id:
        return aliased
    run = _tracked(client, tracking.uri, run_id, say)
    moves = holder is None or tracking.move_alias
    version = _version_of(client, tracking.register, run_id)
    if version is None:
        version = _Registration(client, run_dir, tracking, run=run, aliased=aliased if moves else "", say=say).make()
    if moves:
        client.set_registered_model_alias(tracking.register, tracking.alias, version)
        _rename_in_card(client, tracking.register, version, to=aliased)
        if holder is not None:
            _rename_in_card(client, tracking.register, holder.version, was=aliased)
        return aliased
    say(
        f"{aliased} stays version {holder.version}; the new one is version {version}: --move-alias with the same "
        "command moves the alias to it"
    )
    return f"models:/{tracking.register}/{version}"


def _aliased(client: Any, tracking: TrackingConfig, say: Say) -> Any:
    """Return the version that the alias points to, or None if there is no such model or alias."""
    from mlflow.exceptions import MlflowException

    try:
        return patiently(
            lambda: client.get_model_version_by_alias(tracking.register, tracking.alias), tracking.uri or "", say
        )
    except MlflowException as error:
        if error.error_code not in _ABSENT:  # else a store that is away would pass for one without the alias
            raise
        return None


def _tracked(client: Any, uri: str, run_id: str, say: Say) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return patiently(lambda: client.get_run(run_id), uri, say)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise UserError(
            f"this run is tracked elsewhere than {redacted(uri)}; register it there, or repeat it (--fresh)"
        ) from error


def _rename_in_card(client: Any, name: str, version: str, *, to: str = "", was: str = "") -> None:
    """Let a version's card load it by another URI; that with its number is meant where none is given."""
    numbered = f"models:/{name}/{version}"
    card = client.get_model_version(name, version).description or ""
    changed = card.replace(f'"{was or numbered}"', f'"{to or numbered}"')
    if changed != card:
        client.update_model_version(name, version, changed)


def _version_of(client: Any, name: str, run_id: str) -> str | None:
    """Return the newest version that the run has under this name; None without one."""
    found = client.search_model_versions(f"run_id = '{run_id}'")
    return max((str(one.version) for one in found if one.name == name), key=int, default=None)


class _Registration:
    """Makes a version of a model: a logged model of the run with its files and scores, and the version of it.

    Args:
        client: of the store.
        run_dir: the run's folder.
        tracking: URI and name.
        run: MLflow's.
        aliased: the URI with the alias that the version will have; "" if it gets none.
        say: gets lines for a reader.
    """

    def __init__(
        self, client: Any, run_dir: Path, tracking: TrackingConfig, *, run: Any, aliased: str, say: Say
    ) -> None:
        from vlmodels.checkpoint import about_adapter

        self.client, self.run_dir, self.tracking, self.run, self.aliased = client, run_dir, tracking, run, aliased
        self.say = say
        self.record: RunRecord = read(run_dir / RECORD)
        path = run_dir / ADAPTER
        self.adapter = about_adapter(path.read_bytes(), str(path))

    def make(self) -> str:
        """Return the new version's number."""
        from mlflow.entities import LoggedModelOutput

        from pipelines.runs.model_facts import facts_of_model, scores_of
        from pipelines.runs.model_package import plain

        run_id, scores = self.run.info.run_id, scores_of(self.record)
        facts = plain(facts_of_model(self.record, self.adapter))
        tags = {**facts, **{name: f"{value:.2f}" for name, value in scores.items()}}
        model = self._patiently(
            lambda: self.client.create_logged_model(
                self.run.info.experiment_id, "model", run_id, tags, facts, "video-classification"
            )
        )
        try:
            self._upload(model, {**facts, "scores": scores})
            outputs = [LoggedModelOutput(model.model_id, self.record.epoch_kept)]
            self._patiently(lambda: self.client.log_outputs(run_id, outputs))
            self._log_scores(model.model_id, scores)
            version = self._version(model, tags)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to show
                self.client.finalize_logged_model(model.model_id, "FAILED")
            raise
        self._patiently(lambda: self.client.finalize_logged_model(model.model_id, "READY"))
        return version

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return patiently(call, self.tracking.uri or "", self.say)

    def _upload(self, model: Any, metadata: Mapping[str, object]) -> None:
        from mlflow.models import Model

        from pipelines.runs.model_package import write_package

        about = Model(
            artifact_path=model.artifact_location,
            run_id=self.run.info.run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
            metadata=dict(metadata),
        )
        with tempfile.TemporaryDirectory(prefix="vidadapt-model-") as scratch:
            folder = Path(scratch) / "model"
            write_package(
                folder,
                self.run_dir,
                about=about,
                card=self._card(self.aliased or f"models:/{model.model_id}"),
                own_classes=bool(self.adapter.classes) and self.record.protocol != "retrieval",
                backbone=self.adapter.backbone.name,
                weights=self._weights(),
            )
            self._patiently(lambda: self.client.log_model_artifacts(model.model_id, str(folder)))

    def _weights(self) -> Sequence[Path]:
        """Return the backbone's weight file and tokenizer if they are to travel; else say where they will be needed."""
        from vlmodels.adapter_facts import recorded_beside
        from vlmodels.tokenizers import hub_name

        backbone = self.adapter.backbone
        if backbone.file is None:
            if name := hub_name(backbone.name):
                self.say(
                    f"{self.record.name}: the model needs the weights '{backbone.weights}' and the tokenizer '{name}' "
                    "of the Hugging Face hub wherever it is loaded, downloaded there before if it is offline"
                )
            return ()
        path = Path(backbone.weights)
        if not self.tracking.include_weights:
            tokenizer = f", and {', '.join(backbone.beside)} beside it," if backbone.beside else ""
            self.say(
                f"{self.record.name}: the model needs {path.name} (SHA-256 {backbone.file.sha256[:12]}){tokenizer} "
                "wherever it is loaded: VIDADAPT_WEIGHTS=FILE there, or --set tracking.include_weights=true puts it "
                "into the model"
            )
            return ()
        if not path.is_file():
            raise UserError(f"{path} is not here, and tracking.include_weights=true puts it into the model")
        folder = recorded_beside(backbone, str(self.run_dir / ADAPTER), path)
        return (path, *(folder / name for name in backbone.beside if folder is not None))

    def _card(self, source: str) -> str:
        import dataclasses

        from pipelines.reports.model_card import model_card

        return model_card(self.record, dataclasses.asdict(self.adapter), source=source)

    def _log_scores(self, model_id: str, scores: Mapping[str, float]) -> None:
        """Tie the run's scores to the model, and to the list that each is of; as they are logged, so none is twice."""
        from mlflow.entities import Metric

        run_id, datasets = self.run.info.run_id, {}
        for one in self.run.inputs.dataset_inputs if self.run.inputs else ():
            datasets[one.dataset.name] = one.dataset
            datasets[one.dataset.name.rpartition("/")[2]] = one.dataset
        tied = []
        for name in sorted(scores.keys() & self.run.data.metrics.keys()):
            known = self._patiently(partial(self.client.get_metric_history, run_id, name))[-1]
            dataset = next(filter(None, map(datasets.get, _prefixes(name))), None)
            of = {"dataset_name": dataset.name, "dataset_digest": dataset.digest} if dataset else {}
            tied.append(Metric(name, known.value, known.timestamp, known.step, model_id, **of))
        self._patiently(lambda: self.client.log_batch(run_id, metrics=tied))

    def _version(self, model: Any, tags: Mapping[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        from pipelines.reports.model_card import shortened_card

        name = self.tracking.register
        try:
            self.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code not in _ABSENT:
                raise
            self.client.create_registered_model(name)
        create = self.client.create_model_version
        with _default_store(self.tracking.uri or ""):  # where a store that is opened here looks models:/ID up
            made = self._patiently(
                lambda: create(
                    name, f"models:/{model.model_id}", self.run.info.run_id, dict(tags), model_id=model.model_id
                )
            )
        version = str(made.version)
        try:
            card = shortened_card(self._card(self.aliased or f"models:/{name}/{version}"), self.record.name)
            self.client.update_model_version(name, version, card)
            versions = json.dumps([{"name": name, "version": version}])
            self.client.set_logged_model_tags(
                model.model_id, {"mlflow.modelVersions": versions, "mlflow.note.content": card}
            )
        except BaseException:
            with contextlib.suppress(Exception):  # half a version must not pass for a registered run the next time
                self.client.delete_model_version(name, version)
            raise
        return version


def _prefixes(name: str) -> Iterator[str]:
    """Yield what may be the test set in a score's name, such as "ucf101/val2" and "ucf101" of "ucf101/val2/top1"."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


@contextlib.contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """Let ``uri`` be MLflow's store of this process during the block."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI") or None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
