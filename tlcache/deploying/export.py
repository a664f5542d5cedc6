"""A run, or a network alone, as an ONNX file to use anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tlcache.arguments import NETWORK, OUTPUT, Best, BestOf, LoneModel, MaybeRun, OnnxFile, Pool, Runs, Weights
from tlcache.errors import OptionError
from tlcache.files import write_whole
from tlcache.kinds import SWITCH, number, text
from tlcache.options import Option, described
from tlcache.progress import say, warn
from tlcache.tasks import TASKS

if TYPE_CHECKING:
    from tlcache.deploying.bundle import Recorded
    from tlcache.deploying.parity import Parity
    from tlcache.deploying.saved import Saved
    from tlcache.deploying.smaller import Cost

__all__ = ["Exported", "export"]

_MAX_LOSS = 1.0  # points


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written.

    Parameters
    ----------
    path, size
        The file, and its bytes.
    checks
        What its probabilities were compared with: the head's own, on embeddings and then on images. Empty of a network
        alone and of a fine-tuned one, which are compared with torch.
    recorded
        How its answers for some test images compare with those of the record, where both are at hand.
    cost
        What `half` or `int8` cost on validation images.
    """

    path: Path
    size: int
    checks: tuple[Parity, ...] = ()
    recorded: Recorded | None = None
    cost: Cost | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` promises."""
        compared = {"checks": [asdict(each) for each in self.checks]}
        recorded, cost = (each and asdict(each) for each in (self.recorded, self.cost))
        return {"file": str(self.path), "bytes": self.size, **compared, "recorded": recorded, "cost": cost}

    def lines(self) -> list[str]:
        """Return the same for people."""
        compared = filter(None, (*self.checks, self.cost, self.recorded))
        return [f"{self.path}: {self.size:,} bytes", *map(str, compared)]


@described()
def export(
    run: MaybeRun = None,
    *,
    out: OnnxFile,
    best: Best = False,
    data: BestOf = None,
    model: LoneModel = None,
    weights: Weights = None,
    pool: Pool = None,
    layer: Annotated[
        str | None,
        Option("Up to this layer of the network", text("NAME"), NETWORK, default="last", more="See: tlcache layers"),
    ] = None,
    half: Annotated[bool, Option("Compute in float16, once its accuracy is measured", SWITCH, OUTPUT)] = False,
    int8: Annotated[bool, Option("Compute in 8-bit integers, once its accuracy is measured", SWITCH, OUTPUT)] = False,
    max_loss: Annotated[
        float | None,
        Option(
            "Most points of validation accuracy that --half or --int8 may lose",
            number(0, 100),
            OUTPUT,
            default="1",
            more="It is refused where the 95 % interval of the paired difference lies beyond that",
        ),
    ] = None,
    runs: Runs = None,
) -> Exported:
    """Write a run as an ONNX file that answers for images, or a network alone as one that embeds them.

    The file takes uint8 RGB images `image` (n, 3, H, W), prepared as its metadata says. Of a run it gives calibrated
    `probabilities` (n, C), the `label` (n,) and the `embedding` (n, D); of one that learned several labels `labels`, of
    a number `value`, `low` and `high` (docs/deploy.md); of a network (`model`) the `embedding`. It is compared with
    what went into it before it is written.

    Raises
    ------
    OptionError, ModelError, WeightsError, HeadError, CacheError
        No such run, network, weights or pooling, a head that cannot be exported, or a file that would answer otherwise:
        probabilities differ by more than 1e-5 (svm, krr: 1e-3), or embeddings by more than 1e-4 of the largest value.

    Examples
    --------
    >>> ridge = fit_heads([feature_file], heads=["ridge"], runs=folder)[0]
    >>> export(ridge.path, out=folder / "ridge.onnx").checks[0].worst < 1e-5
    True
    >>> extract(photos, export(model="resnet20_cifar", out=folder / "network.onnx").path).rows
    24
    """
    from tlcache.backbones.load import load_model
    from tlcache.backbones.onnx_file import check_written
    from tlcache.backbones.onnx_weights import joined
    from tlcache.backbones.sources import lookup
    from tlcache.deploying.best import say_best
    from tlcache.deploying.saved import find_saved

    if max_loss is not None and not (half or int8):
        raise OptionError(f"--max-loss {max_loss:g} is of --half and --int8. Give one of these, too.")
    given = [*([f"the run '{run}'"] if run else []), *["--best"] * best, *([f"--model {model}"] if model else [])]
    if len(given) > 1:
        raise OptionError(f"Given are {' and '.join(given)}. Give one of them.")
    if data is not None and not best:
        raise OptionError(f"--data {data} is of --best, which chooses a run. Give --best and nothing in its place.")
    if run is not None or best:
        if weights or pool or layer:
            raise OptionError("A run has its own weights, layer and pooling. Leave out --weights, --layer and --pool.")
        if half and int8:
            raise OptionError("--half and --int8 are two precisions. Give one of them.")
        saved = find_saved(say_best(data, runs) if run is None else run, runs, TASKS)
        return _of_run(saved, Path(out), "fp16" if half else "int8" if int8 else "fp32", max_loss)
    if half or int8:
        raise OptionError("What --half and --int8 cost is measured with a head. Give a run instead of --model.")
    check_written(out)
    if model is None:
        raise OptionError(
            "Give a run (see: tlcache runs) or --best, or with --model a network alone (see: tlcache models)."
        )
    if Path(model).is_file() and not lookup(str(model)):
        raise OptionError(f"'{model}' is not a network of tlcache models. If a run left it: tlcache export {model}")
    return _written(Path(out), joined(load_model(str(model), weights, pool=pool, output=layer).onnx()))


def _of_run(saved: Saved, out: Path, precision: str, max_loss: float | None) -> Exported:
    from tlcache.backbones.onnx_file import check_written
    from tlcache.deploying.bundle import make_bundle

    if precision != "fp32" and saved.answering:
        raise OptionError(
            f"What --half and --int8 cost is measured by accuracy, and '{saved.path.stem}' is of --task "
            f"{saved.answering.task}. Leave them out."
        )
    _check_apart(out, saved)
    check_written(out)
    made = make_bundle(saved, precision, _MAX_LOSS if max_loss is None else max_loss)
    for engine in dict.fromkeys(_engines(saved)):
        say(f"The run's embeddings were computed by {engine}; the file computes in fp32.")
    if not made.cost and made.recorded and made.recorded.same < made.recorded.n:
        apart = made.recorded.n - made.recorded.same
        warn(f"Of {made.recorded.n} test images the file answers {apart} otherwise than the record.")
    return _written(out, made.data, made.checks, made.recorded, made.cost)


def _engines(saved: Saved) -> Iterator[str]:
    """Yield what computed the embeddings of a run, where the file will compute otherwise."""
    for request, _ in () if saved.tuned or not saved.run else saved.networks:
        engine, precision = request.get("engine", "onnxruntime"), request.get("precision") or "fp32"
        if (engine, precision) != ("onnxruntime", "fp32"):
            yield f"{engine} in {precision}"


def _check_apart(out: Path, saved: Saved) -> None:
    """Raise OptionError where the file would take the place of one that the run needs."""
    own = [saved.path, saved.path.with_suffix(".json")]
    made = [] if saved.tuned else [request for request, _ in saved.networks]
    for each in (*own, *(request.get(name) for request in made for name in ("model", "weights"))):
        if each and out.exists() and Path(each).exists() and out.samefile(each):
            raise OptionError(f"'{out}' is a file of the run itself, which needs it. Give another --out.")


def _written(out: Path, data: bytes, *compared: Any) -> Exported:
    write_whole(out, data)
    return Exported(out, len(data), *compared)
