"""The side that speaks MLflow. Each call may be repeated, also after it was killed half way: it looks before it makes."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyrostat_runtime import bundle, pyfunc
from gyrostat_runtime.schema import Column, Schema

from gyrostat.adapters.mlflow.records import RunRecord
from gyrostat.registry import bundles
from gyrostat.registry.versions import Version

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

LONGEST_VALUE = 5000
"""Characters of a tag or parameter; MLflow refuses more than 8000 and 6000."""


def environment(state: Path) -> dict[str, str]:
    """What an MLflow client must have in its environment to use this project's store."""
    uri = f"sqlite:///{state / 'mlflow' / 'mlflow.db'}"
    return {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_REGISTRY_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # MLflow's name for it, also where no server runs; else artifacts land below the working directory.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(state / "mlflow" / "artifacts"),
    }


class Tracking:
    """One project's MLflow store. For a process of its own: it sets MLflow's environment variables."""

    def __init__(self, state: Path) -> None:
        os.environ.update(environment(state))
        import mlflow

        self.state, self.mlflow = state, mlflow
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        mlflow.set_registry_uri(os.environ["MLFLOW_REGISTRY_URI"])
        self.client = mlflow.MlflowClient()

    def ensure(self, model: str) -> str:
        """The id of the model's experiment; made if it is not there, its artifacts below the state folder."""
        found = self.client.get_experiment_by_name(model)
        if found is None:
            place = self.state / "mlflow" / "artifacts" / model
            return self.client.create_experiment(model, artifact_location=place.as_uri())
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def write(self, record: RunRecord) -> str:
        """Bring MLflow's run up to the record; its id."""
        run = self.find(record.ref, record.model, record.made_by_script)
        if run is None:
            run = self.client.create_run(
                self.ensure(record.model),
                start_time=_ms(record.opened_at),
                run_name=record.ref,
                tags={"gyrostat.run": record.ref},
            )
        self._describe(run, record)
        # Also where it is over already: what was cut short in the middle of logging a model is left FAILED.
        if record.ended_at is not None and run.info.status != record.status:
            self.client.set_terminated(
                run.info.run_id, record.status, end_time=_ms(record.ended_at)
            )
        return run.info.run_id

    def find(self, ref: str, model: str, made_by_script: str = "") -> Run | None:
        """The run with this ref: the one that the script made, or the one that was made here before."""
        if made_by_script:
            # A script may track elsewhere; then its run is not here.
            with contextlib.suppress(self.mlflow.MlflowException):
                return self.client.get_run(made_by_script)
        where = f"tags.`gyrostat.run` = '{ref}'"
        found = self.client.search_runs([self.ensure(model)], where, max_results=1)
        return found[0] if found else None

    def _describe(self, run: Run, record: RunRecord) -> None:
        from mlflow.entities import Metric, Param, RunTag

        data = run.data
        at = _ms(record.ended_at or record.opened_at)
        metrics = [
            Metric(n, v, at, 0) for n, v in record.metrics if data.metrics.get(n) != v
        ]  # what is there already would get a second point
        params = [Param(n, v[:LONGEST_VALUE]) for n, v in record.params if n not in data.params]
        tags = [RunTag(n, v[:LONGEST_VALUE]) for n, v in record.tags if data.tags.get(n) != v]
        for start in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[start : start + 100])
        self.client.log_batch(run.info.run_id, metrics=metrics[:1000], tags=tags[:100])

    # ---- models

    def register(self, v: Version, record: RunRecord | None) -> None:
        """Log the version's bundle as a model with its schema and register it, once."""
        if self.number_of(v.model, v.number) is not None:
            return
        with contextlib.suppress(self.mlflow.MlflowException):  # it is there
            self.client.create_registered_model(v.model)
        run_id = self.write(record) if record is not None else None
        uri, model_id = self._logged(v, run_id)
        self.client.create_model_version(
            v.model, uri, run_id, model_id=model_id,
            tags={"gyrostat.version": str(v.number), "gyrostat.bundle": v.bundle, "gyrostat.run": v.run,
                  "gyrostat.snapshot": v.snapshot},
        )  # fmt: skip

    def number_of(self, model: str, number: int) -> str | None:
        """MLflow's own number of our version; scripts may have registered models under the same name in between."""
        where = f"name = '{model}' and tags.`gyrostat.version` = '{number}'"
        found = self.client.search_model_versions(where, max_results=1)
        return str(found[0].version) if found else None

    def point(self, model: str, alias: str, number: int) -> None:
        """Let an alias name our version; 0: nothing."""
        try:
            known = self.client.get_registered_model(model).aliases
        except self.mlflow.MlflowException:
            return  # no version of it was registered yet
        target = self.number_of(model, number) if number else None
        if target is not None and str(known.get(alias)) != target:
            self.client.set_registered_model_alias(model, alias, target)
        elif not number and alias in known:
            self.client.delete_registered_model_alias(model, alias)

    def _logged(self, v: Version, run_id: str | None) -> tuple[str, str]:
        """Artifact URI and id of the logged model that holds this bundle."""
        experiment = self.ensure(v.model)
        if run_id is not None:
            experiment = self.client.get_run(run_id).info.experiment_id
        where = f"tags.`gyrostat.bundle` = '{v.bundle}'"
        for known in self.client.search_logged_models([experiment], where):
            if str(known.status).endswith("READY"):
                return known.artifact_location, known.model_id
            self.client.delete_logged_model(known.model_id)
        folder = bundles.path(self.state, v.bundle)
        schema = bundle.read_manifest(folder).schema
        with (
            tempfile.TemporaryDirectory() as temp,
            self._in_run(experiment, run_id),
            warnings.catch_warnings(),
        ):
            # MLflow asks for an example of the input; rows stay out of registries.
            warnings.simplefilter("ignore")
            data = Path(temp) / "data"
            data.mkdir()
            (data / pyfunc.BUNDLE).symlink_to(folder)  # MLflow copies what a link leads to
            ring = (self.state / "keys" / "keyring.json").read_bytes()
            (data / pyfunc.KEYRING).write_bytes(ring)
            info = self.mlflow.pyfunc.log_model(
                name=v.model, loader_module="gyrostat_runtime.pyfunc", data_path=str(data),
                signature=signature(schema), tags={"gyrostat.bundle": v.bundle},
                pip_requirements=[f"gyrostat-runtime=={version('gyrostat-runtime')}"],
            )  # fmt: skip
        return info.artifact_path, info.model_id

    @contextlib.contextmanager
    def _in_run(self, experiment: str, run_id: str | None) -> Any:
        """Inside the run, which afterwards has the status and the end it had before."""
        if run_id is None:
            self.mlflow.set_experiment(experiment_id=experiment)
            yield
            return
        before = self.client.get_run(run_id).info
        try:
            with self.mlflow.start_run(run_id=run_id):
                yield
        finally:
            if before.status != "RUNNING":
                self.client.set_terminated(run_id, before.status, end_time=before.end_time)


def signature(schema: Schema) -> ModelSignature:
    """The bundle's schema in MLflow's words, as a frame read from the file has it.

    A column that may be missing is double where it holds integers, since pandas has no missing integers.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec
    from mlflow.types import Schema as MlflowSchema

    used = {f.column for f in schema.features}
    inputs: list[Any] = [
        ColSpec(_kind(c), c.name, required=c.name in used and not c.nullable) for c in schema.inputs
    ]
    kinds = {"category": "string", "integer": "long", "boolean": "boolean", "number": "double"}
    output = schema.output
    answer = "double" if output.task == "regression" else kinds[output.class_kind]
    return ModelSignature(MlflowSchema(inputs), MlflowSchema([ColSpec(answer)]))


def _kind(column: Column) -> Any:
    from mlflow.types.schema import AnyType

    match column.kind:
        case "number":
            return "double"
        case "integer":
            return "double" if column.nullable else "long"
        case "date":
            return "string"
        case "category" if not any(_is_number(c) for c in column.categories):
            return "string"
        case "boolean" if not column.nullable and not column.categories:
            return "boolean"
    # Codes are integers to pandas, and what may be missing or is spelled in two ways is no boolean to it.
    return AnyType()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


__all__ = ["Tracking", "environment", "signature"]
