"""From functions of tensors to an ExecuTorch program, and back into one that runs."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.dialect.common.cse_pass import CSEPass
from torch.nn.attention import SDPBackend, sdpa_kernel

from .errors import ExportError
from .functional import Functional, first_line
from .randomness import forbid_draws
from .rewriting import REWRITES, Rewrites, table

METHODS = ("train", "evaluate")
_NO_KERNEL = (
    "ExecuTorch has no kernel for {}, which this model needs. Replace the layer that "
    "uses it"
)


@dataclass(frozen=True)
class Lowered:
    """A program as bytes.

    Attributes
    ----------
    data : bytes
        A ``.pte`` file.
    operators : tuple of str
        The kernels that it needs, sorted.
    memory : int
        Bytes that the larger of its methods needs besides its inputs.
    """

    data: bytes
    operators: tuple[str, ...]
    memory: int


def require_executorch() -> None:
    """Raise `ExportError` if ExecuTorch is not installed."""
    try:
        with _quiet(is_import=True):
            import executorch.exir
            import executorch.runtime  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ExecuTorch is missing ({first_line(error)}): "
            "pip install 'flwr-caesar[android]'"
        ) from error


def lower(
    functional: Functional, batch: Sequence[Tensor], *, rewrites: Rewrites = REWRITES
) -> Lowered:
    """Return the program of a model's two functions.

    Parameters
    ----------
    functional : Functional
        The model.
    batch : sequence of Tensor
        ``x``, ``y`` and weights of the batches that it will be given.
    rewrites : mapping
        Which operators are written anew.

    Raises
    ------
    ExportError
        If torch cannot trace the model or ExecuTorch lacks a kernel that it needs.
    """
    require_executorch()
    with _quiet():
        from executorch.exir import EdgeCompileConfig, to_edge

        inputs = (*functional.initial(), *batch)
        exported = {}
        for method in METHODS:
            traced = _trace(getattr(functional, method), inputs, rewrites)
            forbid_draws(traced)
            exported[method] = torch.export.export(traced, inputs, strict=False)
        # Gradients use operators beyond the core of ATen; kernels are looked up below.
        config = EdgeCompileConfig(_check_ir_validity=False)
        edge = to_edge(exported, compile_config=config)
        try:
            program = edge.to_executorch()
        except RuntimeError as error:
            found = re.search(r"Missing out variants: \{(.*)\}", str(error))
            if found is None:
                raise
            names = found.group(1).replace("'", "")
            raise ExportError(_NO_KERNEL.format(names)) from error
        used = sorted(
            {
                kernel
                for method in METHODS
                for kernel in _kernels(program.exported_program(method))
            }
        )
    missing = [kernel for kernel in used if kernel not in _registered()]
    if missing:
        raise ExportError(_NO_KERNEL.format(", ".join(missing)))
    plans = program.executorch_program.execution_plan
    memory = max(sum(plan.non_const_buffer_sizes) for plan in plans)
    return Lowered(bytes(program.buffer), tuple(used), memory)


class Program:
    """A program, run by ExecuTorch's Python runtime.

    Raises
    ------
    ExportError
        If the runtime cannot load it.
    """

    def __init__(self, data: bytes) -> None:
        require_executorch()
        from executorch.runtime import Runtime, Verification

        self._data = data  # the runtime reads from it as long as it lives
        with _native_silence() as said:
            try:
                self._program = Runtime.get().load_program(
                    data, verification=Verification.Minimal
                )
                self._methods = {
                    name: self._program.load_method(name) for name in METHODS
                }
            except RuntimeError as error:
                raise ExportError(
                    f"ExecuTorch cannot load the program: {said() or error}"
                ) from error

    def run(self, method: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return copies of the outputs of a method."""
        with _native_silence() as said:
            try:
                outputs = self._methods[method].execute(inputs)
            except RuntimeError as error:
                raise ExportError(
                    f"ExecuTorch cannot run '{method}': {said() or error}"
                ) from error
        # The runtime may use their memory again.
        return [output.clone() for output in outputs]


def _trace(
    function: Any, inputs: tuple[Tensor, ...], rewrites: Rewrites
) -> fx.GraphModule:
    try:
        with _plain_operators():
            traced = make_fx(function, decomposition_table=table(rewrites))(*inputs)
            # Again, since what was put in place of operators may write into tensors.
            traced = make_fx(functionalize(traced))(*inputs)
    except Exception as error:
        raise ExportError(
            f"torch cannot trace the model: {first_line(error)}. A program is one "
            "fixed sequence of operators: no .item(), and no branch on a tensor's value"
        ) from error
    # The columns of a convolution serve its output and its gradient.
    merged = CSEPass()(traced)
    assert merged is not None
    graph: fx.GraphModule = merged.graph_module
    return graph


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Keep torch from fused operators that ExecuTorch has not."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _kernels(program: Any) -> Iterator[str]:
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None:
            yield f"{schema.name}.{schema.overload_name}".rstrip(".")


def _registered() -> set[str]:
    from executorch.runtime import Runtime

    names: set[str] = Runtime.get().operator_registry.operator_names
    return names


@contextmanager
def _quiet(*, is_import: bool = False) -> Iterator[None]:
    """Keep ExecuTorch's own remarks on its parts from whoever cannot change them."""
    before, trace = logging.root.manager.disable, logging.getLogger("torch.__trace")
    handlers, propagates = trace.handlers, trace.propagate
    # Torch composes its trace for any handler, which takes longer than all the rest.
    trace.handlers, trace.propagate = [], False
    if is_import:
        logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        trace.handlers, trace.propagate = handlers, propagates


@contextmanager
def _native_silence() -> Iterator[Any]:
    """Keep what native code writes to standard error; yield who tells the last line."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
